"""Exact and near duplicates among documents on disk, keeping the first of each cluster.

Two texts are near duplicates if the sets of their shingles (three words; five characters in scripts without spaces)
have a Jaccard similarity of 0.8 or more. Candidates come from MinHash and locality-sensitive hashing (Broder 1997;
Indyk and Motwani 1998) and are then compared for real. A document goes if it repeats an earlier one that stays.

Signatures and bands lie in files and are read one band at a time: about 100 MB of memory and 700 MB of disk for a
million documents.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.corpus.near import (
    BANDS,
    ESTIMATE,
    MIN_CHARACTERS,
    PERMUTATIONS,
    THRESHOLD,
    Hashes,
    Signatures,
    bands,
    folded,
    jaccard,
    key_of,
    shingles,
    signatures,
)
from langgraft.corpus.shards import Shards

# In a bucket of many, each text is compared with the first and with the nearest so many before it.
NEIGHBOURS = 16
_CACHE = 256  # texts whose shingles are held
_PAIRS = 1 << 14  # pairs of signatures that are compared at once
_BATCH = 2048
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Duplicates:
    """`first[i]` is the document that document `i` repeats, or `i` itself; `near[i]` whether it does so nearly."""

    first: Numbers
    near: np.ndarray[Any, np.dtype[np.bool_]]

    def kept(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which documents are the first of their kind."""
        return np.asarray(self.first == np.arange(len(self.first)))

    def sizes(self) -> Numbers:
        """How many documents repeat each one."""
        return np.bincount(self.first[~self.kept()], minlength=len(self.first))

    def clusters(self) -> dict[str, int]:
        """Near-duplicate clusters: how many, how many documents they dropped, the size of the largest."""
        of = np.bincount(self.first[self.near], minlength=1)
        return {
            "clusters": int((of > 0).sum()),
            "dropped": int(of.sum()),
            "largest": int(of.max()) + 1 if of.any() else 0,
        }


def find_duplicates(shards: Shards, code: str, work: Path, *, near: bool = True) -> Duplicates:
    """Which documents of `shards` repeat an earlier one that stays; exact ones are not compared further.

    Args:
        code: the language, which decides what a shingle is.
        work: an existing folder for files of 700 bytes a document.
    """
    first = _exact(shards.keys)
    is_near = np.zeros(len(shards), dtype=bool)
    if near:
        _near(shards, code, work, first, is_near)
        # What repeats a text exactly that was then found to repeat another one, repeats that.
        first = first[first]
    return Duplicates(first, is_near)


def _exact(keys: np.ndarray[Any, Any]) -> Numbers:
    """For each key, the number of its first occurrence."""
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[back], dtype=np.int64)


def _near(shards: Shards, code: str, work: Path, first: Numbers, is_near: np.ndarray[Any, Any]) -> None:
    numbers = _spread(shards, work, first == np.arange(len(first)))
    found = _candidates(numbers, work)

    @lru_cache(_CACHE)
    def of(number: int) -> Hashes:
        return shingles(folded(shards.document(number).text), code)

    for later, earlier in found:
        if first[later] == later and first[earlier] == earlier and jaccard(of(later), of(earlier)) >= THRESHOLD:
            first[later] = earlier
            is_near[later] = True


def _spread(shards: Shards, work: Path, alone: np.ndarray[Any, Any]) -> Numbers:
    """Write the signatures of documents that are not exact duplicates, and each band, to files of their own.

    Returns:
        The numbers of those documents, in the files' order.
    """
    numbers = [np.zeros(0, dtype=np.int64)]
    with (work / "signatures").open("wb") as file:
        columns = [(work / f"band-{i:02d}").open("wb") for i in range(BANDS)]
        try:
            for which, found in shards.signatures():
                wanted = alone[which]
                numbers.append(which[wanted])
                file.write(np.ascontiguousarray(found[wanted]).tobytes())
                for column, values in zip(columns, bands(found[wanted]).T, strict=True):
                    column.write(np.ascontiguousarray(values).tobytes())
        finally:
            for column in columns:
                column.close()
    return np.concatenate(numbers)


