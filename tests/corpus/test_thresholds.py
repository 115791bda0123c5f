"""Bounds from clean text and from FineWeb-2 files."""

from pathlib import Path

import pytest
from test_filters import prose

from langgraft.corpus.document import Input
from langgraft.corpus.filters import FILTERS, Bounds, defaults
from langgraft.corpus.thresholds import derive, read_fineweb, thresholds
from langgraft.errors import CorpusError

CONFIG = """
dup_line_frac: 0.206
dup_n_grams:
- - 5
  - 0.135
- - 10
  - 0.09
line_punct_thr: 0.091
max_avg_word_length: 21
min_avg_word_length: 2
max_non_alpha_words_ratio: 0.837
new_line_ratio: 0.316
stopwords:
- "\\u0915\\u0947"
- "\\u0939\\u0948"
top_n_grams:
- - 2
  - 0.208
"""


@pytest.fixture(scope="module")
def clean() -> list[str]:
    return [prose(seed) for seed in range(200)]


def test_clean_text_keeps_its_own_bounds(clean: list[str]) -> None:
    derived = derive(clean[:150], "en", name="mine")
    assert derived.origin == "derived from 150 documents of mine, tail 0.01"
    assert set(derived.bounds) == set(FILTERS)
    kept = [text for text in clean[150:] if derived.judge(text) is None]
    assert len(kept) >= 48
    low, high = derived.bounds["mean_word_length"].low, derived.bounds["mean_word_length"].high
    assert low is not None
    assert high is not None
    assert 2 < low < high < 8
    # Nothing repeats in the reference; half of the default is still allowed.
    assert derived.bounds["duplicate_lines"].high == 0.25
    # Sides that clean text may not set are as they were.
    assert derived.bounds["lorem_ipsum"] == FILTERS["lorem_ipsum"].bounds
    assert derived.bounds["few_stop_words"] == Bounds(low=2)


def test_stop_words_are_the_languages_own(clean: list[str]) -> None:
    derived = derive(clean[:100], "en")
    assert {"the", "of", "and"} <= derived.stop_words
    assert len(derived.stop_words) <= 50
    no_stop_words = " ".join(word for word in prose(500, 900).split() if word.strip(".") not in derived.stop_words)
    found = derived.judge(no_stop_words.replace(". ", ".\n"))
    assert found is not None
    assert found[0] in ("stop_words", "mean_word_length")
    han = derive([prose(seed, code="yue") for seed in range(100)], "yue")
    assert all(len(word) == 1 for word in han.stop_words)
    assert len(han.stop_words) >= 8


def test_a_wider_tail_drops_more(clean: list[str]) -> None:
    both = [derive(clean, "en", tail=tail) for tail in (0.0, 0.2)]
    dropped = [sum(bounds.judge(text) is not None for text in clean) for bounds in both]
    assert dropped[0] == 0
    assert dropped[0] < dropped[1]


def test_wrong_references(clean: list[str]) -> None:
    with pytest.raises(CorpusError, match="little has 3 documents; bounds need at least 100"):
        derive(clean[:3], "en", name="little")
    with pytest.raises(CorpusError, match=r"tail = 0\.7"):
        derive(clean, "en", tail=0.7)
    with pytest.raises(CorpusError, match="not both"):
        thresholds("en", reference=[Input("a")], fineweb=Path("b"))
    assert thresholds("en") is None
    assert thresholds("en", wanted=True) == defaults("en")


def test_fineweb(tmp_path: Path) -> None:
    path = tmp_path / "hin_Deva.yml"
    path.write_text(CONFIG)
    read = read_fineweb(path, "hi")
    assert read.bounds["duplicate_lines"] == Bounds(high=0.206)
    assert read.bounds["duplicate_5_grams"] == Bounds(high=0.135)
    assert read.bounds["duplicate_6_grams"] == FILTERS["duplicate_6_grams"].bounds
    assert read.bounds["top_2_grams"] == Bounds(high=0.208)
    assert read.bounds["line_punctuation"] == Bounds(low=0.091)
    assert read.bounds["newlines"] == Bounds(high=0.316)
    assert read.bounds["mean_word_length"] == Bounds(2, 21)
    assert read.bounds["without_letters"] == Bounds(high=0.163)
    assert read.stop_words == {"के", "है"}
    found = read.judge(prose(3, code="hi"))
    assert found is not None
    assert found[0] == "few_stop_words"
    assert thresholds("hi", fineweb=path, bounds={"newlines": False}).bounds.keys() == FILTERS.keys() - {"newlines"}  # type: ignore[union-attr]
    # Word lengths of a segmenter say nothing of a language without spaces.
    assert read_fineweb(path, "th").bounds["without_letters"] == FILTERS["without_letters"].bounds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ("- 1", "names none of"),
        ("other: 1", "names none of"),
        ("dup_line_frac: many", "is no FineWeb-2 configuration"),
        ("top_n_grams: [2, 0.1]", "is no FineWeb-2 configuration"),
    ],
)
def test_wrong_fineweb_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_fineweb(path, "hi")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_fineweb(tmp_path / "none.yml", "hi")
