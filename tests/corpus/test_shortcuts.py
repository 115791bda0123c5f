"""What is looked at only where it must be comes out as if everything were looked at."""

import re
from collections import Counter

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.filters import FILTERS, Thresholds, defaults, lorem_ipsum
from langgraft.corpus.langid import Identifier
from langgraft.corpus.langid_rules import _ENDING, _ENDINGS, WORDS, relative_hits
from langgraft.corpus.measured import Text, _grouped
from langgraft.corpus.mixed import select
from langgraft.corpus.normalise_rules import _thai_marks, thai_order

WORD = st.sampled_from("a bb ccc 12 the of # ... - {} é นี่ ที่ है 漢字 lorem ipsum".split())  # noqa: SIM905
# Words drawn again and again, in lines and paragraphs, long enough for every measure.
TEXTS = st.lists(st.tuples(WORD, st.sampled_from(" \n"), st.integers(1, 30)), min_size=1, max_size=60).map(
    lambda parts: "".join(
        word * (1 + n % 3) + gap * (1 + n // 20) for word, gap, n in parts for _ in range(1 + n // 10)
    )
)


def plainly(thresholds: Thresholds, text: str) -> tuple[str, float] | None:
    """`judge` without any way round."""
    parts = Text(text, thresholds.code, thresholds.stop_words)
    for name, bounds in thresholds.bounds.items():
        value = FILTERS[name].measure(parts)
        if value is not None and not bounds.keeps(value):
            return name, value
    return None


@pytest.mark.parametrize("code", ["en", "th", "yue"])
@given(TEXTS)
def test_judging_is_the_same(code: str, text: str) -> None:
    bounds = defaults(code)
    assert bounds.judge(text) == plainly(bounds, text)
    for name in FILTERS:
        only = Thresholds(code, {name: bounds.bounds[name]})
        assert only.judge(text) == plainly(only, text)


@pytest.mark.parametrize("code", ["en", "th"])
@pytest.mark.parametrize("n", [2, 5])
@given(TEXTS)
def test_ngrams_are_counted(code: str, n: int, text: str) -> None:
    parts = Text(text, code)
    if not parts.long:
        return
    width, units = n * parts.size, list(parts.units)
    grams = [tuple(units[i : i + width]) for i in range(len(units) - width + 1)]
    again = [grams.index(gram) < i for i, gram in enumerate(grams)]
    assert parts.repeats(n).tolist() == again
    assert parts.most(n) == max(Counter(grams).values())
    inside = {k for i, repeated in enumerate(again) if repeated for k in range(i, i + width)}
    assert parts.covered(parts.repeats(n), n) == sum(len(units[k]) for k in inside) / parts.characters


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_hashes_that_share_32_bits_are_told_apart(pairs: list[tuple[int, int]]) -> None:
    hashes = np.array([(high << 40) + low for high, low in pairs], dtype=np.uint64)
    order = _grouped(hashes)
    groups: dict[int, list[int]] = {}
    for i in order.tolist():
        groups.setdefault(int(hashes[i]), []).append(i)
    assert [i for group in groups.values() for i in group] == order.tolist()
    assert all(group == sorted(group) for group in groups.values())


@given(st.lists(st.sampled_from(["lorem ipsum", "Lorem", " IPSUM", "\ufb02orem ipſum", "\ufb04orem", " ", "İpsum"])))
def test_lorem_ipsum_is_found_in_any_case(parts: list[str]) -> None:
    text = "".join(parts)
    assert lorem_ipsum(Text(text, "en")) == text.casefold().count("lorem ipsum")


@given(st.text("กเแาำํัิี็่้๊์ a", max_size=14))
def test_thai_in_order_is_left_alone(text: str) -> None:
    expected = text
    for pattern, by in _thai_marks(0):
        expected = re.sub(pattern, by, expected)
    assert thai_order(text) == expected


HINDI = sorted({word for row in WORDS["Devanagari"].values() for word in row.split()})


@given(st.lists(st.one_of(st.sampled_from(HINDI), st.sampled_from(["घरलाई", "त्यांच्या", "लाई", "ळ", "।", "12"]))))
def test_hits_of_close_languages(words: list[str]) -> None:
    text = " ".join(words)
    found = Counter(regex.findall(r"[\p{L}\p{M}]+", text))
    hits = Counter(
        {code: sum(n for w, n in found.items() if w in row.split()) for code, row in WORDS["Devanagari"].items()}
    )
    hits["mr"] += text.count("ळ")
    for code in _ENDINGS:
        hits[code] += len(_ENDING[code].findall(text))
    assert relative_hits(text, "Devanagari") == +hits


@pytest.mark.parametrize("code", ["th", "hi", "ja", "en", "yue"])
@given(st.text("กข่ำ 12.@/aB漢かक\u200b“\n", max_size=30))
def test_what_is_certain_is_what_is_found(code: str, text: str) -> None:
    quick, slow = IDENTIFIERS[code]
    assert quick.check(text) == slow.check(text)
    if text:
        assert select(quick, text) == select(slow, text)


IDENTIFIERS = {code: (Identifier(code), Identifier(code)) for code in ("th", "hi", "ja", "en", "yue")}
for _, _slow in IDENTIFIERS.values():
    _slow._script = ""


def test_a_script_of_one_language_is_certain() -> None:
    assert IDENTIFIERS["th"][0].certain("สวัสดี 123")
    assert not IDENTIFIERS["th"][0].certain("123")
    assert not IDENTIFIERS["th"][0].certain("สวัสดี abc")
    assert not IDENTIFIERS["hi"][0].certain("यह")
