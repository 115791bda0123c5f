"""How well models translate pairs that they have not seen, without generating: bits of one side after the other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraft.corpus.document import Pair
from langgraft.evaluation.stats import measure
from langgraft.progress import Log
from langgraft.text import Language, utf8_bytes


def pair_bits(
    models: Mapping[str, Path],
    pairs: Sequence[Pair],
    target: Language,
    source: Language,
    *,
    resamples: int = 2000,
    device: str = "auto",
    threads: int = 0,
    log: Log | None = None,
) -> dict[str, Any]:
    """Bits per byte of translations after what they translate, each way; the first model is what others change from.

    Every model reads `English: …`, a new line and `Cantonese:`, and then the translation, whose bits are counted.

    Args:
        models: hub folders by name.
        pairs: `text` is in the language `target`, `pair` in `source`.

    Returns:
        `to_target` and `to_source` as `stats.measure` has them (paired bootstrap over pairs), and `pairs`, how many.
    """
    from langgraft.evaluation.torch_scorer import TorchScorer

    ways: dict[str, list[tuple[str, str]]] = {"to_target": [], "to_source": []}
    for pair in pairs:
        text, other = (" ".join(side.split()) for side in (pair.text, pair.pair))
        ways["to_target"].append((f"{source.name}: {other}\n{target.name}:", f" {text}"))
        ways["to_source"].append((f"{target.name}: {text}\n{source.name}:", f" {other}"))
    bits: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for name, folder in models.items():
        scorer = TorchScorer(folder, device=device, threads=threads)
        for way, asked in ways.items():
            found = scorer.continuations(asked, log=log, what=f"translation, {name}")
            bits[way][name] = [bits_of for bits_of, _ in found]
    sizes = {way: [utf8_bytes(text) for _, text in asked] for way, asked in ways.items()}
    figures = {way: measure(bits[way], sizes[way], better="lower", resamples=resamples) for way in ways}
    return {"pairs": len(pairs), **figures}
