"""Quality filters: measures of a text, each with bounds, and lines that many documents share.

A filter is a measure (a function of a `Text` that returns a number, or None where it does not apply) and the
bounds a clean text keeps. The measures are those of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), C4
(Raffel et al. 2020, arXiv 1910.10683) and FineWeb-2 (Penedo et al. 2025, arXiv 2506.20920). The bounds here are
safe defaults for prose in any language; `thresholds` derives them from clean text of the language.

Languages that write no spaces have no words here: where a measure counts words, so many characters stand for one
as `CHARACTERS_PER_WORD` says, and measures of single words do not apply.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import regex

from langgraft.corpus.document import Document
from langgraft.corpus.measured import MIN_LINES, MIN_WORDS, Text
from langgraft.errors import CorpusError
from langgraft.methods import suggest
from langgraft.text import Runs, language

MIN_BOILERPLATE = 12  # letters and digits; shorter lines (answers in dialogues, headings) are kept

_ENDS = tuple(".!?。！？…।॥؟۔։።፧၊။។៕ฯ\"'»”’」』）)")
_BULLETS = tuple("•‣◦▪●○·・*-–—►▶■□")
_LETTER = regex.compile(r"\p{L}")
_LETTERS = Runs(r"[\p{L}\p{M}]")
_DIGITS = Runs(r"\p{N}")
# What has the letters of "lorem ipsum" when it is case-folded.
_LOREM_IPSUM = re.compile("[Ll\ufb02\ufb04][Oo][Rr][Ee][Mm] [Ii][Pp][Ss\u017f][Uu][Mm]")
_KEY = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_EDGES = regex.compile(r"^[\p{P}\p{S}]+|[\p{P}\p{S}]+$")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values a clean text keeps, both inclusive; None sets no bound."""

    low: float | None = None
    high: float | None = None

    def keeps(self, value: float) -> bool:
        """Whether `value` is within."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


Measure = Callable[[Text], float | None]


class Filter(NamedTuple):
    """A measure and its default bounds. `derive` says which sides clean text may set: "low", "high" or both.

    `without_spaces` are the bounds for languages without spaces, where they differ. `below` tells cheaply that the
    measure is at most a number; it may say False where it is.
    """

    measure: Measure
    bounds: Bounds
    derive: tuple[str, ...] = ("high",)
    without_spaces: Bounds | None = None
    below: Callable[[Text, float], bool] | None = None

    def default(self, *, spaces: bool) -> Bounds:
        """The default bounds in a language with or without spaces."""
        return self.bounds if spaces or self.without_spaces is None else self.without_spaces


def duplicate_lines(text: Text) -> float | None:
    """Share of lines that repeat an earlier line."""
    return _repeats(text.lines)


def duplicate_line_characters(text: Text) -> float | None:
    """Share of the lines' characters that are in repeats of an earlier line."""
    return _repeats(text.lines, characters=True)


def duplicate_paragraphs(text: Text) -> float | None:
    """Share of paragraphs that repeat an earlier one."""
    return _repeats(text.paragraphs)


def duplicate_paragraph_characters(text: Text) -> float | None:
    """Share of the paragraphs' characters that are in repeats of an earlier one."""
    return _repeats(text.paragraphs, characters=True)


def _repeats(parts: list[str], *, characters: bool = False) -> float | None:
    if len(parts) < MIN_LINES:
        return None
    if characters:
        return 1 - sum(map(len, set(parts))) / sum(map(len, parts))
    return 1 - len(set(parts)) / len(parts)


def top_ngram(text: Text, *, n: int) -> float | None:
    """Share of characters in the most frequent n-gram of words, if it occurs twice or more."""
    if not text.long:
        return None
    most = text.most(n)
    if most < 2:
        return 0.0
    longest = text.longest(n)
    if text.spaces:
        _, first, counts = np.unique(text.grams(n), return_index=True, return_counts=True)
        longest = int(text.lengths(n)[first[counts == most]].max())
    return min(1.0, longest * most / text.characters)


