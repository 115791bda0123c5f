"""Bootstrap intervals over documents, paired between two models.

Documents, not tokens, are what was sampled: tokens of one document depend on one another, so intervals over
tokens are far too narrow. Percentile bootstrap after Efron and Tibshirani, "An Introduction to the Bootstrap"
(1993), chapters 13 and 16.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from langgraft.errors import InputError

Numbers = Sequence[float] | NDArray[np.floating] | NDArray[np.integer]

Better = Literal["higher", "lower"]
Verdict = Literal["gain", "loss", "no measurable difference"]

CHUNK = 1_000_000
"""Most document draws held in memory at once (or one resample, where that is larger)."""


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds of its confidence interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """`{"mean": ..., "low": ..., "high": ...}`, as reports hold it."""
        return asdict(self)


def bootstrap_ratio(
    numerators: Numbers,
    denominators: Numbers,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Estimate sum(numerators) / sum(denominators), such as bits per byte, and how far chance could move it.

    Args:
        numerators: one value per document, shape (documents,); bits, for instance.
        denominators: one value of at least zero per document, shape (documents,); bytes, for instance.
        resamples: how many times the documents are drawn anew, with replacement.
        seed: the same seed gives the same interval.
        level: share of such intervals that hold the true value.

    Raises:
        InputError: no documents, lengths that differ, values that are not finite, denominators that are
            negative or sum to zero, or an impossible `resamples` or `level`.
    """
    top = _column(numerators, "numerators")
    bottom = _column(denominators, "denominators")
    _check_same_length(top, bottom, "numerators", "denominators")
    _check_total(bottom, "denominators")
    return _percentiles(top, bottom, offset=0.0, resamples=resamples, seed=seed, level=level)


