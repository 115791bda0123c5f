"""Mixtures: how many tokens of each source a training takes, and which source every row comes from.

Sizes, budgets and results are in tokens (or rows). All functions are pure: the data order is a function of the
position alone, so a run that resumes needs no state. `training.mixture` reads packed rows by it.
"""

import itertools
from collections.abc import Mapping

from langgraft.errors import CorpusError


def by_temperature(sizes: Mapping[str, float], temperature: float = 1.0) -> dict[str, float]:
    """Share of each source, proportional to size ** (1 / temperature); shares sum to 1.

    1 keeps the natural shares; larger temperatures approach equal shares (Conneau and Lample 2019,
    arXiv 1901.07291, with alpha = 1 / temperature).

    Raises:
        CorpusError: no source, a size that is not positive, or a temperature that is not.
    """
    _check(sizes)
    if not temperature > 0:
        raise CorpusError(f"temperature = {temperature}: it must be above 0; 1 keeps the natural shares")
    largest = max(sizes.values())
    weights = {name: (size / largest) ** (1 / temperature) for name, size in sizes.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def tokens(
    sizes: Mapping[str, float], shares: Mapping[str, float], budget: float, max_epochs: float = 4.0
) -> dict[str, float]:
    """Tokens of each source for wanted `shares` (any scale), none repeated more than `max_epochs` times.

    What a capped source cannot give goes to the others in the proportion of their shares. The sum is the budget,
    or less if the sources that have a share do not have it. With equal shares this is UniMax (Chung et al. 2023,
    arXiv 2304.09151, algorithm 1).

    Raises:
        CorpusError: no source, sources and shares that differ, sizes, budget or cap that are not positive, or
            shares that are negative or all zero.
    """
    _check(sizes)
    if set(sizes) != set(shares):
        odd = sorted(set(sizes) ^ set(shares))
        raise CorpusError(f"mixture: sizes and shares name different sources ({', '.join(odd)})")
    if min(shares.values()) < 0 or not sum(shares.values()) > 0:
        raise CorpusError("mixture: shares must not be negative, and one must be above 0")
    if not budget > 0 or not max_epochs > 0:
        raise CorpusError(f"mixture: budget ({budget}) and max_epochs ({max_epochs}) must be above 0")
    # Those that reach their cap first, relative to their share, are settled first.
    wanted = sorted((name for name in sizes if shares[name] > 0), key=lambda name: (sizes[name] / shares[name], name))
    found = dict.fromkeys(sizes, 0.0)
    left = float(budget)
    # Sums from the end, not differences: those would leave rounding errors larger than a small share.
    rest = list(itertools.accumulate(shares[name] for name in reversed(wanted)))[::-1]
    for name, weight in zip(wanted, rest, strict=True):
        found[name] = min(left * (shares[name] / weight), max_epochs * sizes[name])
        left = max(left - found[name], 0.0)
    return found


def source_at(position: int, shares: Mapping[str, float]) -> tuple[str, int]:
    """The source of the row at `position`, and the row's number within that source; pure, without state.

    Every source is spread evenly: after any number of rows, each has its share of them to within as many rows as
    there are sources. Counting up, each source's rows come in order and none is left out.

    Raises:
        CorpusError: a negative position, or shares that are negative or all zero.
    """
    names = [name for name, share in shares.items() if share > 0]
    if position < 0 or not names or min(shares.values()) < 0:
        raise CorpusError("mixture: a position is 0 or more, shares are not negative, and one is above 0")
    total = sum(shares[name] for name in names)
    for name in names[:-1]:
        # This source against all that follow.
        ratio = min(shares[name] / total, 1.0)
        before, after = int(position * ratio + 1e-9), int((position + 1) * ratio + 1e-9)
        if after > before:
            return name, before
        position -= before
        total -= shares[name]
    return names[-1], position


def _check(sizes: Mapping[str, float]) -> None:
    if not sizes:
        raise CorpusError("mixture: there is no source")
    for name, size in sizes.items():
        if not size > 0:
            raise CorpusError(f"mixture: source {name!r} has {size} tokens; leave it out")
