"""Texts read one after the other, some of them held out."""

from pathlib import Path

import pytest

from langgraft.corpus import stream as module
from langgraft.corpus.stream import Learning, stream, texts_of
from langgraft.errors import CorpusError


def numbered(count: int) -> list[str]:
    return [f"text {i}" for i in range(count)]


def test_every_twentieth_is_held_out_and_none_is_both() -> None:
    texts = numbered(1000)
    learning = Learning(iter(texts))
    learned = list(learning)
    assert learning.held_out == texts[::20]
    assert sorted(learned + learning.held_out) == sorted(texts)


def test_few_are_learned_from_and_measured_on() -> None:
    learning = Learning(numbered(99))
    assert list(learning) == learning.held_out == numbered(99)
    assert list(Learning(())) == []


def test_held_out_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_OUT", 20)
    learning = Learning(numbered(1000))
    assert len(list(learning)) == 950
    assert learning.held_out == ["text 0", "text 20", "text 40"]


def test_texts_are_read_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    wanted = [str(tmp_path / "a.txt"), str(tmp_path / "missing.txt")]
    texts = stream(wanted, "en")
    assert next(texts)
    with pytest.raises(CorpusError, match="missing"):
        list(texts)


def test_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "  "}\n', encoding="utf-8")
    with pytest.raises(CorpusError, match=r"there is no text in"):
        texts_of([str(tmp_path / "a.jsonl")], "en")
