"""Bootstrap intervals: right on simulated data, repeatable, and clear about bad input."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraft.errors import InputError
from langgraft.evaluation import stats
from langgraft.evaluation.stats import Interval, bootstrap_change, bootstrap_ratio

DOCUMENTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.integers(1, 10_000)), min_size=1)


def simulate(rng: np.random.Generator, documents: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits of two models and bytes; per document the models share a difficulty. True change: -0.25."""
    sizes = rng.integers(50, 2000, documents)
    difficulty = rng.gamma(20, 0.1, documents)
    base = sizes * difficulty * rng.normal(1, 0.1, documents).clip(0.1)
    adapted = 0.75 * sizes * difficulty * rng.normal(1, 0.1, documents).clip(0.1)
    return base, adapted, sizes


def test_the_mean_is_the_ratio_of_sums() -> None:
    interval = bootstrap_ratio([8, 16, 4], [2, 4, 8])
    assert interval.mean == pytest.approx(2.0)
    assert interval.low <= interval.mean <= interval.high


def test_the_change_is_relative_and_signed() -> None:
    interval = bootstrap_change([100, 200, 300], [70, 140, 210], [10, 20, 30])
    assert interval.mean == pytest.approx(-0.3)
    assert interval.low == pytest.approx(-0.3)
    assert interval.high == pytest.approx(-0.3)


def test_interval_is_frozen_and_becomes_a_dict() -> None:
    interval = Interval(1.0, 0.5, 1.5)
    assert interval.as_dict() == {"mean": 1.0, "low": 0.5, "high": 1.5}
    with pytest.raises(dataclasses.FrozenInstanceError):
        interval.mean = 2.0  # type: ignore[misc]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    ratio_hits = change_hits = 0
    for simulation in range(300):
        base, adapted, sizes = simulate(rng, 120)
        ratio = bootstrap_ratio(base, sizes, resamples=500, seed=simulation)
        change = bootstrap_change(base, adapted, sizes, resamples=500, seed=simulation)
        ratio_hits += ratio.low <= 2.0 <= ratio.high
        change_hits += change.low <= -0.25 <= change.high
    assert 0.90 <= ratio_hits / 300 <= 0.99
    assert 0.90 <= change_hits / 300 <= 0.99


def test_no_difference_gives_an_interval_that_holds_zero() -> None:
    rng = np.random.default_rng(3)
    base, _, sizes = simulate(rng, 400)
    same = bootstrap_change(base, base, sizes)
    assert same == Interval(0.0, 0.0, 0.0)
    noisy = bootstrap_change(base, base * rng.normal(1, 0.05, len(base)), sizes)
    assert noisy.low < 0 < noisy.high


def test_pairing_makes_the_interval_narrower() -> None:
    base, adapted, sizes = simulate(np.random.default_rng(5), 300)
    paired = bootstrap_change(base, adapted, sizes)
    alone = bootstrap_ratio(adapted, sizes)
    assert (paired.high - paired.low) / (1 + paired.mean) < (alone.high - alone.low) / alone.mean