def top_ngram_below(text: Text, high: float, *, n: int) -> bool:
    """Whether `top_ngram` is certainly at most `high`."""
    if not text.long:
        return True
    longest, shorter = text.longest(n), text.shorter(n)
    return any(longest * text.most(k) / text.characters <= high for k in (shorter, n) if k)


def duplicate_ngrams(text: Text, *, n: int) -> float | None:
    """Share of characters inside n-grams of words that occurred before."""
    return text.covered(text.repeats(n), n) if text.long else None


def duplicate_ngrams_below(text: Text, high: float, *, n: int) -> bool:
    """Whether `duplicate_ngrams` is certainly at most `high`: n-grams begin again only where shorter ones do."""
    if not text.long:
        return True
    shorter = text.shorter(n)
    if not shorter:
        return False
    repeats = text.repeats(shorter)[: len(text.units) - n * text.size + 1]
    return int(repeats.sum()) * text.longest(n) / text.characters <= high or text.covered(repeats, n) <= high


def symbols(text: Text) -> float | None:
    """Number signs and ellipses per word."""
    if not text.long:
        return None
    found = text.text.count("#") + text.text.count("...") + text.text.count("…")
    return found * text.size / len(text.units)


def bullet_lines(text: Text) -> float | None:
    """Share of lines that start with a bullet."""
    return _lines_that(text, lambda line: line.startswith(_BULLETS))


def ellipsis_lines(text: Text) -> float | None:
    """Share of lines that end in an ellipsis: cut-off teasers."""
    return _lines_that(text, lambda line: line.endswith(("...", "…")))


def line_punctuation(text: Text) -> float | None:
    """Share of lines that end like a sentence."""
    return _lines_that(text, lambda line: line.endswith(_ENDS))


def _lines_that(text: Text, test: Callable[[str], bool]) -> float | None:
    return sum(map(test, text.lines)) / len(text.lines) if len(text.lines) >= MIN_LINES else None


def newlines(text: Text) -> float | None:
    """Line ends per word: lists and menus have many."""
    return text.text.count("\n") * text.size / len(text.units) if text.long else None


def mean_word_length(text: Text) -> float | None:
    """Mean characters of a word; not for languages without spaces."""
    return text.characters / len(text.units) if text.spaces and text.long else None


def without_letters(text: Text) -> float | None:
    """Share of words without a letter; in languages without spaces, of characters that are no letter or mark."""
    if not text.long:
        return None
    if text.spaces:
        return sum(_LETTER.search(word) is None for word in text.units) / len(text.units)
    return 1 - _LETTERS.count(text.text) / len(text.units)


def digits(text: Text) -> float | None:
    """Share of characters that are digits of any script."""
    if len(text.text) < MIN_WORDS or text.characters < MIN_WORDS:
        return None
    return _DIGITS.count(text.text) / text.characters


def digits_below(text: Text, high: float) -> bool:
    """Whether `digits` is certainly at most `high`: many texts have none."""
    return high >= 0 and _DIGITS.absent(text.text)


def stop_words(text: Text) -> float | None:
    """Share of words that are stop words; in languages without spaces, of characters that are in one."""
    if not text.long or not text.stop_words:
        return None
    if text.spaces:
        return sum(_EDGES.sub("", word).casefold() in text.stop_words for word in text.units) / len(text.units)
    pattern = _alternatives(tuple(sorted(text.stop_words, key=lambda word: (-len(word), word))))
    return sum(map(len, pattern.findall("".join(text.units)))) / text.characters


def few_stop_words(text: Text) -> float | None:
    """How many words (or characters) are stop words; Gopher wants two in a text of fifty words."""
    share = stop_words(text)
    return None if share is None else share * len(text.units)


def stop_units(text: str, *, spaces: bool) -> list[str]:
    """What can be a stop word: words with a letter, folded and without punctuation; characters without spaces."""
    units = [_EDGES.sub("", word).casefold() for word in text.split()] if spaces else list("".join(text.split()))
    return [unit for unit in units if _LETTER.search(unit)]


