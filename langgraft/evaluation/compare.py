"""Compare an adapted model with its base: gain, forgetting, cost - with intervals and gates."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.evaluation.models import Measured
from langgraft.evaluation.suite import BitsPerByte, Way, evaluate
from langgraft.progress import Log
from langgraft.text import Language
from langgraft.tokenizer.measure import fertility, pieces


@dataclass(frozen=True)
class Bounds:
    """What the result must keep; None sets no bound. All relative: 0.28 is 28%."""

    target_gain: float | None = None
    source_loss: float | None = None
    tokens_saved: float | None = None


def compare(
    base: Path,
    adapted: Path,
    texts: Sequence[str],
    of: Language,
    *,
    sources: Sequence[str] = (),
    window: int = 512,
    stride: int = 256,
    resamples: int = 2000,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    log: Log | None = None,
) -> dict[str, Any]:
    """Score `texts` with both model folders.

    Returns `{"bits_per_byte": {base, adapted, change, documents, bytes, ...}, "tokens": {base, adapted, saved},
    "example"}`, as docs/evaluation.md describes them; `change` is adapted/base - 1 with the interval of a bootstrap
    over documents, paired between the models. `sources` says of every text where it is from, for figures by source.

    Raises:
        CorpusError: `texts` is empty.
    """
    models = [Measured("base", str(base), "folder"), Measured("adapted", str(adapted), "folder")]
    wanted = BitsPerByte("side", texts, sources, window, stride)
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        found = evaluate(
            models, [wanted], Path(scratch), way=Way(resamples, seed), device=device, threads=threads, log=log
        )
    return {"bits_per_byte": found["bits_per_byte"]["side"], **tokens(base, adapted, texts, of)}


def tokens(base: Path, adapted: Path, texts: Sequence[str], of: Language) -> dict[str, Any]:
    """What both tokenizers make text cost: `{"tokens": {base, adapted, saved}, "example": {text, base, adapted}}`."""
    costs = {name: fertility(folder, texts, of).as_dict() for name, folder in (("base", base), ("adapted", adapted))}
    example = min(texts, key=lambda text: (abs(len(text) - 30), text))
    return {
        "tokens": {**costs, "saved": 1 - costs["adapted"]["tokens"] / costs["base"]["tokens"]},
        "example": {"text": example, "base": pieces(base, example), "adapted": pieces(adapted, example)},
    }


def gates(
    target: dict[str, Any], source: dict[str, Any] | None, bounds: Bounds, target_name: str, source_name: str
) -> list[dict[str, Any]]:
    """Judge two comparisons by `bounds`; one gate per bound that is set."""
    found = []
    if bounds.target_gain is not None:
        change = target["bits_per_byte"]["change"]
        found.append(
            {
                "name": f"{target_name} bits per byte at least {bounds.target_gain:.0%} below the base",
                "passed": change["mean"] <= -bounds.target_gain and change["high"] < 0,
                "value": f"{change['mean']:+.1%} ({change['low']:+.1%} to {change['high']:+.1%})",
                "bound": f"{-bounds.target_gain:+.1%}, interval below zero",
                "card": "better",
            }
        )
    if bounds.source_loss is not None and source is not None:
        change = source["bits_per_byte"]["change"]
        found.append(
            {
                "name": f"{source_name} bits per byte at most {bounds.source_loss:.1%} above the base",
                "passed": change["mean"] <= bounds.source_loss,
                "value": f"{change['mean']:+.2%} ({change['low']:+.2%} to {change['high']:+.2%})",
                "bound": f"{bounds.source_loss:+.1%}",
                "card": "kept",
            }
        )
    if bounds.tokens_saved is not None:
        saved = target["tokens"]["saved"]
        found.append(
            {
                "name": f"{target_name} text in at least {bounds.tokens_saved:.0%} fewer tokens",
                "passed": saved >= bounds.tokens_saved,
                "value": f"{saved:.1%} fewer",
                "bound": f"{bounds.tokens_saved:.0%}",
                "card": "cheaper",
            }
        )
    return found