def test_a_higher_level_is_a_wider_interval() -> None:
    base, _, sizes = simulate(np.random.default_rng(5), 100)
    wide = bootstrap_ratio(base, sizes, level=0.99)
    narrow = bootstrap_ratio(base, sizes, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


@settings(max_examples=50, deadline=None)
@given(DOCUMENTS, st.integers(0, 2**32 - 1))
def test_properties_of_any_documents(documents: list[tuple[float, float, int]], seed: int) -> None:
    adapted, base, sizes = (list(column) for column in zip(*documents, strict=True))
    interval = bootstrap_ratio(adapted, sizes, resamples=50, seed=seed)
    each = np.array(adapted) / np.array(sizes)
    slack = 1e-9 * (1 + each.max())
    assert interval.low <= interval.high
    for value in (interval.low, interval.mean, interval.high):
        assert each.min() - slack <= value <= each.max() + slack
    assert interval == bootstrap_ratio(adapted, sizes, resamples=50, seed=seed)
    change = bootstrap_change(base, adapted, sizes, resamples=50, seed=seed)
    assert -1 <= change.low <= change.high


def test_memory_is_bounded_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    original = np.random.Generator.integers

    class Watched:
        def __init__(self, seed: int) -> None:
            self.rng = np.random.Generator(np.random.PCG64(seed))

        def integers(self, low: int, high: int, size: tuple[int, int]) -> np.ndarray:
            drawn.append(size[0] * size[1])
            return original(self.rng, low, high, size=size)

    monkeypatch.setattr(stats.np.random, "default_rng", Watched)
    monkeypatch.setattr(stats, "CHUNK", 1000)
    bootstrap_ratio(np.ones(100), np.ones(100), resamples=95)
    assert max(drawn) <= 1000
    assert sum(drawn) == 9500


def test_documents_without_bits_do_not_break_the_interval() -> None:
    interval = bootstrap_change([0, 10], [0, 5], [1, 10])
    assert interval == Interval(-0.5, -0.5, -0.5)
    assert bootstrap_ratio([0, 8], [0, 4], resamples=1, seed=6).mean == 2.0


def test_one_resample_of_empty_documents_falls_back_to_the_mean() -> None:
    values = [0.0] * 50 + [5.0]
    seed = next(s for s in range(100) if 50 not in np.random.default_rng(s).integers(0, 51, size=(1, 51)))
    assert bootstrap_ratio(values, values, resamples=1, seed=seed) == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "numerators, denominators, message",
    [
        ([], [], "is empty"),
        ([1.0, 2.0], [1.0], "same documents"),
        ([[1.0]], [1.0], "one number per document"),
        ([1.0, float("nan")], [1.0, 1.0], r"numerators\[1\] is nan"),
        ([1.0], [float("inf")], r"denominators\[0\] is inf"),
        ([1.0, 1.0], [3.0, -1.0], "cannot be negative"),
        ([1.0, 1.0], [0.0, 0.0], "sum to zero"),
    ],
)
def test_bad_documents(numerators: list[float], denominators: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bootstrap_ratio(numerators, denominators)


def test_bad_documents_of_a_change() -> None:
    with pytest.raises(InputError, match="base_bits has 1 documents and adapted_bits has 2"):
        bootstrap_change([1.0], [1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="byte_counts has 2"):
        bootstrap_change([1.0], [1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="base_bits sum to zero"):
        bootstrap_change([0.0], [1.0], [1.0])
    with pytest.raises(InputError, match="byte_counts sum to zero"):
        bootstrap_change([1.0], [1.0], [0.0])


def test_bad_options() -> None:
    with pytest.raises(InputError, match="resamples must be at least 1"):
        bootstrap_ratio([1.0], [1.0], resamples=0)
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        bootstrap_ratio([1.0], [1.0], level=95)


def test_a_difference_is_worded_only_where_it_is_measurable() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(200) < 0.3).astype(float)
    better, same = (rng.random(200) < 0.6).astype(float), rng.permutation(base)
    found = stats.measure({"base": base, "better": better, "same": same}, resamples=500)
    assert found["changes"]["better"]["verdict"] == "gain"
    assert found["changes"]["same"]["verdict"] == "no measurable difference"
    assert found["changes"]["better"]["mean"] == pytest.approx(better.mean() - base.mean())
    lower = stats.measure({"base": base, "better": better}, better="lower", resamples=500)
    assert lower["changes"]["better"]["verdict"] == "loss"
    relative = stats.measure(
        {"base": [8.0, 4.0] * 20, "a": [4.0, 2.0] * 20}, [1, 1] * 20, better="lower", resamples=100
    )
    assert relative["changes"]["a"] == {"mean": -0.5, "low": -0.5, "high": -0.5, "verdict": "gain"}


def test_an_interval_over_seeds_is_wider_than_one_over_documents() -> None:
    """Three seeds whose effects differ: documents alone would be far too sure."""
    rng = np.random.default_rng(1)
    effects = np.array([-0.2, -0.1, 0.0])
    table = effects[:, None] + rng.normal(0, 0.1, (3, 400))
    interval, spread = stats.over_seeds(table, resamples=800)
    documents = stats.bootstrap_difference(np.zeros(400), table.mean(axis=0), resamples=800)
    assert interval.mean == pytest.approx(table.mean())
    assert interval.high - interval.low > 3 * (documents.high - documents.low)
    assert spread == pytest.approx(0.1, abs=0.02)
    alone, none = stats.over_seeds(table[:1], resamples=800)
    assert none == 0.0
    assert alone.high - alone.low < interval.high - interval.low


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 3)), np.array([[np.nan]])])
def test_no_table_of_seeds_is_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"must be a table \(seeds, items\) of finite numbers"):
        stats.over_seeds(values)