@functools.lru_cache(maxsize=16)
def _alternatives(words: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("|".join(map(regex.escape, words)))


def lorem_ipsum(text: Text) -> float | None:
    """How often "lorem ipsum" is there: text of a template."""
    return float(len(_LOREM_IPSUM.findall(text.text)))


def curly_brackets(text: Text) -> float | None:
    """Share of characters that are curly brackets: code and templates that were not rendered."""
    found = text.text.count("{") + text.text.count("}")
    return found / text.characters if found else 0.0


FILTERS: dict[str, Filter] = {
    "lorem_ipsum": Filter(lorem_ipsum, Bounds(high=0), ()),
    "curly_brackets": Filter(curly_brackets, Bounds(high=0.02)),
    "digits": Filter(digits, Bounds(high=0.3), below=digits_below),
    "without_letters": Filter(without_letters, Bounds(high=0.5)),
    "mean_word_length": Filter(mean_word_length, Bounds(2, 21), ("low", "high")),
    "symbols": Filter(symbols, Bounds(high=0.1), without_spaces=Bounds(high=0.3)),
    "bullet_lines": Filter(bullet_lines, Bounds(high=0.9)),
    "ellipsis_lines": Filter(ellipsis_lines, Bounds(high=0.3)),
    "line_punctuation": Filter(line_punctuation, Bounds(), ("low",)),
    "newlines": Filter(newlines, Bounds()),
    # Gopher has 0.3; half of the lines, because short answers recur in a dialogue.
    "duplicate_lines": Filter(duplicate_lines, Bounds(high=0.5)),
    "duplicate_line_characters": Filter(duplicate_line_characters, Bounds(high=0.2)),
    "duplicate_paragraphs": Filter(duplicate_paragraphs, Bounds(high=0.3)),
    "duplicate_paragraph_characters": Filter(duplicate_paragraph_characters, Bounds(high=0.2)),
    "stop_words": Filter(stop_words, Bounds(), ("low",)),
    "few_stop_words": Filter(few_stop_words, Bounds(low=2), ()),
    # Gopher's bounds for words. A few characters recur more often than as many words, in clean text too.
    **{
        f"top_{n}_grams": Filter(
            *(functools.partial(top_ngram, n=n), Bounds(high=share), ("high",), Bounds(high=0.4)),
            functools.partial(top_ngram_below, n=n),
        )
        for n, share in ((2, 0.2), (3, 0.18), (4, 0.16))
    },
    **{
        f"duplicate_{n}_grams": Filter(
            *(functools.partial(duplicate_ngrams, n=n), Bounds(high=share), ("high",), Bounds(high=0.5)),
            functools.partial(duplicate_ngrams_below, n=n),
        )
        for n, share in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))
    },
}


# Measures that say nothing of text that is not `Text.long`, and of text that is not `Text.parted`.
_PARTED = {"bullet_lines", "ellipsis_lines", "line_punctuation", "duplicate_lines", "duplicate_line_characters"} | {
    "duplicate_paragraphs",
    "duplicate_paragraph_characters",
}
_LONG = FILTERS.keys() - _PARTED - {"lorem_ipsum", "curly_brackets", "digits"}


@dataclass(frozen=True)
class Thresholds:
    """Bounds of filters for one language, its stop words, and where they come from (a sentence)."""

    code: str
    bounds: Mapping[str, Bounds]
    stop_words: frozenset[str] = frozenset()
    origin: str = "defaults"

    def judge(self, text: str) -> tuple[str, float] | None:
        """The first filter that `text` does not pass, and the value it measured; None for a clean text."""
        parts = Text(text, self.code, self.stop_words)
        for name, bounds, row in self._applied[parts.long, parts.parted]:
            if row.below and bounds.high is not None and bounds.low is None and row.below(parts, bounds.high):
                continue
            value = row.measure(parts)
            if value is not None and not bounds.keeps(value):
                return name, value
        return None

    @functools.cached_property
    def _applied(self) -> dict[tuple[bool, bool], list[tuple[str, Bounds, Filter]]]:
        """The filters that can drop a text that is long or not, and has many lines or not."""
        rows = [(name, bounds, FILTERS[name]) for name, bounds in self.bounds.items() if bounds != Bounds()]
        return {
            (long, parted): [row for row in rows if (long or row[0] not in _LONG) and (parted or row[0] not in _PARTED)]
            for long in (False, True)
            for parted in (False, True)
        }

    def as_dict(self) -> dict[str, object]:
        """As JSON values, for a summary."""
        bounds = {name: [bound.low, bound.high] for name, bound in self.bounds.items()}
        return {"origin": self.origin, "bounds": bounds, "stop_words": sorted(self.stop_words)}


