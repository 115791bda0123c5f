"""Minimal pairs: does a model find the sentence that is right more likely than the same sentence with one fault?

Files are as BLiMP's (Warstadt et al. 2020, arXiv 1912.00582): rows with `sentence_good` and `sentence_bad`, and
optionally the phenomenon. Whole sentences are compared, as there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.errors import CorpusError
from langgraft.evaluation.likelihood import Scorer
from langgraft.evaluation.rows import field as text_field
from langgraft.evaluation.rows import rows_of
from langgraft.evaluation.stats import measure
from langgraft.evaluation.suite import Way, kept
from langgraft.progress import Log
from langgraft.store import fingerprint

PHENOMENON = ("phenomenon", "linguistics_term", "UID")


@dataclass(frozen=True)
class MinimalPairs:
    """Accuracy on pairs (right, wrong), as a measure of `langgraft.evaluation.suite`."""

    name: str
    pairs: Sequence[tuple[str, str]]
    phenomena: Sequence[str] = ()
    where: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", ("minimal_pairs", self.name))

    def raw(self, scorer: Scorer, keep: Path, identity: str, log: Log | None, what: str) -> Any:
        """Bits of both sentences of every pair."""
        settings = {"model": identity, "pairs": fingerprint([list(pair) for pair in self.pairs])}

        def ask() -> list[list[float]]:
            found = scorer.continuations([("", text) for pair in self.pairs for text in pair], log=log, what=what)
            bits = iter(value for value, _ in found)
            return [[next(bits), next(bits)] for _ in self.pairs]

        return kept(keep.with_name(f"{keep.name}.json"), settings, ask)

    def figures(self, raws: Mapping[str, Any], way: Way) -> dict[str, Any]:
        """Accuracy, in all and by phenomenon."""
        right = {name: np.array([float(good < bad) for good, bad in raw]) for name, raw in raws.items()}
        found = {**measure(right, resamples=way.resamples, seed=way.seed), "items": len(self.pairs), "chance": 0.5}
        kinds = sorted(set(self.phenomena))
        places = {kind: np.flatnonzero([one == kind for one in self.phenomena]) for kind in kinds}
        found["phenomena"] = {
            kind: {"items": len(at), "models": {name: float(values[at].mean()) for name, values in right.items()}}
            for kind, at in places.items()
            if len(kinds) > 1
        }
        return found


def read_minimal_pairs(path: str, most: int = 0) -> MinimalPairs:
    """The pairs of a file, at most so many (0: all of them).

    Raises:
        CorpusError: it cannot be read, or a row has no such fields.
    """
    pairs, phenomena = [], []
    for place, row in rows_of(path):
        pairs.append(
            (
                text_field(row, ["sentence_good", "good"], place, "right sentence"),
                text_field(row, ["sentence_bad", "bad", "wrong"], place, "wrong sentence"),
            )
        )
        phenomena.append(next((str(row[name]) for name in PHENOMENON if row.get(name)), ""))
        if len(pairs) == most:
            break
    if not pairs:
        raise CorpusError(f"there is no pair of sentences in {path}")
    return MinimalPairs(Path(path).name.split(".")[0], pairs, phenomena)
