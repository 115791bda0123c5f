"""The page of a prepared corpus: what it says, in both directions of writing, and that it asks for nothing."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from langgraft.corpus.document import Input
from langgraft.corpus.filters import defaults
from langgraft.corpus.prepare import prepare
from langgraft.errors import CorpusError
from langgraft.evaluation.corpus_page import render, write_page
from langgraft.progress import Log
from langgraft.store import read_json

PERSIAN = "این جمله شماره {} از یک متن فارسی درباره هوای شمال کشور و مردم آن است."
ENGLISH = "Sentence {} of an English text about the weather in the north of the country."


@pytest.fixture
def page(tmp_path: Path) -> str:
    lines = [PERSIAN.format(i) for i in range(60)]
    digits = " ".join(str(i * 7919) for i in range(60))
    lines += [lines[0], ENGLISH.format(900), f"<script>{PERSIAN.format(61)}</script> {digits}"]
    (tmp_path / "fa.txt").write_text("\n".join(lines))
    (tmp_path / "en.txt").write_text("\n".join(ENGLISH.format(i) for i in range(40)))
    prepare(
        [Input(str(tmp_path / "fa.txt"), name="web")], tmp_path / "out", language="fa",
        source=[Input(str(tmp_path / "en.txt"), name="en", license="CC0-1.0")], dev=3, test=3,
        near_duplicates=False, thresholds=defaults("fa"), log=Log(quiet=True),
    )  # fmt: skip
    write_page(tmp_path / "out")
    return (tmp_path / "out" / "corpus.html").read_text(encoding="utf-8")


def test_the_page_says_what_was_read_kept_and_left_out(page: str) -> None:
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    assert "60 documents of Persian text" in text
    assert "Licence unknown: web. Find it out" in text
    assert "repeats an earlier document duplicate 1 document" in text
    assert "another script script 1 document" in text
    assert "quality filter: at most 0.3 digits 1 document" in text
    assert "(repeats web/fa.txt:1)" in text
    assert ENGLISH.format(900) in text
    assert "CC0-1.0" in text


def test_right_to_left_text_is_marked(page: str) -> None:
    samples = re.findall(r'<p class="passage" lang="(\w+)" dir="(\w+)">', page)
    assert samples == [("fa", "rtl")] * 4 + [("en", "ltr")] * 4
    assert page.count('<p class="passage" dir="auto">') == 3


def test_the_page_asks_for_nothing_and_runs_nothing(page: str) -> None:
    assert not re.findall(r"(?:src|href)=|url\(|@import|<script", page)
    assert "&lt;script&gt;" in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.usefixtures("page")
def test_what_other_steps_add(tmp_path: Path) -> None:
    summary: dict[str, Any] = read_json(tmp_path / "out" / "summary.json")
    menu = {"id": "a", "text": "Home | News"}
    summary["target"] |= {
        "languages": {"fa": {"characters": 900, "share": 0.9}, "und": {"characters": 100, "share": 0.1}},
        "dropped_lines": {"boilerplate": {"documents": 2, "lines": 7, "characters": 9, "examples": [menu]}},
        "evaluation_texts": 12,
        "near_duplicates": {"clusters": 2, "dropped": 5, "largest": 4},
        "mask": ["email"],
        "masked": {"email": 3},
    }
    text = " ".join(re.sub(r"<[^>]+>", " ", render(summary, {})).split())
    assert "Persian 900 90%" in text
    assert "cannot be told 100" in text
    assert "a line that many documents share boilerplate 7 lines of 2 documents" in text
    assert "Home | News" in text
    assert "Evaluation texts kept out 12" in text
    assert "5 in 2 clusters, the largest of 4" in text
    assert "Personal data masked email 3" in text


@pytest.mark.usefixtures("page")
def test_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"holds no summary\.json"):
        write_page(tmp_path)
    train = tmp_path / "out" / "target" / "train.jsonl.gz"
    train.write_bytes(b"not gzip")
    with pytest.raises(CorpusError, match=r"train\.jsonl\.gz is damaged"):
        write_page(tmp_path / "out")
