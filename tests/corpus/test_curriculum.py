"""Shares that change on the way: rows follow the integral of the shares, and are a function of the position alone."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.curriculum import Curriculum
from langgraft.corpus.mix import source_at
from langgraft.errors import CorpusError

EASY_FIRST = [(0.0, {"easy": 1.0, "hard": 0.0}), (1.0, {"easy": 0.0, "hard": 1.0})]


def counts(course: Curriculum, first: int, last: int) -> Counter[str]:
    return Counter(course.source_at(i)[0] for i in range(first, last))


def test_every_tenth_of_a_run_has_its_shares() -> None:
    course = Curriculum(EASY_FIRST, 1000)
    for tenth in range(10):
        found = counts(course, 100 * tenth, 100 * (tenth + 1))
        assert abs(found["easy"] - (95 - 10 * tenth)) <= 1  # 95 in the first tenth, 5 in the last
    assert course.total("easy") == 500


def test_shares_stay_before_the_first_point_and_after_the_last() -> None:
    points = [(0.25, {"a": 3, "b": 1}), (0.5, {"a": 1, "b": 1}), (0.75, {"a": 0, "b": 7})]
    course = Curriculum(points, 800)
    assert counts(course, 0, 200) == {"a": 150, "b": 50}
    assert counts(course, 600, 800) == {"b": 200}
    assert abs(counts(course, 200, 400)["a"] - 125) <= 1
    assert course.source_at(900)[0] == "b"  # beyond the end


def test_one_point_is_a_mixture_that_stays() -> None:
    shares = {"a": 5.0, "b": 2.0, "c": 0.0, "d": 1.0}
    course = Curriculum([(0.0, shares)], 400)
    assert [course.source_at(i) for i in range(400)] == [source_at(i, shares) for i in range(400)]


SHARES = st.fixed_dictionaries({name: st.integers(0, 9) for name in "abcd"}).filter(lambda of: sum(of.values()) > 0)
PLACES = st.lists(st.integers(0, 20), min_size=1, max_size=5, unique=True).map(sorted)


@given(PLACES, st.data(), st.integers(1, 300))
def test_counts_follow_the_integral_and_no_row_is_left_out(places: list[int], data: st.DataObject, rows: int) -> None:
    points = [(place / 20, data.draw(SHARES)) for place in places]
    course = Curriculum(points, rows)
    seen = Counter[str]()
    for position in range(rows):
        name, own = course.source_at(position)
        assert own == seen[name]  # each source's rows come in order
        seen[name] += 1
        for other, density in course._own.items():
            assert abs(seen[other] - density.until(position + 1)) <= len(course.names)
    again = [course.source_at(i) for i in reversed(range(rows))]
    assert Counter(name for name, _ in again) == seen
    assert sum(course.total(name) for name in course.names) == pytest.approx(rows)


@given(PLACES, st.data(), st.floats(0, 1))
def test_where_is_the_inverse_of_until(places: list[int], data: st.DataObject, part: float) -> None:
    points = [(place / 20, data.draw(SHARES)) for place in places]
    for density in Curriculum(points, 1000)._own.values():
        total = part * density.until(1000)
        assert density.until(density.where(total)) == pytest.approx(total, abs=1e-6)


def test_a_long_run_keeps_its_shares_at_the_end() -> None:
    course = Curriculum([(0.0, {"a": 1, "b": 1, "c": 8}), (1.0, {"a": 8, "b": 1, "c": 1})], 10**8)
    start = 10**8 - 1000
    found = [course.source_at(i) for i in range(start, 10**8)]
    assert abs(Counter(name for name, _ in found)["a"] - 800) <= 3
    for name in "abc":
        own = [number for which, number in found if which == name]
        assert all(b == a + 1 for a, b in itertools.pairwise(own))


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([], "there is no point"),
        ([(0.5, {"a": 1}), (0.5, {"a": 1})], "positions rise from 0 to 1 at most, and these are 0.5, 0.5"),
        ([(0.0, {"a": 1}), (1.5, {"a": 1})], "positions rise from 0 to 1"),
        ([(0.0, {"a": -1, "b": 2})], "at = 0: shares must not be negative"),
        ([(0.0, {"a": 1}), (1.0, {"a": 0})], "at = 1: shares must not be negative, and one must be above 0"),
        ([(0.0, {})], "one must be above 0"),
        ([(0.0, {"a": 1}), (1.0, {"a": 1, "b": 1})], "at = 1: every point gives all sources a share, 0 if none; see b"),
    ],
)
def test_what_cannot_be_is_told(points: list[tuple[float, dict[str, float]]], sentence: str) -> None:
    with pytest.raises(CorpusError, match=sentence):
        Curriculum(points, 10)


def test_a_negative_position_is_told() -> None:
    with pytest.raises(CorpusError, match="a position is 0 or more"):
        Curriculum(EASY_FIRST, 10).source_at(-1)
