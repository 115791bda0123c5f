"""Measure several models with several measures: every model is opened once, every score kept as soon as it is known.

A measure asks a model for numbers (`raw`) and makes figures of all models' numbers (`figures`). Both are apart so that
a killed evaluation goes on with what it has, to the same result.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from langgraft.errors import InputError
from langgraft.evaluation.bpb import Scores, score_documents
from langgraft.evaluation.likelihood import Scorer
from langgraft.evaluation.models import Measured, identity_of, open_scorer
from langgraft.evaluation.stats import measure
from langgraft.progress import Log
from langgraft.store import fingerprint, read_json, write_json


@dataclass(frozen=True)
class Way:
    """How figures are made of scores: bootstrap resamples and their seed."""

    resamples: int = 2000
    seed: int = 0


class Measure(Protocol):
    """Something to measure; `where` is its place in the results, such as `("choice", "translation", "to_target")`."""

    @property
    def where(self) -> tuple[str, ...]:
        """The place in the results."""
        ...

    def raw(self, scorer: Scorer, keep: Path, identity: str, log: Log | None, what: str) -> Any:
        """The model's numbers; `keep` is a path without a suffix for what is to be kept of them."""
        ...

    def figures(self, raws: Mapping[str, Any], way: Way) -> dict[str, Any]:
        """What stands in the results, from the numbers of every model; the first is what others are compared with."""
        ...


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte of documents, all together and by source."""

    side: str
    texts: Sequence[str]
    sources: Sequence[str] = ()
    window: int = 512
    stride: int = 256
    key: str = "bits_per_byte"
    where: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", (self.key, self.side) if self.side else (self.key,))

    def raw(self, scorer: Scorer, keep: Path, identity: str, log: Log | None, what: str) -> Scores:
        """Bits of every document; see `score_documents`."""
        return score_documents(
            scorer,
            self.texts,
            length=self.window,
            stride=self.stride,
            keep=keep.with_name(f"{keep.name}.jsonl"),
            identity=identity,
            log=log,
            what=what,
        )

    def figures(self, raws: Mapping[str, Scores], way: Way) -> dict[str, Any]:
        """A measure, with the short names `base`, `adapted` and `change` where two models are compared."""
        found = self._of(raws, np.arange(len(self.texts)), way)
        names = list(raws)
        if len(names) == 2:
            found |= {"base": found["models"][names[0]], "adapted": found["models"][names[1]]}
            found["change"] = found["changes"][names[1]]
        found |= {"window": self.window, "stride": self.stride}
        kinds = sorted(set(self.sources))
        if len(kinds) > 1:
            places = {kind: np.flatnonzero([source == kind for source in self.sources]) for kind in kinds}
            found["sources"] = {kind: self._of(raws, at, way) for kind, at in places.items()}
        return found

    def _of(self, raws: Mapping[str, Scores], at: np.ndarray, way: Way) -> dict[str, Any]:
        sizes = next(iter(raws.values())).bytes[at]
        bits = {name: scores.bits[at] for name, scores in raws.items()}
        found = measure(bits, sizes, better="lower", resamples=way.resamples, seed=way.seed)
        return {**found, "documents": len(at), "bytes": int(sizes.sum())}


def evaluate(
    models: Sequence[Measured],
    measures: Sequence[Measure],
    scores: Path,
    *,
    way: Way | None = None,
    device: str = "auto",
    threads: int = 0,
    log: Log | None = None,
) -> dict[str, Any]:
    """Measure every model; returns the results, nested by the measures' places.

    Args:
        models: the first is what the others are compared with.
        scores: a folder for what is known so far; the same call goes on after a kill, with the same result.

    Raises:
        InputError: no models or measures, or `scores` was begun with others.
        ModelError: a model cannot be read.
    """
    if not models or not measures:
        raise InputError("there is nothing to evaluate: give models, and texts or items to measure them on")
    raws: list[dict[str, Any]] = [{} for _ in measures]
    for one in models:
        identity = identity_of(one)
        with ExitStack() as stack:
            scorer = stack.enter_context(open_scorer(one, device=device, threads=threads))
            for number, wanted in enumerate(measures):
                keep = scores / "-".join((one.name, *wanted.where)).replace("/", "_")
                what = f"{', '.join(wanted.where).replace('_', ' ')}, {one.name}"
                raws[number][one.name] = wanted.raw(scorer, keep, identity, log, what)
    found: dict[str, Any] = {}
    for wanted, of_models in zip(measures, raws, strict=True):
        place = found
        for key in wanted.where[:-1]:
            place = place.setdefault(key, {})
        place[wanted.where[-1]] = wanted.figures(of_models, way or Way())
    return found


def kept(path: Path, settings: Mapping[str, Any], make: Any) -> Any:
    """What `make()` gives, from the file `path` if it was written there before with the same settings.

    Raises:
        InputError: it was written with other settings.
    """
    mark = fingerprint(dict(settings))
    if path.is_file():
        before = read_json(path)
        if before.get("settings") != mark:
            raise InputError(f"{path} was begun with other settings; delete it, or write to another folder")
        return before["found"]
    found = make()
    write_json(path, {"settings": mark, "found": found})
    return found
