"""Answers are exactly what serving's prompt is followed by, in templates of every kind."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from chats import BRACKETS, CHATML, REWRITING, THOUGHTS, TRIMMED, WITH_DEFAULT, talk, with_template
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from langgraft.errors import CorpusError, InputError
from langgraft.serving.generate import chat_prompt
from langgraft.serving.hub import HubModel
from langgraft.store import read_json, write_json
from langgraft.tokenizer.template import named_ends, template_of
from langgraft.training.chat_rows import Chat
from langgraft.training.turns import CHATML as OWN_CHATML
from langgraft.training.turns import PLAIN, Encoded, Turns, template_for, write_template

TALK = talk("Water?", "It boils at 100.", "And freezes?", "At 0 degrees.")
TEMPLATES = {
    "chatml": CHATML, "default": WITH_DEFAULT, "trimmed": TRIMMED, "brackets": BRACKETS, "thoughts": THOUGHTS,
    "own chatml": OWN_CHATML, "plain": PLAIN,
}  # fmt: skip


def one(turns: Turns, messages: list[dict[str, str]]) -> Encoded:
    left_out: Counter[str] = Counter()
    found = [encoded for _, encoded in turns.encode([Chat(tuple(messages), "rows.jsonl:7")], left_out)]
    assert not left_out
    return found[0]


@pytest.fixture(scope="module", params=TEMPLATES)
def folder(request: pytest.FixtureRequest, pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with each of the templates."""
    copy = tmp_path_factory.mktemp("templates") / "model"
    shutil.copytree(pico, copy)
    return with_template(copy, TEMPLATES[request.param])


