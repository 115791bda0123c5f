"""Proxies of generations find what they are for: the wrong language, mixed scripts, loops, templates that changed."""

import json
import shutil
from pathlib import Path

import pytest
from pico import CANTONESE, ENGLISH

from langgraft.evaluation.generation import CHATS, beginnings, quality, repetition, same_chats

LOOP = "佢話聽日會落雨，" * 8


def test_a_model_that_answers_in_english_or_loops_is_found() -> None:
    written = {"base": [*ENGLISH[:3], LOOP, LOOP, ""], "adapted": CANTONESE}
    found = quality(written, "yue", resamples=300)
    assert found["prompts"] == 6
    assert found["right_language"]["models"]["adapted"]["mean"] == 1.0
    assert found["right_language"]["models"]["base"]["mean"] == pytest.approx(2 / 6)
    assert found["script_purity"]["models"]["base"]["mean"] == pytest.approx(2 / 6)
    assert found["right_language"]["changes"]["adapted"]["verdict"] == "gain"
    assert found["repetition"]["models"]["adapted"]["mean"] < 0.1
    assert found["repetition"]["models"]["base"]["mean"] > 0.2
    assert found["repetition"]["better"] == "lower"


def test_repetition_is_counted_in_words_or_characters() -> None:
    assert repetition("one two three four", "en") == 0.0
    assert repetition("", "en") == 0.0
    assert repetition("a b c d a b c d a b c d", "en") == pytest.approx(1 - 4 / 9)
    assert repetition(LOOP, "yue") > 0.7
    assert repetition(CANTONESE[0], "yue") == 0.0


def test_prompts_are_beginnings() -> None:
    texts = ["short", "a" * 300, CANTONESE[0] * 4, *ENGLISH]
    prompts = beginnings(texts, 4)
    assert len(prompts) == 4
    assert prompts[0] == "a" * 80
    assert (CANTONESE[0] * 4).startswith(prompts[1])
    assert all(len(prompt) <= 80 for prompt in prompts)


def changed(folder: Path, out: Path, template: str | None) -> Path:
    shutil.copytree(folder, out)
    config = json.loads((out / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    return out


def test_templates_that_changed_are_found(pico: Path, tmp_path: Path) -> None:
    same = same_chats(pico, pico)
    assert same == {"template": "same", "messages": len(CHATS), "same_ids": 1.0, "first_difference": None}
    other = changed(pico, tmp_path / "other", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    found = same_chats(pico, other)
    assert (found["template"], found["same_ids"]) == ("differs", 0.0)
    assert found["first_difference"]["base"] != found["first_difference"]["adapted"]
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    refused = same_chats(pico, changed(pico, tmp_path / "strict", strict))
    assert refused["messages"] == len(CHATS)
    assert same_chats(changed(pico, tmp_path / "less", strict), pico)["messages"] == len(CHATS) - 1
    none = changed(pico, tmp_path / "none", None)
    assert same_chats(pico, none)["template"] == "lost"
    assert same_chats(none, pico)["template"] == "none"


def test_an_extended_tokenizer_keeps_chats(pico: Path, tmp_path: Path) -> None:
    """Ids are compared, not texts: a tokenizer that cuts English differently is found under the same template."""
    other = changed(pico, tmp_path / "cut", json.loads((pico / "tokenizer_config.json").read_text())["chat_template"])
    data = json.loads((other / "tokenizer.json").read_text())
    data["model"]["merges"] = data["model"]["merges"][:-60]
    (other / "tokenizer.json").write_text(json.dumps(data))
    found = same_chats(pico, other)
    assert found["template"] == "same"
    assert found["same_ids"] < 1
