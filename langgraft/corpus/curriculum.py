"""A mixture whose shares change on the way: which source every row comes from, as a function of its position alone.

Shares are given at some positions of a run (0 is its start, 1 its end) and are linear between them. Like
`mix.source_at`, which does this for shares that stay, it needs no state: how many rows of a source come before a
position is an integral of its share, which has a closed form, and so has the inverse.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from langgraft.errors import CorpusError

Points = Sequence[tuple[float, Mapping[str, float]]]
_ROUNDING = 1e-6  # rows; far above the rounding errors of an integral over 10^8 rows


class _Density:
    """A density that is linear between `knots` and stays after the last one, its integral, and the inverse of that."""

    def __init__(self, knots: Sequence[float], values: Sequence[float]) -> None:
        self.knots, self.values = knots, values
        widths = [b - a for a, b in itertools.pairwise(knots)]
        rises = [b - a for a, b in itertools.pairwise(values)]
        self.slopes = [rise / width for rise, width in zip(rises, widths, strict=True)] + [0.0]
        areas = (w * (a + b) / 2 for w, (a, b) in zip(widths, itertools.pairwise(values), strict=True))
        self.sums = list(itertools.accumulate(areas, initial=0.0))

    def until(self, position: float) -> float:
        """The integral from 0 to `position`."""
        k = bisect_right(self.knots, position) - 1
        inside = position - self.knots[k]
        return self.sums[k] + inside * (self.values[k] + self.slopes[k] * inside / 2)

    def where(self, total: float) -> float:
        """The last position up to which the integral is `total`."""
        k = bisect_right(self.sums, total) - 1
        value, slope, left = self.values[k], self.slopes[k], total - self.sums[k]
        # The root of slope / 2 * t^2 + value * t = left, written so that a slope of 0 is no division by 0.
        below = value + math.sqrt(max(value * value + 2 * slope * left, 0.0))
        found = self.knots[k] + (2 * left / below if below > 0 else 0.0)
        return min(found, self.knots[k + 1]) if k + 1 < len(self.knots) else found


class Curriculum:
    """Shares at positions from 0 to 1 of a run of `length` rows (or tokens)."""

    def __init__(self, points: Points, length: float) -> None:
        check_points(points)
        first, last = points[0], points[-1]
        whole = [*([(0.0, first[1])] if first[0] > 0 else []), *points, *([(1.0, last[1])] if last[0] < 1 else [])]
        self.length = float(length)
        knots = [at * self.length for at, _ in whole]
        totals = [sum(shares.values()) for _, shares in whole]
        columns = {
            name: [shares[name] / total for (_, shares), total in zip(whole, totals, strict=True)] for name in first[1]
        }
        self._own = {name: _Density(knots, column) for name, column in columns.items() if max(column) > 0}
        # What is left for each source and all that follow it.
        rest = [1.0] * len(whole)
        self._left: dict[str, _Density] = {}
        for name, own in self._own.items():
            self._left[name] = _Density(knots, rest)
            rest = [max(a - b, 0.0) for a, b in zip(rest, own.values, strict=True)]

    @property
    def names(self) -> list[str]:
        """The sources that have a share anywhere."""
        return list(self._own)

    def total(self, name: str) -> float:
        """How many of the `length` rows (or tokens) a source gives."""
        return self._own[name].until(self.length)

    def source_at(self, position: int) -> tuple[str, int]:
        """The source of the row at `position`, and the row's number within that source.

        After any number of rows, each source has the integral of its share to within as many rows as there are
        sources. Counting up, each source's rows come in order and none is left out. Positions after the end go on with
        the last shares.

        Raises:
            CorpusError: a negative position.
        """
        if position < 0:
            raise CorpusError("curriculum: a position is 0 or more")
        *before, last = self._own
        for name in before:
            own, left = self._own[name], self._left[name]
            done, then = (int(own.until(left.where(rank)) + _ROUNDING) for rank in (position, position + 1))
            if then > done:
                return name, done
            position -= done
        return last, position


def check_points(points: Points) -> None:
    """Say what is wrong with the points of a curriculum.

    Raises:
        CorpusError: there is none, positions do not rise within 0 and 1, or shares are negative, all zero, or name
            different sources.
    """
    if not points:
        raise CorpusError("curriculum: there is no point")
    places = [at for at, _ in points]
    if not (places[0] >= 0 and places[-1] <= 1 and all(a < b for a, b in itertools.pairwise(places))):
        shown = ", ".join(f"{at:g}" for at in places)
        raise CorpusError(f"curriculum: positions rise from 0 to 1 at most, and these are {shown}")
    for at, shares in points:
        if not shares or min(shares.values()) < 0 or not sum(shares.values()) > 0:
            raise CorpusError(f"curriculum, at = {at:g}: shares must not be negative, and one must be above 0")
        if set(shares) != set(points[0][1]):
            odd = ", ".join(sorted(set(shares) ^ set(points[0][1])))
            raise CorpusError(f"curriculum, at = {at:g}: every point gives all sources a share, 0 if none; see {odd}")
