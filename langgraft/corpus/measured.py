"""A text and its parts, as the quality filters measure it."""

import functools
from collections.abc import Collection, Sequence

import numpy as np

from langgraft.text import language

# A word of Chinese or Japanese has about two characters, one of Thai or Khmer about five with its signs.
CHARACTERS_PER_WORD = {"Han": 2, "Hiragana": 2}
OTHER_CHARACTERS_PER_WORD = 5
MIN_WORDS = 50  # n-grams, words and letters of shorter texts say nothing (Gopher drops these texts altogether)
MIN_LINES = 5  # nor do repeated lines of fewer

_BASE = np.uint64(0xD6E8FEB86659FD93)


def _grouped(hashes: np.ndarray) -> np.ndarray:
    """An order in which equal hashes follow each other, each group in its own order; shape as `hashes`.

    Two passes over 16 bits each, which numpy sorts by counting, do where different hashes do not share those 32.
    """
    low, high = hashes.astype(np.uint16), (hashes >> np.uint64(16)).astype(np.uint16)
    order = np.argsort(low, kind="stable")
    order = order[np.argsort(high[order], kind="stable")]
    ordered = hashes[order]
    mixed = (ordered[1:] != ordered[:-1]) & ((ordered[1:] ^ ordered[:-1]) & np.uint64(0xFFFFFFFF) == 0)
    return np.argsort(hashes, kind="stable") if mixed.any() else order


class Text:
    """A text and its parts, each made when it is first asked for.

    `words` are what stands between spaces; None for a language without spaces. `units` is what n-grams are made
    of: words, or characters without white space, `size` of which count as a word.
    """

    def __init__(self, text: str, code: str, stop_words: Collection[str] = ()) -> None:
        self.text = text
        known = language(code)
        self.spaces = known.spaces
        self.size = 1 if self.spaces else CHARACTERS_PER_WORD.get(known.scripts[0], OTHER_CHARACTERS_PER_WORD)
        self.stop_words = stop_words
        self._repeats: dict[int, np.ndarray] = {}
        self._most: dict[int, int] = {}

    @functools.cached_property
    def lines(self) -> list[str]:
        """Lines that are not empty, without white space around them."""
        return [bare for line in self.text.split("\n") if (bare := line.strip())]

    @functools.cached_property
    def paragraphs(self) -> list[str]:
        """What stands between empty lines."""
        return [bare for part in self.text.split("\n\n") if (bare := part.strip())]

    @functools.cached_property
    def units(self) -> Sequence[str]:
        """Words, or the characters in one string."""
        parts = self.text.split()
        return parts if self.spaces else "".join(parts)

    @functools.cached_property
    def characters(self) -> int:
        """Characters without white space."""
        return sum(map(len, self.units)) if self.spaces else len(self.units)

    @functools.cached_property
    def long(self) -> bool:
        """Whether there is enough text to count n-grams and words."""
        return len(self.text) >= MIN_WORDS * self.size and len(self.units) >= MIN_WORDS * self.size

    @property
    def parted(self) -> bool:
        """Whether there may be enough lines or paragraphs to count."""
        return self.text.count("\n") >= MIN_LINES - 1

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """Characters before each unit, and in all: shape (units + 1,)."""
        if isinstance(self.units, str):
            return np.arange(len(self.units) + 1)
        return np.concatenate([[0], np.cumsum([len(word) for word in self.units])])

    @functools.cached_property
    def _hashes(self) -> list[np.ndarray]:
        """64-bit polynomial hashes of all n-grams; entry n - 1 for n words."""
        if isinstance(self.units, str):
            ids = np.frombuffer(self.units.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        else:
            known: dict[str, int] = {}
            ids = np.array([known.setdefault(word, len(known)) for word in self.units], dtype=np.uint64)
        ids = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        ids ^= ids >> np.uint64(29)
        one = ids
        for _ in range(self.size - 1):
            one = one[:-1] * _BASE + ids[len(ids) - len(one) + 1 :]
        return [one]

    def grams(self, n: int) -> np.ndarray:
        """A hash for every n-gram of words (or of n * size characters), overlapping; shape (count,)."""
        one, step = self._hashes[0], np.uint64(pow(int(_BASE), self.size, 1 << 64))
        while len(self._hashes) < n:
            last, done = self._hashes[-1], len(self._hashes) * self.size
            self._hashes.append(last[: max(len(one) - done, 0)] * step + one[done:])
        return self._hashes[n - 1]

    def repeats(self, n: int) -> np.ndarray:
        """Which n-grams of words occurred before, shape (count,)."""
        if n not in self._repeats:
            grams = self.grams(n)
            order = _grouped(grams)
            again = grams[order[1:]] == grams[order[:-1]]
            self._repeats[n] = np.zeros(len(grams), dtype=bool)
            self._repeats[n][order[1:]] = again
            edges = np.flatnonzero(np.concatenate([[True], ~again, [True]]))
            self._most[n] = int(np.diff(edges).max())
        return self._repeats[n]

    def most(self, n: int) -> int:
        """How often the most frequent n-gram occurs."""
        self.repeats(n)
        return self._most[n]

    def shorter(self, n: int) -> int:
        """The longest n-gram of at most `n` words that was looked at, or 0: a longer one recurs no more often."""
        return max((k for k in self._repeats if k <= n), default=0)

    def covered(self, repeats: np.ndarray, n: int) -> float:
        """Share of characters in the n-grams that begin where `repeats` says."""
        if not repeats.any():
            return 0.0
        width = n * self.size
        edges = np.zeros(len(self.units) + width + 1, dtype=np.int32)
        edges[: len(repeats)] += repeats
        edges[width : width + len(repeats)] -= repeats
        inside = np.cumsum(edges[: len(self.units)], dtype=np.int32) > 0
        of = int(inside.sum()) if isinstance(self.units, str) else int(np.diff(self._starts)[inside].sum())
        return of / self.characters

    def longest(self, n: int) -> int:
        """Characters in the longest n-gram."""
        return n * self.size if isinstance(self.units, str) else int(self.lengths(n).max())

    def lengths(self, n: int) -> np.ndarray:
        """Characters in every n-gram; shape (count,)."""
        width = n * self.size
        return self._starts[width:] - self._starts[:-width]
