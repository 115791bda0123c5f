"""What two texts are compared by: keys, shingles as 64-bit hashes, MinHash signatures and their bands.

All of it runs in numpy and Rust. Hashes are 64 bits wide: two different shingles of a billion get the same one with
probability 0.03, and a candidate pair is judged by hundreds of shingles.
"""

import functools
import hashlib
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from langgraft.text import Runs, language

THRESHOLD = 0.8  # Jaccard similarity of the sets of shingles
MIN_CHARACTERS = 20  # shorter texts are compared exactly only: one character changes too many shingles
CHARACTER_SHINGLE, WORD_SHINGLE = 5, 3
# A pair at the threshold shares no band with probability (1 - 0.8^5)^25 = 5e-5; at 0.5 half of them do share one.
BANDS, ROWS = 25, 5
PERMUTATIONS = BANDS * ROWS
# Four standard deviations of the estimate below the threshold: what is less alike is not looked at closer.
ESTIMATE = THRESHOLD - 4 * (THRESHOLD * (1 - THRESHOLD) / PERMUTATIONS) ** 0.5
_IGNORED = Runs(r"[\s\p{P}\p{Z}\p{C}]")
_FIRST_SINGLE = 0x0E00  # Thai, Lao, Khmer, Burmese, Tibetan, kana, Han: no spaces, each character counts

_TOGETHER = 1 << 17  # characters whose shingles are made at once: few calls, and arrays that stay in the cache

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Signatures = np.ndarray[Any, np.dtype[np.uint32]]


def folded(text: str) -> str:
    """`text` without case, with one space for each run of spaces, punctuation and control characters."""
    return _IGNORED.sub(" ", text.casefold()).strip()


def text_key(text: str) -> str:
    """Hex SHA-1 of `text` without case, spaces and punctuation: equal for texts that say the same.

    Text made of nothing else is compared as it is.
    """
    return key_of(folded(text), text).hex()


def key_of(fold: str, text: str) -> bytes:
    """The 20 bytes of `text_key`, from a text and what `folded` makes of it."""
    bare = fold.replace(" ", "") or text
    return hashlib.sha1(bare.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


@functools.cache
def by_words(code: str) -> bool:
    """Whether the language puts spaces between words."""
    return language(code).spaces


def _mix(values: Hashes) -> Hashes:
    """Spread 64-bit values evenly (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@functools.cache
def _powers(n: int) -> Hashes:
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(n, 0x9E3779B97F4A7C15, dtype=np.uint64), dtype=np.uint64)


def characters(fold: str) -> Hashes:
    """One hash for each character of `folded` text, spaces left out."""
    return _code_points(fold.replace(" ", ""))


def _code_points(text: str) -> Hashes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)


def words(fold: str, *, single: bool = False) -> Hashes:
    """One hash for each word of `folded` text; with `single`, for each character of scripts without spaces too."""
    points = _code_points(fold)
    inside = points != 32
    alone = points >= _FIRST_SINGLE if single else np.zeros(len(points), dtype=bool)
    breaks = np.concatenate([[True], ~inside[:-1] | alone[:-1]]) | alone if len(points) else inside
    starts = np.flatnonzero(inside & breaks)
    if not len(starts):
        return np.zeros(0, dtype=np.uint64)
    # Position of each character in its word; a space weighs nothing.
    position = np.arange(len(points)) - np.repeat(starts, np.diff(np.append(starts, len(points))))
    length = 1 << int(position.max()).bit_length()
    terms = np.where(inside, _mix(points) * _powers(max(length, 64))[position], np.uint64(0))
    return np.add.reduceat(terms, starts)


def ngrams(units: Hashes, n: int) -> Hashes:
    """One hash for each run of `n` units, in order; one for all of them where there are fewer."""
    if not len(units):
        return units
    n = min(n, len(units))
    powers, total = _powers(64), np.zeros(len(units) - n + 1, dtype=np.uint64)
    mixed = _mix(units)
    for k in range(n):
        total += mixed[k : k + len(total)] * powers[k]
    return _mix(total)


def shingle_runs(folds: Sequence[str], code: str) -> tuple[Hashes, Any]:
    """The shingles of several `folded` texts one after the other, repeated ones too, and where each text's end.

    Shingles are three words, or five characters in scripts without spaces; a shorter text has one, an empty one none.
    """
    spaces = np.array([fold.count(" ") for fold in folds], dtype=np.int64)
    lengths = np.array(list(map(len, folds)), dtype=np.int64)
    if by_words(code):
        units, n, sizes = words(" ".join(filter(None, folds))), WORD_SHINGLE, spaces + (lengths > 0)
    else:
        units, n, sizes = characters(" ".join(folds)), CHARACTER_SHINGLE, lengths - spaces
    grams = ngrams(units, n) if len(units) >= n else units[:0]
    starts = np.cumsum(sizes) - sizes
    counts = np.where(sizes > 0, np.maximum(sizes - n + 1, 1), 0)
    ends = np.cumsum(counts)
    # Where each text's runs begin among all runs, those over the border of two texts included.
    at = np.arange(int(counts.sum())) + np.repeat(starts - (ends - counts), counts)
    found = grams[np.minimum(at, len(grams) - 1)] if len(grams) else np.zeros(len(at), dtype=np.uint64)
    for i in np.flatnonzero((sizes > 0) & (sizes < n)):
        found[ends[i] - 1] = ngrams(units[starts[i] : starts[i] + sizes[i]], n)[0]
    return found, ends


def shingles(fold: str, code: str) -> Hashes:
    """The distinct shingles of `folded` text, sorted: three words, or five characters in scripts without spaces."""
    return np.unique(shingle_runs([fold], code)[0])


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shingles in both, divided by shingles in either; `a` and `b` come from `shingles`."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both) if both else 0.0


def signatures(folds: Sequence[str], code: str) -> Signatures:
    """MinHash signatures (Broder 1997; rensa's permutations) of `folded` texts: [texts, PERMUTATIONS]."""
    rows = [np.zeros((0, PERMUTATIONS), dtype=np.uint32)]
    start, size = 0, 0
    for end, fold in enumerate(folds, 1):
        size += len(fold)
        if size >= _TOGETHER or end == len(folds):
            rows.append(_signatures(*shingle_runs(folds[start:end], code)))
            start, size = end, 0
    return np.concatenate(rows)


def _signatures(hashes: Hashes, ends: Any) -> Signatures:
    import rensa

    rows = np.concatenate([[0], ends]).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, rows, PERMUTATIONS, 0)
    packed = b"".join(array("I", row).tobytes() for row in matrix.to_rows())
    return np.frombuffer(packed, dtype=np.uint32).reshape(len(rows) - 1, PERMUTATIONS)


def bands(of: Signatures) -> Hashes:
    """One hash for each band of each signature: [texts, BANDS]. Texts that share one are candidates."""
    rows = _mix(of.astype(np.uint64)).reshape(len(of), BANDS, ROWS)
    return _mix((rows * _powers(64)[:ROWS]).sum(axis=2, dtype=np.uint64))
