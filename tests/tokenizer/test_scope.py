import functools
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.tokenizer.scope import SURROGATES, Scope, completions

CODE_POINTS = [c for c in range(sys.maxunicode + 1) if c not in SURROGATES]


@functools.cache
def prefixes() -> dict[bytes, tuple[int, int]]:
    """First and last code point for every incomplete beginning of a UTF-8 form."""
    found: dict[bytes, tuple[int, int]] = {}
    for code_point in CODE_POINTS:
        form = chr(code_point).encode()
        for end in range(1, len(form)):
            found[form[:end]] = (found.get(form[:end], (code_point, 0))[0], code_point)
    return found


def test_completions_of_every_incomplete_form() -> None:
    assert {prefix: completions(prefix) for prefix in prefixes()} == prefixes()


@given(st.binary(max_size=4))
def test_impossible_prefixes_have_no_completion(prefix: bytes) -> None:
    low, high = completions(prefix)
    assert (low <= high) == (prefix in prefixes())


@pytest.mark.parametrize("scripts", [("Han",), ("Devanagari",), ("Thai",), ("Hangul",), ("Han", "Hiragana")])
def test_inside_and_outside_are_all_code_points(scripts: tuple[str, ...]) -> None:
    scope = Scope(scripts)
    inside, outside = list(scope.code_points()), list(scope.outside())
    assert sorted(inside + outside) == CODE_POINTS
    assert all(c in scope for c in inside)
    assert not any(c in scope for c in outside)


@given(st.sampled_from(["Han", "Devanagari", "Thai", "Arabic"]), st.data())
def test_a_prefix_is_held_when_every_completion_is(script: str, data: st.DataObject) -> None:
    scope = Scope((script,))
    start = next(iter(scope.code_points()))
    near = st.integers(start - 200, start + 30_000) | st.integers(0, sys.maxunicode)
    form = chr(data.draw(near.filter(lambda c: c not in SURROGATES))).encode()
    prefix = form[: data.draw(st.integers(0, len(form)))]
    low, high = completions(prefix)
    wanted = low <= high and all(c in scope for c in range(low, high + 1))
    assert scope.holds_prefix(prefix) == wanted


@given(st.text() | st.text("我係。、 a"))
def test_texts_are_judged_by_their_characters(text: str) -> None:
    scope = Scope(("Han",))
    inside = [ord(char) in scope for char in text]
    assert scope.holds(text) == (bool(inside) and all(inside))
    assert scope.touches(text) == any(inside)


def test_punctuation_that_only_these_writers_use() -> None:
    assert Scope(("Han",)).holds("。，？「」")
    assert Scope(("Devanagari",)).holds("।॥")
    assert Scope(("Arabic",)).holds("،؟ـ")
    assert Scope(("Thai",)).holds("฿")
    assert not Scope(("Thai",)).holds("฿1")
    assert not any(Scope((s,)).touches(" .,!?1aé\n") for s in ("Han", "Thai", "Arabic", "Devanagari"))


def test_holes_in_a_row_belong_to_its_script() -> None:
    scope = Scope(("Thai",))
    hole = 0x0E3B
    assert unicodedata.category(chr(hole)) == "Cn"
    assert hole in scope
    assert scope.holds_prefix(b"\xe0\xb8")  # the row U+0E00 to U+0E3F
    assert not scope.holds_prefix(b"\xe0")
    assert not scope.holds_prefix(b"")


def test_hangul_owns_the_last_rows_before_the_surrogates() -> None:
    assert Scope(("Hangul",)).holds_prefix(b"\xed")
    assert completions(b"\xed\xa0") == (1, 0)
