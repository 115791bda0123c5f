"""Arithmetic of mixtures."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.mix import by_temperature, source_at, tokens
from langgraft.errors import CorpusError

NAMES = st.sampled_from("abcdefg")
SIZES = st.dictionaries(NAMES, st.floats(1, 1e12), min_size=1)
SHARES = st.dictionaries(NAMES, st.floats(0.01, 100), min_size=1)


def test_equal_shares_are_unimax() -> None:
    # 100 for three: the smallest has 2 x 10, the next its equal part of the 80 left.
    sizes = {"small": 10, "large": 1000, "other": 1000}
    assert tokens(sizes, dict.fromkeys(sizes, 1), 100, 2) == {"small": 20, "large": 40, "other": 40}
    assert tokens({"a": 5, "b": 10}, {"a": 1, "b": 1}, 1000, 1) == {"a": 5, "b": 10}


def test_temperature_by_hand() -> None:
    assert by_temperature({"a": 1, "b": 3}) == {"a": 0.25, "b": 0.75}
    assert by_temperature({"a": 1, "b": 9}, 2) == {"a": 0.25, "b": 0.75}


@given(SIZES, st.floats(1, 50))
def test_temperature_brings_shares_closer(sizes: dict[str, float], temperature: float) -> None:
    natural, flat = by_temperature(sizes), by_temperature(sizes, temperature)
    assert sum(flat.values()) == pytest.approx(1)
    assert max(flat.values()) <= max(natural.values()) + 1e-9
    assert sorted(sizes, key=lambda n: (sizes[n], n))[-1] in [n for n in flat if flat[n] >= max(flat.values()) - 1e-12]


@given(SIZES, st.floats(1, 1e12), st.floats(0.1, 20), st.data())
def test_a_mixture_spends_the_budget_within_its_limits(
    sizes: dict[str, float], budget: float, epochs: float, data: st.DataObject
) -> None:
    shares = {name: data.draw(st.floats(0, 10)) for name in sizes}
    shares[next(iter(sizes))] += 1
    found = tokens(sizes, shares, budget, epochs)
    have = sum(epochs * sizes[name] for name in sizes if shares[name] > 0)
    assert sum(found.values()) == pytest.approx(min(budget, have), rel=1e-6)
    free = {name for name in sizes if shares[name] > 1e-3 and found[name] < epochs * sizes[name] * (1 - 1e-9)}
    rates = [found[name] / shares[name] for name in free]
    for name in sizes:
        assert found[name] <= epochs * sizes[name] * (1 + 1e-9)
        assert shares[name] > 0 or found[name] == 0
    # Those that are not capped keep the wanted proportion.
    assert not rates or max(rates) == pytest.approx(min(rates), rel=1e-5)


@given(SHARES, st.integers(1, 400))
def test_the_order_is_even_complete_and_pure(shares: dict[str, float], rows: int) -> None:
    seen: Counter[str] = Counter()
    total = sum(shares.values())
    for position in range(rows):
        name, row = source_at(position, shares)
        assert row == seen[name]
        seen[name] += 1
    for name, share in shares.items():
        assert abs(seen[name] - rows * share / total) <= len(shares)
    assert source_at(rows - 1, shares) == source_at(rows - 1, dict(shares))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: by_temperature({}), "there is no source"),
        (lambda: by_temperature({"a": 0}), "source 'a' has 0 tokens"),
        (lambda: by_temperature({"a": 1}, 0), "temperature = 0"),
        (lambda: tokens({"a": 1}, {"b": 1}, 1), r"different sources \(a, b\)"),
        (lambda: tokens({"a": 1}, {"a": 0}, 1), "one must be above 0"),
        (lambda: tokens({"a": 1}, {"a": -1}, 1), "not be negative"),
        (lambda: tokens({"a": 1}, {"a": 1}, 0), "budget"),
        (lambda: tokens({"a": 1}, {"a": 1}, 1, 0), "max_epochs"),
        (lambda: source_at(-1, {"a": 1}), "a position is 0 or more"),
        (lambda: source_at(0, {"a": 0}), "one is above 0"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        call()
