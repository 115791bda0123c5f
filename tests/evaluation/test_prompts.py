"""Prompts: the shipped ones are in their languages, a file of the user's own is checked, the template is a file."""

import tomllib
from pathlib import Path

import pytest
from command import langgraft

from langgraft.errors import RecipeError
from langgraft.evaluation.prompts import KINDS, chosen, read_prompts, shipped, shipped_languages, template
from langgraft.evaluation.side_by_side import written_in

TAUGHT = ("yue", "hi", "th", "ja", "fa")


@pytest.mark.parametrize("code", TAUGHT)
def test_two_of_each_kind_are_shipped_and_are_in_their_language(code: str) -> None:
    prompts = shipped(code)
    assert [prompt.kind for prompt in prompts] == [kind for kind in KINDS for _ in range(2)]
    assert all(prompt.english for prompt in prompts)
    for prompt in prompts:
        lines = [line for line in prompt.text.split("\n") if not line.startswith("English:")]
        assert written_in(lines[0], code)["right"], prompt.text
        if prompt.kind == "code_switch":
            assert any(word.isascii() and word.isalpha() for word in prompt.text.split())
        else:
            assert written_in("\n".join(lines), "en")["right"] is False, prompt.text
    assert len({prompt.text for prompt in prompts}) == len(prompts)


def test_english_is_shipped_and_other_languages_have_none() -> None:
    assert {prompt.kind for prompt in shipped("en")} == {"continuation", "question"}
    assert shipped("sw") == []
    assert shipped_languages() == sorted((*TAUGHT, "en"))


def test_own_prompts_come_first_and_each_text_once() -> None:
    first = shipped("hi")[0].text
    found = chosen("hi", ["नमस्ते", first], shipped("hi")[1:2], with_shipped=True)
    assert [prompt.text for prompt in found[:3]] == ["नमस्ते", first, shipped("hi")[1].text]
    assert len(found) == len(shipped("hi")) + 1
    assert chosen("hi", [], [], with_shipped=False) == []


def test_the_template_is_a_file_once_the_texts_are_written(tmp_path: Path) -> None:
    path = tmp_path / "prompts-sw.toml"
    path.write_text(template("sw"), encoding="utf-8")
    assert len(tomllib.loads(template("sw"))["sw"]) == 8
    with pytest.raises(RecipeError, match="has no text"):
        read_prompts(path)
    path.write_text(template("sw").replace('text = ""', 'text = "Leo asubuhi"'), encoding="utf-8")
    prompts = read_prompts(path)
    assert {prompt.language for prompt in prompts} == {"sw"}
    assert [prompt.kind for prompt in prompts] == [prompt.kind for prompt in shipped("hi")]


@pytest.mark.parametrize("code", [*TAUGHT, "en"])
def test_the_shipped_prompts_can_be_edited(tmp_path: Path, code: str) -> None:
    path = tmp_path / "prompts.toml"
    done = langgraft("prompts", code, "-o", path)
    assert done.code == 0, done.err
    assert read_prompts(path) == shipped(code)
    assert langgraft("prompts", code).out == path.read_text(encoding="utf-8")
    assert "exists already" in langgraft("prompts", code, "-o", path).sentence()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[[hi]]\nkind = 'question'", "has no text"),
        ("[[hi]]\nkind = 'poem'\ntext = 'a'", "kind must be one of"),
        ("[[hi]]\nkind = 'question'\ntext = 'a'\nmeaning = 'b'", "has `meaning`"),
        ("[[hi]]\nkind = 'question'\ntext = 3", "table of strings"),
        ("hi = 'a'", r"table \[\[hi\]\]"),
        ("[[hi", "is no TOML"),
        ("[[qqq]]\nkind = 'question'\ntext = 'a'", "qqq"),
    ],
)
def test_a_damaged_file_of_prompts_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Exception, match=expected):
        read_prompts(path)


def test_a_missing_file_of_prompts_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_prompts(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("我哋聽日去邊度食飯呀？佢話唔知喎。", "yue", True),
        ("The market opens early in the morning every day of the week.", "yue", False),
        ("他们的东西是我们在这里买的，没有什么问题。", "yue", False),
        ("बाज़ार सुबह छह बजे खुलता है और देर रात तक चलता है।", "hi", True),
        ("The market opens early in the morning every day of the week.", "hi", False),
        ("", "hi", None),
        ("123 …", "hi", None),
    ],
)
def test_the_language_of_an_answer_is_checked(text: str, code: str, expected: bool | None) -> None:
    assert written_in(text, code)["right"] is expected
