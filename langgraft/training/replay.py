"""Replay text the base writes itself: what it knows, sampled before it learns anything else.

Sampling at temperature 1 from the document separator draws from the base's own distribution, so training on
it pulls the model back to where it was. Source: self-synthesised replay, e.g. Huang et al. 2024 (arXiv
2403.01244).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.base import separator_id
from langgraft.errors import ModelError
from langgraft.progress import Log
from langgraft.store import atomic_write
from langgraft.tokenizer.files import load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 32  # rows
SHORTEST = 8  # tokens; shorter documents are not worth a separator
PATIENCE = 8  # batches without a single usable document before giving up


def generate_replay(
    base: Path,
    out: Path,
    *,
    tokens: int,
    length: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    log: Log | None = None,
) -> Path:
    """Sample at least `tokens` base tokens of documents into `out/replay.jsonl`; returns that file.

    Each batch is seeded by its number and written when done, so an interrupted call goes on where it was and
    the result is the same.

    Raises:
        ModelError: the base writes no usable documents.
    """
    from langgraft.training.device import choose_device, load_model, set_threads

    result = out / "replay.jsonl"
    if result.is_file():
        return result
    set_threads(threads)
    model = load_model(base, choose_device(device))
    tokenizer, separator = load(base), separator_id(base)
    out.mkdir(parents=True, exist_ok=True)
    batches, total = 0, 0
    progress = (log or Log()).progress("replay from the base", tokens, unit="tokens")
    while total < tokens:
        part = out / f"batch-{batches:05d}.json"
        if not part.is_file():
            number = seed * 1_000_003 + batches
            rows = sample(model, separator, seed=number, length=length, temperature=temperature, top_p=top_p)
            atomic_write(part, json.dumps([row for row in rows if len(row) >= SHORTEST]))
        new = sum(len(row) for row in json.loads(part.read_text(encoding="utf-8")))
        total += new
        batches += 1
        progress.advance(new)
        if total == 0 and batches == PATIENCE:
            raise ModelError(f"{base} ends its documents at once, so it cannot write replay; use replay text instead")
    lines = [
        json.dumps({"text": text, "source": "self", "id": f"self-{i}"}, ensure_ascii=False)
        for i, text in enumerate(_texts(out, batches, tokenizer))
    ]
    if not lines:
        raise ModelError(f"{base} writes no readable text, so it cannot write replay; use replay text instead")
    atomic_write(result, "\n".join(lines) + "\n")
    for part in out.glob("batch-*.json"):
        part.unlink()
    return result


def sample(model: Any, separator: int, *, seed: int, length: int, temperature: float, top_p: float) -> list[list[int]]:
    """Sample `BATCH` documents of at most `length` tokens, without their separators."""
    import torch
    from transformers import GenerationConfig

    torch.manual_seed(seed)
    start = torch.full((BATCH, 1), separator, device=model.device)
    # Not the base's own generation_config.json: penalties in it would bend what the base knows.
    model.generation_config = GenerationConfig()
    with torch.inference_mode():
        ids = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            max_new_tokens=length,
            eos_token_id=separator,
            pad_token_id=separator,
        )
    return [_cut(row, separator) for row in ids[:, 1:].tolist()]


def _cut(row: list[int], separator: int) -> list[int]:
    return row[: row.index(separator)] if separator in row else row


def _texts(out: Path, batches: int, tokenizer: "Tokenizer") -> Iterator[str]:
    for number in range(batches):
        for row in json.loads((out / f"batch-{number:05d}.json").read_text(encoding="utf-8")):
            # Half characters (a sample may stop inside one) decode to U+FFFD, which nobody should learn.
            decoded = tokenizer.decode(row, skip_special_tokens=True)
            text = decoded.replace("\ufffd", "").strip()
            if text:
                yield text
