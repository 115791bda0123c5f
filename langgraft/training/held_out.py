"""Watching a training that has no recipe: which documents it does not learn from, and what is measured on them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langgraft.corpus.near import text_key
from langgraft.corpus.split import order
from langgraft.errors import CorpusError
from langgraft.methods import resolve
from langgraft.progress import Log
from langgraft.training.loop import Compute
from langgraft.training.parallel import in_first
from langgraft.training.retention import Measurement, Retention

# By name: evaluation builds on training.
MEASURES = {"retention": "langgraft.evaluation.retention:held_out_gauge"}
LARGEST_SHARE = 10  # one document in so many may be held out


@dataclass(frozen=True)
class Watching:
    """When to measure on held-out documents, what may be lost, and what follows; as `[pretrain.retention]` has it.

    None sets no bound. At most `documents` of each language are held out.
    """

    every: int
    source_bits_per_byte: float | None = 0.05
    in_context: float | None = 0.2
    right_language: float | None = None
    on_breach: Literal["stop", "rollback"] = "stop"
    raise_replay: float = 0.1
    rollbacks: int = 2
    keep_best: int = 1
    metric: str = "target_bits_per_byte"
    result: Literal["last", "best"] = "last"
    documents: int = 40
    items: int = 48
    max_new_tokens: int = 24


def hold_out(texts: Iterable[str], count: int, what: str) -> list[str]:
    """The `count` texts that come first by hash, a tenth of all at most; copies of a text count once.

    Which ones these are depends on nothing but the texts, whatever their order.

    Raises:
        CorpusError: there are too few to hold two out.
    """
    kept: dict[bytes, str] = {}
    found = 0
    for text in texts:
        found += 1
        key = _key(text)
        if len(kept) < count or key < max(kept):
            kept[key] = text
            if len(kept) > count:
                del kept[max(kept)]
    share = min(count, found // LARGEST_SHARE)
    if min(share, len(kept)) < 2:
        raise CorpusError(
            f"retention is measured on held-out documents, a tenth of all at most, and {what} has {found}; give at "
            f"least {2 * LARGEST_SHARE} different ones, or leave retention out"
        )
    return [kept[key] for key in sorted(kept)[:share]]


def without(texts: Iterable[str], held: Iterable[str]) -> Iterator[str]:
    """The texts that are not held out, nor copies of such."""
    keys = {_key(text) for text in held}
    return (text for text in texts if _key(text) not in keys)


def _key(text: str) -> bytes:
    return order(text_key(text), 0)


def watch(
    asked: Watching, model: Path, base: Path, sides: dict[str, tuple[str, list[str]]], *, first_new: int, window: int,
    compute: Compute, log: Log,
) -> Retention:  # fmt: skip
    """What the loop measures and does; the base is measured here, in the first process alone.

    Args:
        asked: the options.
        model: the folder that training starts from.
        base: what it is judged against.
        sides: code and held-out texts of `target` and `source`.
        first_new: ids from this one on are new tokens.
        window: longest context in tokens.
        compute: device, number format and threads.
        log: where it is said what the base does.
    """

    def gauge() -> Callable[[Any], Measurement]:
        bounds = (asked.source_bits_per_byte, asked.in_context, asked.right_language)
        make = resolve(MEASURES, "retention", what="measure")
        return make(  # type: ignore[no-any-return]
            model, base, sides, bounds, first_new=first_new, window=window, items=asked.items,
            max_new_tokens=asked.max_new_tokens, device=compute.device, dtype=compute.dtype, threads=compute.threads,
            log=log,
        )  # fmt: skip

    return Retention(
        in_first(gauge), asked.every, on_breach=asked.on_breach, raise_replay=asked.raise_replay,
        rollbacks=asked.rollbacks, keep_best=asked.keep_best, metric=asked.metric, result=asked.result,
    )  # fmt: skip