def test_training_reads_the_ids_that_serving_feeds(folder: Path) -> None:
    """Token by token: before each answer exactly the prompt of serving (and of transformers), then the answer."""
    turns, model = Turns(folder, template_of(folder) or ""), HubModel(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    found = one(turns, TALK)
    assert len(found.answers) == 2
    for answer, place in zip(found.answers, (1, 3), strict=True):
        served = chat_prompt(model, TALK[:place])
        assert found.ids[: answer.start].tolist() == served == turns.prompt(TALK[:place])
        asked = theirs.apply_chat_template(TALK[:place], add_generation_prompt=True, return_dict=False)
        assert served == list(asked)
        said = turns.tokenizer.decode(found.ids[answer.start : answer.stop - 1].tolist(), skip_special_tokens=False)
        assert said.replace("<think>\n\n</think>\n\n", "").strip() == TALK[place]["content"]
        assert found.ids[answer.stop - 1] == turns.end
        assert model.ends(turns.end)
        assert answer.bytes == len(TALK[place]["content"].encode())
    assert found.learn.sum() == sum(answer.stop - answer.start for answer in found.answers)
    assert len(found.ids) == found.answers[-1].stop


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="<|"), min_size=1), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_whatever_is_said_the_prompt_is_what_serving_feeds(pico: Path, said: list[str]) -> None:
    """Also for answers that the tokenizer would join to the prompt: those are left out and counted."""
    messages = talk(*said[: len(said) // 2 * 2])
    for template in (CHATML, WITH_DEFAULT, TRIMMED, BRACKETS):
        turns, left_out = Turns(pico, template), Counter[str]()
        found = [encoded for _, encoded in turns.encode([Chat(tuple(messages), "x")], left_out)]
        assert len(found) + left_out.total() == 1
        for encoded in found:
            for answer, place in zip(encoded.answers, range(1, len(messages), 2), strict=True):
                assert encoded.ids[: answer.start].tolist() == turns.prompt(messages[:place])
                assert encoded.ids[answer.stop - 1] == turns.end
                assert turns.end not in encoded.ids[answer.start : answer.stop - 1]


def test_turns_are_cut_whole(pico: Path) -> None:
    found = one(Turns(pico, CHATML), TALK)
    first, second = found.answers
    assert found.within(len(found.ids) - 1) is not None
    whole, cut = found.within(second.stop - 1), found.within(second.stop - 2)
    assert whole is not None
    assert whole.answers == found.answers
    assert cut is not None
    assert cut.answers == (first,)
    assert len(cut.ids) == first.stop
    assert found.within(first.stop - 2) is None


@pytest.mark.parametrize(
    ("messages", "template", "reason"),
    [
        ([], CHATML, "without a question and an answer"),
        (talk("a"), CHATML, "without a question and an answer"),
        ([{"role": "assistant", "content": "a"}], CHATML, "without a question and an answer"),
        ([{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}], CHATML, "without a question"),
        (talk("a", "b", "c", " \n"), CHATML, "empty answer"),
        (talk("a", "b", system="s"), BRACKETS, "refused by the chat template"),
    ],
)
def test_conversations_that_cannot_be_learned_are_counted(
    pico: Path, messages: list[dict[str, str]], template: str, reason: str
) -> None:
    left_out: Counter[str] = Counter()
    good = Chat(tuple(TALK), "x")
    found = list(Turns(pico, template).encode([Chat(tuple(messages), "x"), good, good], left_out))
    assert len(found) == 2
    assert [key.startswith(reason) for key in left_out] == [True]


def test_an_answer_that_joins_the_prompt_is_counted(pico: Path) -> None:
    """The end of the prompt and the beginning of the answer are one token here: the model is never asked so."""
    open_word = (
        "{% for m in messages %}{{ m.content if m.role == 'user' else ' th' + m.content + eos_token }}{% endfor %}"
    )
    turns, left_out = Turns(pico, open_word + "{{ ' th' if add_generation_prompt }}"), Counter[str]()
    every = [Chat(tuple(talk("Of", answer)), "x") for answer in ("e sun", "1")]
    found = [chat.messages[1]["content"] for chat, _ in turns.encode(every, left_out)]
    assert found == ["1"]
    assert left_out == {"prompt and answer share a token": 1}


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (CHATML.replace("{% if add_generation_prompt %}", "{% if false %}"), "ignores add_generation_prompt"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<|im_end|>' if add_generation_prompt }}",
            "where it asks",
        ),
        ("{% for m in messages %}{{ m.role }}<|im_end|>{% endfor %}", "does not write an answer where it asks for one"),
        (CHATML.replace("<|im_end|>", "END"), "ends an answer with 'END.n', and none of that is a special token"),
        ("{{ raise_exception('never') }}", "refuses this conversation: never"),
    ],
)
def test_templates_that_cannot_be_learned_with_are_refused(pico: Path, template: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Turns(pico, template)


def test_a_template_that_rewrites_what_was_said_is_refused_by_row(pico: Path) -> None:
    turns = Turns(pico, REWRITING)
    assert one(turns, TALK[:2]).answers
    with pytest.raises(CorpusError, match=r"rows\.jsonl:7: the chat template writes the conversation before answer 2"):
        one(turns, TALK)


def test_a_template_whose_answers_end_differently_is_refused_by_row(pico: Path) -> None:
    odd = CHATML.replace("'<|im_end|>\n'", "('<|im_end|>\n' if m.content != 'odd' else '<|endoftext|>')")
    with pytest.raises(CorpusError, match=r"rows\.jsonl:7: the chat template ends this answer otherwise"):
        one(Turns(pico, odd), talk("a", "odd"))


def test_the_template_of_a_model_without_one(pico: Path, tmp_path: Path) -> None:
    folder = with_template(Path(shutil.copytree(pico, tmp_path / "model")), None)
    template, said = template_for(folder)
    assert template == OWN_CHATML
    assert "has no chat template, but the tokens of ChatML" in said
    data = read_json(folder / "tokenizer.json")
    for token in data["added_tokens"]:
        if token["content"] == "<|im_start|>":
            token["content"] = "<s>"
    data["model"]["vocab"]["<s>"] = data["model"]["vocab"].pop("<|im_start|>")
    write_json(folder / "tokenizer.json", data)
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**config, "bos_token": "<s>"})
    template, said = template_for(folder)
    assert template == PLAIN
    assert "turns are marked by ordinary text" in said
    assert one(Turns(folder, template), TALK).answers
    data["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }  # fmt: skip
    write_json(folder / "tokenizer.json", data)
    template, _ = template_for(folder)
    assert one(Turns(folder, template), TALK).ids[0] == 1  # as every text that this base has read
    write_json(folder / "tokenizer_config.json", {k: v for k, v in config.items() if k not in ("eos_token",)})
    with pytest.raises(InputError, match="neither a chat template nor an end-of-sequence token"):
        template_for(folder)


def test_a_template_of_the_users_own(pico: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(BRACKETS)
    assert template_for(pico, tmp_path / "own.jinja") == (BRACKETS, "the chat template is own.jinja")
    with pytest.raises(InputError, match=r"none\.jinja does not exist"):
        template_for(pico, tmp_path / "none.jinja")
    assert template_for(pico)[1] == ""


def test_the_folder_names_what_it_was_trained_with(pico: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pico, tmp_path / "model"))
    assert write_template(folder, template_of(folder) or "", 2) == []
    separate = CHATML.replace("<|im_end|>", "<|endoftext|>")
    turns = Turns(folder, separate)
    assert turns.end == 0
    assert write_template(folder, separate, turns.end) == ["chat_template.jinja", "generation_config.json"]
    assert template_of(folder) == separate
    assert named_ends(folder) == [2, 0]
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.chat_template == separate
    assert write_template(folder, separate, turns.end) == []
