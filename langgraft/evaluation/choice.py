"""Ability benchmarks for languages that have none, from the user's own held-out text: choose the right continuation.

*Translation choice*: a sentence, and translations of which one is its own. *Continuation choice*: the beginning of a
text, and continuations of which one is its own. Wrong options are right ones of other items, matched in length and in
the mark at their end, and as alike in words as there are, so that none of that gives the answer away.

An option's score is how much more likely the context makes it: log p(option | context) - log p(option | no context),
the pointwise mutual information of Holtzman et al. 2021 ("Surface form competition", arXiv 2104.08315). A model's mere
liking for an option, which depends on its length, its words and how a tokenizer cuts it, cancels. The two usual scores
are told beside it: per byte (lm-evaluation-harness's acc_norm) and plain sums (acc).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import regex

from langgraft.evaluation.likelihood import Scorer
from langgraft.evaluation.pairs import DENSE, Seen, clean_pairs, examples, one_line, rank
from langgraft.evaluation.rows import Parallel
from langgraft.evaluation.stats import measure
from langgraft.evaluation.suite import Way, kept
from langgraft.progress import Log
from langgraft.store import fingerprint
from langgraft.text import Language, utf8_bytes

LONGEST = 200  # characters of a sentence, of a context
CONTINUATION = 80  # characters of a continuation
LIKE = 1.3  # lengths of options differ by this factor at most
CANDIDATES = 64  # nearest in length, among which the most alike are taken
TOO_ALIKE = 0.6  # share of common letter sequences from which on two options may both be right
# What a model can copy from one language into the other: numbers, words written the same, signs (placeholders, too).
_ANCHORS = regex.compile(r"(?V1)\d+|[\p{L}\p{M}]{3,}|[[\p{S}\p{P}]--[.,:;!?'’…–—-]]")
# What a sentence's last mark alone tells of it, in any script: it asks, calls, announces, or ends.
_ENDINGS = ("?？؟\u037e፧", "!！", ":：", ".。．।۔።။។", "…⋯")
_BOUNDARY = regex.compile(r"[\s\p{P}]+")
_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True)
class Item:
    """A context and options of which `options[answer]` belongs to it; `neutral` is the context without what it says."""

    context: str
    neutral: str
    options: tuple[str, ...]
    answer: int
    id: str


@dataclass(frozen=True)
class Built:
    """Items, what they are made like, and how many candidates were left out for which reason."""

    items: tuple[Item, ...]
    options: int
    shots: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class _Candidate:
    """A right option with what stands before it."""

    before: str
    option: str
    id: str
    origin: str

    @cached_property
    def ending(self) -> int:
        """Which kind of mark the option ends with; -1 without one."""
        last = self.option.rstrip()[-1:]
        return next((number for number, marks in enumerate(_ENDINGS) if last and last in marks), -1)


def translation_items(
    pairs: Sequence[Parallel],
    target: Language,
    source: Language,
    *,
    to_target: bool = True,
    items: int = 200,
    options: int = 4,
    shots: int = 3,
    seen: Seen | None = None,
    seed: int = 0,
) -> Built:
    """Items that show a sentence and ask for its translation.

    Pairs are left out that are too short or long, that say what another one says, whose two sides share a number, a
    placeholder, a word of three letters, a bracket or a sign (`copied`: the answer could be copied), and that stand in
    the training text.

    Args:
        to_target: the sentence is in the source language and the options in the new one; False: the other way.
        shots: example pairs in every context, which tell the model what is asked for.
        seen: which texts of the new language were in the training text (see `training_check`).
        seed: which pairs are taken, and the order of options.
    """
    clean, out = clean_pairs(pairs, target, source, longest=LONGEST, copied=_copied, seen=seen, seed=seed)
    shown, rest = examples(clean, shots)
    first, second = (source, target) if to_target else (target, source)
    turn = [(p.source, p.target) if to_target else (p.target, p.source) for p in (*shown, *rest)]
    head = "".join(f"{first.name}: {a}\n{second.name}: {b}\n\n" for a, b in turn[: len(shown)])
    candidates = [
        _Candidate(f"{head}{first.name}: {a}\n{second.name}:", f" {b}", pair.id, pair.origin)
        for (a, b), pair in zip(turn[len(shown) :], rest, strict=True)
    ]
    neutral = f"{head}{first.name}:\n{second.name}:"
    found = _with_distractors(candidates, lambda _: neutral, items, options, seed, out)
    return Built(tuple(found), options, len(shown), dict(out))


def continuation_items(
    texts: Sequence[tuple[str, str]],
    of: Language,
    *,
    items: int = 200,
    options: int = 4,
    seen: Seen | None = None,
    seed: int = 0,
) -> Built:
    """Items that show the beginning of a text and ask how it goes on.

    Args:
        texts: (text, origin) of held-out documents; options come from documents of the same origin.
    """
    out: Counter[str] = Counter()
    least = 20 if DENSE & set(of.scripts) else 60
    candidates: list[_Candidate] = []
    for text, origin in sorted(set(texts), key=lambda one: rank(one[0], seed)):
        line = one_line(text)
        if len(line) < least:
            out["short"] += 1
            continue
        cut = _cut(line, min(LONGEST, len(line) // 2), len(line) - least // 4, of)
        end = len(line) if len(line) - cut <= CONTINUATION else _cut(line, cut + CONTINUATION, len(line), of)
        candidates.append(_Candidate(line[:cut], line[cut:end], rank(line, 0)[:12], origin))
    if seen is not None:
        marks = seen([one.before + one.option for one in candidates])
        out["contaminated"] += sum(marks)
        candidates = [one for one, mark in zip(candidates, marks, strict=True) if not mark]
    found = _with_distractors(candidates, lambda _: "", items, options, seed, out)
    return Built(tuple(found), options, 0, dict(out))


def _copied(target: str, source: str) -> bool:
    return bool(_anchors(target) & _anchors(source))


def _anchors(text: str) -> set[str]:
    found = _ANCHORS.findall(text.casefold())
    return {str(int(one)) if one.isdecimal() else one for one in found}  # the same number in any script


def _cut(text: str, at: int, limit: int, of: Language) -> int:
    """A place near `at`, before `limit`, where a word or a clause ends; without one, where a character does."""
    for match in _BOUNDARY.finditer(text, at, min(limit, at + (30 if of.spaces else 12))):
        return match.start() if of.spaces and match.group().isspace() else match.end()
    for match in _GRAPHEME.finditer(text):
        if match.end() >= at:
            return match.end()
    return len(text)


def _grams(text: str) -> frozenset[str]:
    """Letter sequences that tell what a text is about: four letters with spaces between words, else two."""
    n = 4 if " " in text.strip() else 2
    bare = text.casefold()
    return frozenset(bare[i : i + n] for i in range(len(bare) - n + 1))


def _with_distractors(
    candidates: Sequence[_Candidate],
    neutral: Callable[[_Candidate], str],
    items: int,
    options: int,
    seed: int,
    out: Counter[str],
) -> list[Item]:
    by_origin: dict[str, list[_Candidate]] = {}
    for one in candidates:
        by_origin.setdefault(one.origin, []).append(one)
    grams = {id(one): _grams(one.option) for one in candidates}
    found: list[Item] = []
    for one in candidates:
        if len(found) == items:
            break
        wrong = _distractors(one, by_origin[one.origin], grams, options - 1)
        if len(wrong) < options - 1:
            out["unmatched"] += 1
            continue
        texts = sorted([one.option, *wrong], key=lambda text: rank(one.id + text, seed))
        found.append(Item(one.before, neutral(one), tuple(texts), texts.index(one.option), one.id))
    return found


def _distractors(
    one: _Candidate, others: Sequence[_Candidate], grams: Mapping[int, frozenset[str]], wanted: int
) -> list[str]:
    """Options of other candidates, as long and as alike as there are without being nearly the same."""
    size, own = len(one.option), grams[id(one)]
    near = [o for o in others if 1 / LIKE <= len(o.option) / size <= LIKE and o.ending == one.ending]
    near = sorted(near, key=lambda o: (abs(len(o.option) - size), o.option))[:CANDIDATES]

    def alike(other: _Candidate) -> float:
        return len(own & grams[id(other)]) / max(1, len(own | grams[id(other)]))

    fit = {o.option: alike(o) for o in near if o.option != one.option and alike(o) < TOO_ALIKE}
    return sorted(fit, key=lambda text: (-fit[text], text))[:wanted]


@dataclass(frozen=True)
class Choice:
    """Accuracy on items, as a measure of `langgraft.evaluation.suite`."""

    where: tuple[str, ...]
    built: Built
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else the results shall say

    def raw(self, scorer: Scorer, keep: Path, identity: str, log: Log | None, what: str) -> Any:
        """For every option of every item: bits after its context, and after the neutral one."""
        items = self.built.items
        settings = {"model": identity, "items": fingerprint([asdict(item) for item in items])}

        def ask() -> list[list[list[float]]]:
            after = [(item.context, option) for item in items for option in item.options]
            alone = sorted({(item.neutral, option) for item in items for option in item.options})
            bits = dict(zip(alone, scorer.continuations(alone, log=log, what=f"{what}, options alone"), strict=True))
            found = iter(scorer.continuations(after, log=log, what=what))
            return [[[next(found)[0], bits[item.neutral, option][0]] for option in item.options] for item in items]

        return kept(keep.with_name(f"{keep.name}.json"), settings, ask)

    def figures(self, raws: Mapping[str, Any], way: Way) -> dict[str, Any]:
        """Accuracy by the pointwise mutual information, by the two other scores, and what the items are like."""
        by = {
            score: measure(
                {name: self._right(raw, score) for name, raw in raws.items()}, resamples=way.resamples, seed=way.seed
            )
            for score in ("pmi", "per_byte", "sum")
        }
        chance = 1 / self.built.options
        first = asdict(self.built.items[0])
        return {
            **by.pop("pmi"),
            "items": len(self.built.items),
            "options": self.built.options,
            "chance": chance,
            "shots": self.built.shots,
            "score": "pmi",
            "by": by,
            "left_out": self.built.left_out,
            "above_chance": {name: bool(self._low(raw, way) > chance) for name, raw in raws.items()},
            "example": {key: first[key] for key in ("context", "options", "answer")},
            **self.facts,
        }

    def _low(self, raw: Any, way: Way) -> float:
        found = measure({"one": self._right(raw, "pmi")}, resamples=way.resamples, seed=way.seed)
        return float(found["models"]["one"]["low"])

    def _right(self, raw: Any, score: str) -> np.ndarray:
        """1 for every item whose right option scores best, 0 for the others."""
        return np.array(
            [
                float(int(np.argmin(_costs(item, np.array(bits), score))) == item.answer)
                for item, bits in zip(self.built.items, raw, strict=True)
            ]
        )


def _costs(item: Item, bits: np.ndarray, score: str) -> np.ndarray:
    """What each option costs, `bits` being of shape (options, 2); the cheapest is the model's choice."""
    after, alone = bits[:, 0], bits[:, 1]
    if score == "pmi":
        return np.asarray(after - alone)
    return np.asarray(after / [utf8_bytes(option) for option in item.options] if score == "per_byte" else after)
