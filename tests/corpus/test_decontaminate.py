"""Nothing of an evaluation set in the training text, and nothing else dropped for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from langgraft.corpus import prepare as module
from langgraft.corpus.clean import Cleaner, Dropped
from langgraft.corpus.decontaminate import Overlaps, evaluation_texts, index, sizes
from langgraft.corpus.document import Document, Input
from langgraft.corpus.prepare import prepare, read_split
from langgraft.errors import CorpusError, GateError
from langgraft.progress import Log

NUMBERS = [f"word{i}" for i in range(16)]
THAI = "แม่น้ำเจ้าพระยาไหลผ่านกรุงเทพมหานครและจังหวัดใกล้เคียงก่อนออกสู่ทะเลที่อ่าวไทย"
HAN = "香港嘅夜景真係好靚好多人都鍾意影相我哋今日去邊度食飯呀"


def overlaps(folder: Path, code: str, *texts: str) -> Overlaps:
    folder.mkdir()
    index([Document(text, f"e:{i}", code, "e", "") for i, text in enumerate(texts)], code, folder)
    return Overlaps(folder, code)


def test_thirteen_words(tmp_path: Path) -> None:
    found = overlaps(tmp_path / "a", "en", "nothing of this text is anywhere else but here", " ".join(NUMBERS))
    assert found.find("He said: " + ", ".join(NUMBERS[1:14]).upper() + "!") == "e:1"
    assert found.find("He said: " + ", ".join(NUMBERS[1:13]) + " and left it at that for the rest of the day") == ""
    assert found.find("short") == ""


def test_shorter_evaluation_texts_are_found_by_eight_words(tmp_path: Path) -> None:
    found = overlaps(tmp_path / "a", "en", " ".join(NUMBERS[:9]), "seven words are too few for this")
    assert found.find("well " + " ".join(NUMBERS[1:9])) == "e:0"
    assert found.find("well " + " ".join(NUMBERS[1:8]) + " or seven words are too few for this") == ""
    assert overlaps(tmp_path / "b", "en").find(" ".join(NUMBERS)) == ""


def test_scripts_without_spaces(tmp_path: Path) -> None:
    assert (sizes("en"), sizes("th"), sizes("yue")) == ((13, 8), (50, 30), (20, 12))
    thai = overlaps(tmp_path / "th", "th", THAI)
    assert thai.find("ก " + THAI[5:60] + " ข") == "e:0"
    assert thai.find("ก" + THAI[5:50] + "ข") == ""
    han = overlaps(tmp_path / "yue", "yue", HAN, "The internationalization of documentation")
    assert han.find("佢話：" + HAN[2:10] + "，" + HAN[10:24] + "。") == "e:0"
    assert han.find("佢話：" + HAN[2:20]) == ""
    assert han.find("internationalization") == ""


def test_every_string_of_a_row_is_an_evaluation_text(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    row = {"question": "What is it?", "choices": {"text": ["this one", "that one"], "n": [1, 2]}, "answer": None}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps("bare") + "\n")
    (tmp_path / "b.json").write_text(json.dumps([row]))
    (tmp_path / "c.csv").write_text('question,answer\n"Who, then?",he\n')
    (tmp_path / "d.tsv").write_text("question\tanswer\nWho?\tshe\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"q": "Why?", "a": ["so"]}]), tmp_path / "e.parquet")
    (tmp_path / "f.txt").write_text("one line\nanother line\n")
    texts = [document.text for document in evaluation_texts([str(tmp_path)], "en")]
    of_row = ["What is it?", "this one", "that one"]
    tables = ["question", "answer", "Who, then?", "he", "question", "answer", "Who?", "she", "Why?", "so"]
    assert texts == [*of_row, "bare", *of_row, *tables, "one line", "another line"]
    ids = [document.id for document in evaluation_texts([str(tmp_path / "a.jsonl")], "en")]
    assert ids[:2] == ["a.jsonl:1.question", "a.jsonl:1.choices.text[0]"]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", b'{"a": \n', "a.jsonl cannot be read row by row"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read row by row"),
        ("a.json", b'["one", "tw', "a.json cannot be read row by row"),
        ("a.jsonl", b'{"a": 1}\n', "no text in .*a.jsonl"),
    ],
)
def test_damaged_evaluation_sets_are_errors(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=match):
        list(evaluation_texts([str(tmp_path / name)], "en"))


def corpus(folder: Path, **options: Any) -> dict[str, Any]:
    """A corpus with four documents that an evaluation set has too: in part, nearly, exactly and short, as a field."""
    lines = [f"Line {i} of {i * 7} is about the town of number {i * 13} and {i * 17} of its people." for i in range(60)]
    question = "Which of the towns by the river has the largest number of people who can read and write today?"
    planted = [
        f"In the book there is this: {question} and then it goes on and on about other things for a while.",
        lines[5].replace("people", "inhabitants"),
        "Yes, indeed!",
        question.upper(),
    ]
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text("\n".join([*lines[10:], *planted]))
    rows = [{"q": question, "choices": ["yes indeed", "no"]}, {"text": lines[5]}, {"q": lines[6]}]
    (folder / "bench.jsonl").write_text("\n".join(map(json.dumps, rows)))
    inputs = [Input(str(folder / "text.txt"), name="t")]
    return prepare(inputs, folder / "out", language="en", dev=3, test=3, log=Log(quiet=True), **options)


def test_planted_evaluation_texts_are_gone(tmp_path: Path) -> None:
    summary = corpus(tmp_path, decontaminate=[str(tmp_path / "bench.jsonl")])["target"]
    dropped = summary["dropped"]["contaminated"]
    assert dropped["documents"] == 4
    assert {(row["id"], row["overlaps"]) for row in dropped["examples"]} == {
        ("t/text.txt:51", "bench.jsonl:1.q"),
        ("t/text.txt:52", "bench.jsonl:2.text"),
        ("t/text.txt:53", "bench.jsonl:1.choices[0]"),
        ("t/text.txt:54", "bench.jsonl:1.q"),
    }
    assert (summary["documents"]["kept"], summary["evaluation_texts"]) == (50, 5)
    assert summary["leaks"] == summary["overlaps"] == 0
    without = corpus(tmp_path / "b")["target"]
    assert without["documents"]["kept"] == 54
    assert any("largest number" in d.text for d in read_split(tmp_path / "b" / "out", "target", "train"))


def test_the_gate_fails_when_something_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Cleaner.__call__

    def blind(cleaner: Cleaner, document: Document) -> Any:
        for result in original(cleaner, document):
            yield result.document if isinstance(result, Dropped) and result.reason == "contaminated" else result

    monkeypatch.setattr(Cleaner, "__call__", blind)
    with pytest.raises(GateError, match=r"0 training documents in en repeat a held-out one and [12] overlap"):
        corpus(tmp_path, decontaminate=[str(tmp_path / "bench.jsonl")], seed=1)
    monkeypatch.undo()
    monkeypatch.setattr(module, "find_duplicates", lambda shards, *_, **__: _none(len(shards)))
    with pytest.raises(GateError, match=r"[123] training documents in en repeat a held-out one"):
        corpus(tmp_path, decontaminate=[str(tmp_path / "bench.jsonl")])


def _none(n: int) -> Any:
    import numpy as np

    from langgraft.corpus.dedup import Duplicates

    return Duplicates(np.arange(n), np.zeros(n, dtype=bool))
