"""Labelled sets become items: every field and label in its place, and one sentence for what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from langgraft.errors import CorpusError
from langgraft.evaluation.classification import Labelled, labelled_items

WORDS = {"e": " بله", "n": " شاید", "c": " نه"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_entailment_asks_for_the_word_of_the_label(tmp_path: Path) -> None:
    rows = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": "enc"[i % 3]} for i in range(30)]
    of = Labelled(write(tmp_path / "nli.jsonl", rows), "{premise} / {hypothesis}:", words=WORDS)
    built = labelled_items(of, items=20)
    assert (len(built.items), built.options) == (20, 3)
    for item in built.items:
        number = int(item.context.partition(" ")[0][1:])
        assert item.context == f"p{number} / h{number}:"
        assert item.options[item.answer] == WORDS["enc"[number % 3]]
        assert item.neutral == " / :"
    assert labelled_items(of, items=20) == built
    assert labelled_items(of, items=20, seed=1) != built


@pytest.mark.parametrize("labels, first", [("0123", 0), ("1234", 1), ("ABCD", 0), ("abcd", 0)])
def test_multiple_choice_takes_numbers_and_letters(tmp_path: Path, labels: str, first: int) -> None:
    rows = [{"q": f"q{i}", **{f"c{k}": f"{i}-{k}" for k in range(4)}, "answer": labels[i % 4]} for i in range(8)]
    path = write(tmp_path / "mc.jsonl", rows)
    of = Labelled(path, "{q}\n", options=[f"c{k}" for k in range(4)], label="answer", first=first)
    for item in labelled_items(of).items:
        number = int(item.context[1:])
        assert item.options[item.answer] == f"{number}-{number % 4}"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"prompt": "{nothing}"}, r"nli\.jsonl:1 has no field `nothing` \(it has premise, label\)"),
        ({"words": {"x": "y"}}, "label `e` has no word; `words` has x"),
        ({"words": {}}, "give either `words` for its labels or the fields of its `options`"),
        ({"options": ["premise"]}, "give either `words`"),
        ({"words": {}, "options": ["premise", "label"], "label": "premise"}, "label `9` is none of 2 options"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = write(tmp_path / "nli.jsonl", [{"premise": "9", "label": "e"}])
    with pytest.raises(CorpusError, match=sentence):
        labelled_items(Labelled(**{"path": path, "prompt": "{premise}", "words": WORDS, **change}))


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no row in"):
        labelled_items(Labelled(write(tmp_path / "none.jsonl", []), "{a}", words=WORDS))
