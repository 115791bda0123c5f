"""Rows of chat data: three forms, told apart row by row, and what is wrong said with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from chats import talk, write_rows

from langgraft.errors import CorpusError
from langgraft.training.chat_rows import Chat, ChatSource, conversation, read_chats, with_system

ASKED = talk("2 + 2?", "4")


@pytest.mark.parametrize(
    "row",
    [
        {"messages": ASKED},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}, ASKED[1]]},
        {"messages": [{"from": "human", "value": "2 + 2?"}, ASKED[1]]},
        {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
        {"conversations": ASKED, "messages": None},
        {"instruction": "2 + 2?", "output": "4"},
        {"instruction": "2 + 2?", "input": "", "output": "4"},
        {"instruction": "2 + 2?", "input": None, "output": "4", "id": 7},
        {"messages": [*ASKED, {"role": "user", "content": "Thanks"}]},  # nothing to learn after the last answer
    ],
)
def test_the_three_forms_are_the_same_conversation(row: dict[str, Any]) -> None:
    assert list(conversation(row, "here")) == ASKED


def test_an_input_stands_below_the_instruction() -> None:
    row = {"instruction": "Translate.", "input": "好", "output": "good"}
    assert list(conversation(row, "here")) == talk("Translate.\n\n好", "good")


def test_system_prompts_come_from_turns_fields_or_the_option() -> None:
    own = talk("2 + 2?", "4", system="Be brief.")
    assert list(conversation({"messages": own}, "here")) == own
    assert list(conversation({"messages": ASKED, "system": "Be brief."}, "here")) == own
    assert list(with_system(ASKED, "Be brief.")) == own
    assert list(with_system(own, "Be long.")) == own
    assert list(with_system(ASKED, "")) == ASKED


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([1], "here: a row of chat data must be an object with fields, not list"),
        ({"text": "a", "id": 1}, "here: no conversation in fields text, id; a row needs `messages`"),
        ({}, r"no conversation in fields \(none\)"),
        ({"instruction": "a", "output": 4}, "here: output must be text, not 4"),
        ({"instruction": "a", "output": "b", "system": 1}, "here: system must be text, not 1"),
        ({"messages": []}, r"here: messages must be a list of turns, not \[\]"),
        ({"messages": ["a"]}, "here: messages, turn 1 must be an object with `role` and `content`"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "turn 1: the speaker 'narrator' is none of system"),
        ({"conversations": [{"from": "human"}]}, "conversations, turn 1: value must be text, not None"),
        ({"conversations": [{"from": 3, "value": "a"}]}, "the speaker 3 is none of"),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]},
            "turn 1: calls of tools cannot be learned yet",
        ),
    ],
)
def test_a_row_that_is_no_conversation_is_said_with_its_place(row: Any, sentence: str) -> None:
    with pytest.raises(CorpusError, match=sentence):
        conversation(row, "here")


def test_files_of_each_kind_give_the_same(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    rows = [{"messages": talk(f"{i}?", str(i))} for i in range(5)]
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows))
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    read = [list(read_chats([ChatSource(str(tmp_path / name))])) for name in ("a.jsonl", "b.json", "c.parquet")]
    messages = [[chat.messages for chat in of] for of in read]
    assert messages[0] == messages[1] == messages[2]
    assert [chat.place for chat in read[0]][:2] == ["a.jsonl:1", "a.jsonl:2"]
    assert len(list(read_chats([ChatSource(str(tmp_path))], system="Hi."))) == 15


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n")
    with pytest.raises(CorpusError, match=r"a\.txt: conversations are read from JSONL, JSON .* and Parquet"):
        list(read_chats([ChatSource(str(tmp_path / "a.txt"))]))
    (tmp_path / "b.jsonl").write_text('{"messages": \n')
    with pytest.raises(CorpusError, match=r"b\.jsonl cannot be read row by row"):
        list(read_chats([ChatSource(str(tmp_path / "b.jsonl"))]))


def test_a_share_takes_the_same_rows_wherever_they_stand(tmp_path: Path) -> None:
    rows = [{"messages": talk(f"{i}?", str(i))} for i in range(400)]
    write_rows(tmp_path / "a.jsonl", rows)
    write_rows(tmp_path / "b.jsonl", rows[::-1])
    taken = [
        {chat.question for chat in read_chats([ChatSource(str(tmp_path / name), 0.25)], seed=seed)}
        for name, seed in (("a.jsonl", 0), ("b.jsonl", 0), ("a.jsonl", 1))
    ]
    assert taken[0] == taken[1] != taken[2]
    assert 60 <= len(taken[0]) <= 140


def test_the_question_is_all_before_the_first_answer() -> None:
    one, other = (Chat(tuple(talk("a", answer, "b", "c", system="s")), "") for answer in ("x", "y"))
    assert one.question == other.question
    assert one.question != Chat(tuple(talk("a", "x")), "").question
    assert one.answers() == [2, 4]