def defaults(code: str, changes: Mapping[str, object] | None = None) -> Thresholds:
    """The default bounds for a language, with a user's own `changes` (see `with_changes`).

    Raises:
        CorpusError: as `with_changes`.
        InputError: the language is unknown.
    """
    known = language(code)
    bounds = {name: row.default(spaces=known.spaces) for name, row in FILTERS.items()}
    return with_changes(Thresholds(known.code, bounds), changes)


def with_changes(thresholds: Thresholds, changes: Mapping[str, object] | None) -> Thresholds:
    """Other bounds for some filters: name -> [low, high] with None or "" for no bound, or False to leave it out.

    Raises:
        CorpusError: a filter is unknown, or its bounds are not two numbers in order.
    """
    bounds = dict(thresholds.bounds)
    for name, value in (changes or {}).items():
        if name not in FILTERS:
            raise CorpusError(f"filter `{name}` is unknown; {suggest(name, FILTERS)}")
        if value is False:
            bounds.pop(name, None)
            continue
        bounds[name] = _bounds(name, value)
    return Thresholds(thresholds.code, bounds, thresholds.stop_words, thresholds.origin)


def _bounds(name: str, value: object) -> Bounds:
    pair = [None if side == "" else side for side in value] if isinstance(value, list | tuple) else []
    numbers = [side for side in pair if side is not None]
    if (
        len(pair) != 2
        or any(isinstance(side, bool) or not isinstance(side, int | float) for side in numbers)
        or (len(numbers) == 2 and numbers[0] > numbers[1])
    ):
        raise CorpusError(f'filter `{name}`: bounds are [low, high] with "" for none, or false; not {value!r}')
    return Bounds(*pair)


SharedLines = Mapping[str, Collection[int]]


def shared_lines(documents: Iterable[Document], least: int, *, window: int = 1 << 20) -> dict[str, frozenset[int]]:
    """Hashes of lines that at least `least` documents of one source share (menus, footers, notices), by source.

    Each line counts once per document. Memory is bounded by lossy counting (Manku and Motwani 2002): every
    `window` distinct lines, those seen once are forgotten, so that only a line rarer than once in `window` lines
    of its source can be missed. Lines are compared by letters and digits alone; those with fewer than
    `MIN_BOILERPLATE` of them are never boilerplate, and neither is a text of one line.
    """
    counts: dict[str, Counter[int]] = {}
    for document in documents:
        of = counts.setdefault(document.source, Counter())
        of.update({key for _, key in _keyed(document.text) if key is not None})
        if len(of) > window:
            counts[document.source] = Counter({key: n for key, n in of.items() if n > 1})
    return {source: frozenset(key for key, n in of.items() if n >= least) for source, of in sorted(counts.items())}


def without_lines(document: Document, shared: SharedLines) -> tuple[str, list[str]]:
    """The text without the lines that its source shares, and those lines."""
    known = shared.get(document.source)
    if not known:
        return document.text, []
    keyed = _keyed(document.text)
    removed = [line for line, key in keyed if key in known]
    if not removed:
        return document.text, []
    return "\n".join(line for line, key in keyed if key not in known), removed


def _keyed(text: str) -> list[tuple[str, int | None]]:
    """Each line with a hash of its letters and digits; None for those that are never boilerplate."""
    lines = text.split("\n")
    if len(lines) < 2:
        return [(text, None)]
    keyed: list[tuple[str, int | None]] = []
    for line in lines:
        bare = _KEY.sub("", line.casefold())
        keyed.append((line, _hash(bare) if len(bare) >= MIN_BOILERPLATE else None))
    return keyed


def _hash(text: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