def bootstrap_change(
    base_bits: Numbers,
    adapted_bits: Numbers,
    byte_counts: Numbers,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Estimate the relative change of bits per byte between two models read on the same documents.

    Both models are resampled with the same documents, so what makes a document hard for both cancels: the
    interval is much narrower than the difference of two separate ones. The bytes cancel as well; they are
    asked for so that a list of bits that belongs to other documents is found out.

    Args:
        base_bits: bits the base model needs for each document, shape (documents,).
        adapted_bits: bits the adapted model needs for the same documents, shape (documents,).
        byte_counts: UTF-8 bytes of each document, shape (documents,).
        resamples: how many times the documents are drawn anew, with replacement.
        seed: the same seed gives the same interval.
        level: share of such intervals that hold the true value.

    Returns:
        sum(adapted) / sum(base) - 1; -0.29 means 29% fewer bits per byte.

    Raises:
        InputError: as `bootstrap_ratio`.
    """
    base = _column(base_bits, "base_bits")
    adapted = _column(adapted_bits, "adapted_bits")
    sizes = _column(byte_counts, "byte_counts")
    _check_same_length(base, adapted, "base_bits", "adapted_bits")
    _check_same_length(base, sizes, "base_bits", "byte_counts")
    _check_total(base, "base_bits")
    _check_total(sizes, "byte_counts")
    return _percentiles(adapted, base, offset=-1.0, resamples=resamples, seed=seed, level=level)


def wilson(successes: int, trials: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share, `z` standard errors wide; (0, 1) for no trials.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if trials == 0:
        return 0.0, 1.0
    share, extra = successes / trials, z * z / trials
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / trials + extra / (4 * trials))
    return middle - half, middle + half


def bootstrap_difference(
    first: Numbers, second: Numbers, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Estimate mean(second) - mean(first) of two models' figures for the same items, resampled together.

    Args:
        first, second: one value per item, shape (items,); 1 for a right answer and 0 for a wrong one, for instance.

    Raises:
        InputError: as `bootstrap_ratio`.
    """
    before, after = _column(first, "first"), _column(second, "second")
    _check_same_length(before, after, "first", "second")
    return _percentiles(after - before, np.ones(len(before)), offset=0.0, resamples=resamples, seed=seed, level=level)


def verdict(change: Interval, better: Better) -> Verdict:
    """Word a change: a gain or a loss only where its whole interval lies on one side of zero."""
    if change.low <= 0 <= change.high:
        return "no measurable difference"
    return "gain" if (change.low > 0) == (better == "higher") else "loss"


def measure(
    values: Mapping[str, Numbers],
    weights: Numbers | None = None,
    *,
    better: Better = "higher",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """What several models reach on the same items, and how the later ones differ from the first.

    Args:
        values: by model, one value per item, shape (items,).
        weights: what the values are a ratio of, such as bytes for bits; then changes are relative. Without, figures
            are means and changes are differences.

    Returns:
        `{"models": {name: interval}, "changes": {name: {**interval, "verdict"}}, "better"}`.

    Raises:
        InputError: as `bootstrap_ratio`.
    """
    how: dict[str, Any] = {"resamples": resamples, "seed": seed}
    names = list(values)
    base = values[names[0]]
    below = np.ones(len(base)) if weights is None else weights
    changes = {}
    for name in names[1:]:
        if weights is None:
            change = bootstrap_difference(base, values[name], **how)
        else:
            change = bootstrap_change(base, values[name], weights, **how)
        changes[name] = {**change.as_dict(), "verdict": verdict(change, better)}
    models = {name: bootstrap_ratio(values[name], below, **how).as_dict() for name in names}
    return {"models": models, "changes": changes, "better": better}


def measure_sums(
    parts: Mapping[str, NDArray[np.float64]],
    score: Callable[[NDArray[np.float64]], float],
    *,
    better: Better = "higher",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """As `measure`, for figures that are made of sums over items, such as BLEU: the paired bootstrap of Koehn 2004.

    Items are drawn with replacement, the same ones for every model, and the score is made of the drawn items' sums.
    Source: Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004.

    Args:
        parts: by model, what each item adds to every sum, shape (items, sums).
        score: the figure, from sums of shape (sums,).

    Raises:
        InputError: there are no items, models have different ones, or an impossible `resamples`.
    """
    shapes = {table.shape for table in parts.values()}
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples}")
    if len(shapes) != 1 or not all(next(iter(shapes), ())):
        raise InputError(f"every model needs the same items, at least one: not tables of the shapes {sorted(shapes)}")
    items = next(iter(shapes))[0]
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in parts}
    for start in range(0, resamples, rows := max(1, CHUNK // items)):
        times = rng.multinomial(items, np.full(items, 1 / items), size=min(rows, resamples - start))
        for name, table in parts.items():
            drawn[name] += [score(sums) for sums in times @ table]
    whole = {name: score(table.sum(axis=0)) for name, table in parts.items()}
    edges = [(1 - level) / 2, (1 + level) / 2]

    def interval(mean: float, values: NDArray[np.float64]) -> Interval:
        return Interval(mean, *(float(edge) for edge in np.quantile(values, edges)))

    scores = {name: np.array(values) for name, values in drawn.items()}
    first, *later = parts
    changes = {}
    for name in later:
        change = interval(whole[name] - whole[first], scores[name] - scores[first])
        changes[name] = {**change.as_dict(), "verdict": verdict(change, better)}
    models = {name: interval(whole[name], values).as_dict() for name, values in scores.items()}
    return {"models": models, "changes": changes, "better": better}


def over_seeds(
    values: NDArray[np.floating], *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[Interval, float]:
    """Mean over several runs of one recipe with other seeds, with the interval over documents and seeds.

    Both are drawn anew, independently, since either could have been another: an interval over documents alone
    says nothing about the next run.

    Args:
        values: one figure per run and item, shape (seeds, items); a change per document between base and adapted
            model, for instance.

    Returns:
        The interval, and the standard deviation of the runs' own means (0 for one run).

    Source: Owen 2007, "The pigeonhole bootstrap" (arXiv 0712.1111).

    Raises:
        InputError: `values` is no table of finite numbers.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise InputError(f"values must be a table (seeds, items) of finite numbers, not of shape {table.shape}")
    rng = np.random.default_rng(seed)
    seeds, items = table.shape
    means = np.empty(resamples)
    for i in range(resamples):
        runs = np.bincount(rng.integers(0, seeds, seeds), minlength=seeds) / seeds
        documents = np.bincount(rng.integers(0, items, items), minlength=items) / items
        means[i] = runs @ table @ documents
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    spread = float(table.mean(axis=1).std(ddof=1)) if seeds > 1 else 0.0
    return Interval(float(table.mean()), float(low), float(high)), spread


def _percentiles(
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    *,
    offset: float,
    resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """Percentile bootstrap of sum(top) / sum(bottom) + offset."""
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples}")
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, such as 0.95, not {level}")
    ratios = np.concatenate(list(_resampled_ratios(top, bottom, resamples, seed)))
    # A draw of nothing but empty documents has no ratio.
    ratios = ratios[np.isfinite(ratios)] + offset
    mean = float(top.sum() / bottom.sum()) + offset
    if not len(ratios):
        return Interval(mean, mean, mean)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def _resampled_ratios(
    top: NDArray[np.float64], bottom: NDArray[np.float64], resamples: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Yield the ratios of `resamples` draws, in chunks of at most CHUNK drawn documents."""
    rng = np.random.default_rng(seed)
    documents = len(top)
    rows = max(1, CHUNK // documents)
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, documents, size=(min(rows, resamples - start), documents))
        sums = bottom[drawn].sum(axis=1)
        yield np.divide(top[drawn].sum(axis=1), sums, out=np.full(len(sums), np.nan), where=sums > 0)


def _column(values: Numbers, name: str) -> NDArray[np.float64]:
    """`values` as a vector of finite numbers."""
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise InputError(f"{name} must hold one number per document, not an array of shape {column.shape}")
    if not len(column):
        raise InputError(f"{name} is empty: there is no document to measure")
    bad = np.flatnonzero(~np.isfinite(column))
    if len(bad):
        raise InputError(f"{name}[{bad[0]}] is {column[bad[0]]}: leave that document out, or measure it again")
    return column


def _check_same_length(one: NDArray[np.float64], other: NDArray[np.float64], one_name: str, other_name: str) -> None:
    if len(one) != len(other):
        raise InputError(
            f"{one_name} has {len(one)} documents and {other_name} has {len(other)}: "
            "both must describe the same documents in the same order"
        )


def _check_total(column: NDArray[np.float64], name: str) -> None:
    negative = np.flatnonzero(column < 0)
    if len(negative):
        raise InputError(f"{name}[{negative[0]}] is {column[negative[0]]}: it cannot be negative")
    if not column.sum() > 0:
        raise InputError(f"{name} sum to zero: there is no text to measure")
