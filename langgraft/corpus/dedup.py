"""Exact and near duplicates over a stream, keeping the first of each cluster."""

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import regex

from langgraft.corpus.document import Document
from langgraft.text import language

THRESHOLD = 0.8  # Jaccard similarity of the sets of shingles
MIN_CHARACTERS = 20  # shorter texts are compared exactly only: one character changes too many shingles
PERMUTATIONS, BANDS = 128, 32  # a pair at the threshold is missed with probability 5e-8
CHARACTER_SHINGLE, WORD_SHINGLE = 5, 3
BATCH = 2048
_IGNORED = regex.compile(r"[\s\p{P}\p{Z}\p{C}]+")


def text_key(text: str) -> str:
    """Hex SHA-1 of `text` without case, spaces and punctuation: equal for texts that say the same.

    Text made of nothing else is compared as it is.
    """
    bare = _IGNORED.sub("", text.casefold()) or text
    return hashlib.sha1(bare.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


@functools.cache
def _by_words(code: str) -> bool:
    return language(code).spaces


def shingles(text: str, code: str) -> list[str]:
    """The distinct shingles of `text`, sorted: three words, or five characters in scripts without spaces."""
    folded = text.casefold()
    if _by_words(code):
        units: Sequence[str] = _IGNORED.sub(" ", folded).split()
        size, joint = WORD_SHINGLE, " "
    else:
        units, size, joint = _IGNORED.sub("", folded), CHARACTER_SHINGLE, ""
    return sorted({joint.join(units[i : i + size]) for i in range(max(1, len(units) - size + 1))})


class Outcome(NamedTuple):
    """A document, its key, and the id of the earlier one that it repeats ("" for the first of its kind)."""

    document: Document
    key: str
    duplicate_of: str
    near: bool


class Deduplicator:
    """Finds duplicates of everything seen before. Holds 20 bytes a text, and about 1 kB for a long one.

    `exact` and `near` count the duplicates of each first document, by its id.
    """

    def __init__(self, code: str, *, near: bool = True, seed: int = 0) -> None:
        self.code = code
        self.exact: Counter[str] = Counter()
        self.near: Counter[str] = Counter()
        self._seen: dict[bytes, str] = {}
        self._index: Any = None
        if near:
            import rensa

            self._index = rensa.RMinHashDeduplicator(THRESHOLD, PERMUTATIONS, True, BANDS, seed)

    def run(self, documents: Iterable[Document]) -> Iterator[Outcome]:
        """Yield an outcome for each document, in the order given."""
        for batch in _batches(documents):
            yield from self._batch(batch)

    def repeats(self, batch: Sequence[Document]) -> int:
        """How many of `batch` repeat something seen; none is remembered."""
        exact = [bytes.fromhex(text_key(document.text)) in self._seen for document in batch]
        if self._index is None:
            return sum(exact)
        long = [d for d, e in zip(batch, exact, strict=True) if not e and len(d.text) >= MIN_CHARACTERS]
        found = self._index.get_duplicate_sets([shingles(document.text, self.code) for document in long])
        return sum(exact) + sum(map(bool, found))

    def _batch(self, batch: list[Document]) -> Iterator[Outcome]:
        keys = [text_key(document.text) for document in batch]
        first: list[str] = []
        for document, key in zip(batch, keys, strict=True):
            known = self._seen.setdefault(bytes.fromhex(key), document.id)
            first.append("" if known == document.id else known)
        candidates = [i for i, d in enumerate(batch) if not first[i] and len(d.text) >= MIN_CHARACTERS]
        near = self._near(batch, candidates) if self._index is not None else {}
        for i, document in enumerate(batch):
            if first[i]:
                self.exact[first[i]] += 1
            elif i in near:
                self.near[near[i]] += 1
            yield Outcome(document, keys[i], first[i] or near.get(i, ""), i in near)

    def _near(self, batch: list[Document], candidates: list[int]) -> dict[int, str]:
        """Position in the batch -> id of the earlier document it nearly repeats."""
        entries = [(batch[i].id, shingles(batch[i].text, self.code)) for i in candidates]
        added = self._index.add_pairs(entries)
        repeats = [n for n, new in enumerate(added) if not new]
        sets = self._index.get_duplicate_sets([entries[n][1] for n in repeats])
        return {candidates[n]: min(found) for n, found in zip(repeats, sets, strict=True)}

    def clusters(self) -> dict[str, int]:
        """Near-duplicate clusters: how many, how many documents they dropped, the size of the largest."""
        sizes = [n + 1 for n in self.near.values()]
        return {"clusters": len(sizes), "dropped": self.near.total(), "largest": max(sizes, default=0)}


def check_leaks(
    train: Iterable[Document], heldout: Iterable[Document], code: str, *, near: bool = True, seed: int = 0
) -> int:
    """Number of training documents that repeat, exactly or nearly, a held-out one. Should be 0."""
    index = Deduplicator(code, near=near, seed=seed)
    for _ in index.run(heldout):
        pass
    return sum(index.repeats(batch) for batch in _batches(train))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    stream = iter(documents)
    while batch := list(itertools.islice(stream, BATCH)):
        yield batch
