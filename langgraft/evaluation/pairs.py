"""Parallel text that can be asked: short enough, said once, not seen in training; for every benchmark made of it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from langgraft.evaluation.contamination import seen_in
from langgraft.evaluation.rows import Parallel
from langgraft.text import Language

DENSE = frozenset(("Han", "Hiragana", "Katakana", "Hangul"))
CANDIDATES_OF_SHOT = 8  # pairs among which each example is the shortest

Seen = Callable[[Sequence[str]], list[bool]]


def training_check(training: Callable[[], Iterable[str]] | None, code: str) -> Seen:
    """A function that says of texts whether they stand in the training text; without one, of none."""
    if training is None:
        return lambda texts: [False] * len(texts)
    return lambda texts: seen_in(training(), texts, code)


def rank(text: str, seed: int) -> str:
    """A place in an order that depends on nothing but the text and the seed."""
    return hashlib.sha256(f"{seed}\t{text}".encode("utf-8", "surrogatepass")).hexdigest()


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def clean_pairs(
    pairs: Sequence[Parallel],
    target: Language,
    source: Language,
    *,
    longest: int,
    copied: Callable[[str, str], bool],
    seen: Seen | None = None,
    seed: int = 0,
) -> tuple[list[Parallel], Counter[str]]:
    """Pairs that can be asked for, in an order that depends on nothing but their text and the seed.

    Left out are pairs that are too short or longer than `longest` characters, that say what another one says, that
    are `copied` (target, source), and whose target stands in the training text (`seen`, see `training_check`).

    Returns:
        the pairs, and how many were left out for which reason.
    """
    out: Counter[str] = Counter()
    known: set[str] = set()
    clean: list[Parallel] = []
    for pair in sorted(pairs, key=lambda pair: rank(pair.target + "\t" + pair.source, seed)):
        sides = (one_line(pair.target), one_line(pair.source))
        reason = _unfit(sides[0], target, longest) or _unfit(sides[1], source, longest)
        reason = reason or ("repeated" if known & set(sides) else "copied" if copied(*sides) else "")
        if reason:
            out[reason] += 1
            continue
        known.update(sides)
        clean.append(Parallel(*sides, pair.id, pair.origin))
    if seen is not None:
        marks = seen([pair.target for pair in clean])
        out["contaminated"] += sum(marks)
        clean = [pair for pair, mark in zip(clean, marks, strict=True) if not mark]
    return clean, out


def examples(clean: Sequence[Parallel], shots: int) -> tuple[list[Parallel], list[Parallel]]:
    """The pairs to show in every context, short ones, and the others, which can be asked for."""
    shown = sorted(clean[: CANDIDATES_OF_SHOT * shots], key=lambda pair: len(pair.target))[:shots]
    return shown, [pair for pair in clean if pair not in shown]


def _unfit(text: str, of: Language, longest: int) -> str:
    if len(text) < (5 if DENSE & set(of.scripts) else 12):
        return "short"
    return "long" if len(text) > longest else ""