def _candidates(numbers: Numbers, work: Path) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) that share a band and whose signatures are alike, by later, then earlier."""
    if not len(numbers):
        return
    found = [np.zeros(0, dtype=np.uint64)]
    with (work / "signatures").open("rb", buffering=0) as file:
        for i in range(BANDS):
            band = np.fromfile(work / f"band-{i:02d}", dtype=np.uint64)
            for later, earlier in _pairs(band):
                packed = np.unique((later.astype(np.uint64) << np.uint64(32)) | earlier.astype(np.uint64))
                packed = packed[~np.isin(packed, found[0])]
                for part in np.array_split(packed, len(packed) // _PAIRS + 1):
                    alike = _rows(file, part >> np.uint64(32)) == _rows(file, part & np.uint64(0xFFFFFFFF))
                    found.append(part[alike.mean(axis=1) >= ESTIMATE])
            found = [np.unique(np.concatenate(found))]
    for pair in found[0]:
        yield int(numbers[int(pair) >> 32]), int(numbers[int(pair) & 0xFFFFFFFF])


def _rows(file: FileIO, which: Hashes) -> Signatures:
    """Signatures number `which`, read one by one: a mapped file would fill the memory with what lies around them."""
    wanted, back = np.unique(which, return_inverse=True)
    rows = np.empty((len(wanted), PERMUTATIONS), dtype=np.uint32)
    for row, number in zip(rows, wanted.tolist(), strict=True):
        file.seek(number * rows.itemsize * PERMUTATIONS)
        file.readinto(row.data)
    return rows[back]


def _pairs(band: Hashes) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs of positions with the same value: each with the nearest and the first `NEIGHBOURS` before it."""
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(new)
    start = np.repeat(starts, np.diff(np.append(starts, len(band))))
    place = np.arange(len(band)) - start  # in its bucket
    shared = np.flatnonzero(place)
    for distance in range(1, NEIGHBOURS + 1):
        later = shared[place[shared] >= distance]
        if not len(later):
            return
        yield order[later], order[later - distance]
    far = shared[place[shared] > NEIGHBOURS]
    for member in range(NEIGHBOURS):
        later = far[place[far] - member > NEIGHBOURS]
        if len(later):
            yield order[later], order[start[later] + member]


class Index:
    """A held-out set that other texts are compared with. Holds 0.5 kB for each text; `texts` may read from disk."""

    def __init__(self, texts: Sequence[str], code: str, *, near: bool = True) -> None:
        self.code = code
        self._keys: set[bytes] = set()
        rows, long = [np.zeros((0, BANDS), dtype=np.uint64)], list[int]()
        for start in range(0, len(texts), _BATCH):
            folds = []
            for i in range(start, min(start + _BATCH, len(texts))):
                text = texts[i]
                fold = folded(text)
                self._keys.add(key_of(fold, text))
                if near and _is_long(text, fold):
                    long.append(i)
                    folds.append(fold)
            rows.append(bands(signatures(folds, code)))
        found = np.concatenate(rows)
        self._order = np.argsort(found, axis=0, kind="stable")
        self._bands = np.take_along_axis(found, self._order, axis=0)
        self._size = len(found)
        self._of = lru_cache(_CACHE)(lambda k: shingles(folded(texts[long[k]]), code))

    def repeats(self, texts: Sequence[str]) -> list[bool]:
        """Which of `texts` repeat, exactly or nearly, one of the index."""
        folds = [folded(text) for text in texts]
        found = [key_of(fold, text) in self._keys for fold, text in zip(folds, texts, strict=True)]
        long = [i for i, fold in enumerate(folds) if not found[i] and _is_long(texts[i], fold)]
        if not self._size or not long:
            return found
        candidates = self._candidates(bands(signatures([folds[i] for i in long], self.code)))
        for i, others in zip(long, candidates, strict=True):
            if others:
                own = shingles(folds[i], self.code)
                found[i] = any(jaccard(own, self._of(k)) >= THRESHOLD for k in others)
        return found

    def _candidates(self, rows: Hashes) -> list[set[int]]:
        alike: list[set[int]] = [set() for _ in rows]
        for i, values in enumerate(rows.T):
            column = self._bands[:, i]
            first, last = np.searchsorted(column, values), np.searchsorted(column, values, side="right")
            for k in np.flatnonzero(last > first):
                alike[k].update(self._order[first[k] : last[k], i].tolist())
        return alike


def _is_long(text: str, fold: str) -> bool:
    return len(text) >= MIN_CHARACTERS and bool(fold)


def check_leaks(train: Iterable[str], heldout: Sequence[str], code: str, *, near: bool = True) -> int:
    """Number of training texts that repeat, exactly or nearly, a held-out one. Should be 0."""
    index = Index(heldout, code, near=near)
    leaks, batch = 0, list[str]()
    for text in train:
        batch.append(text)
        if len(batch) == _BATCH:
            leaks += sum(index.repeats(batch))
            batch = []
    return leaks + sum(index.repeats(batch))
