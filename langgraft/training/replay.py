"""Replay text the base writes itself: what it knows, sampled before it learns anything else.

Sampling at temperature 1 from the document separator draws from the base's own distribution, so training on
it pulls the model back to where it was. Source: self-synthesised replay, e.g. Huang et al. 2024 (arXiv
2403.01244). Documents in another language than the source language, and documents that repeat themselves, are
left out: they would teach what nobody wants kept.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.base import separator_id
from langgraft.corpus.filters import Thresholds, defaults
from langgraft.corpus.langid import Identifier
from langgraft.errors import ModelError
from langgraft.progress import Log
from langgraft.store import atomic_write, write_json
from langgraft.tokenizer.files import load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 32  # rows
SHORTEST = 8  # tokens; shorter documents are not worth a separator
PATIENCE = 8  # batches without a single usable document before giving up
FACTS = "replay.json"  # what was written and what was left out
VERSION = 2  # of what is kept of the samples; part of a cache's key
REPETITION = ("duplicate_", "top_")  # how the names of the filters begin that measure it


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
    language: str = "en",
    log: Log | None = None,
) -> Path:
    """Sample at least `tokens` base tokens of documents into `out/replay.jsonl`; returns that file.

    Kept are documents in `language` that do not repeat themselves (bounds as for a corpus, see corpus/filters.py);
    `out/replay.json` counts the others by reason. Each batch is seeded by its number and written when done, so an
    interrupted call goes on where it was and the result is the same.

    Raises:
        InputError: the language is unknown.
        ModelError: the base writes no usable documents.
    """
    from langgraft.training.device import choose_device, load_model, set_threads

    result = out / "replay.jsonl"
    if result.is_file():
        return result
    set_threads(threads)
    model = load_model(base, choose_device(device))
    judge = _Judge(load(base), language)
    separator, said = separator_id(base), log or Log()
    out.mkdir(parents=True, exist_ok=True)
    batches, total = 0, 0
    progress = said.progress("replay from the base", tokens, unit="tokens")
    while total < tokens:
        part = out / f"batch-{batches:05d}.json"
        if not part.is_file():
            number = seed * 1_000_003 + batches
            rows = sample(model, separator, seed=number, length=length, temperature=temperature, top_p=top_p)
            atomic_write(part, json.dumps(rows))
        new = sum(len(row) for row, _ in judge.kept(json.loads(part.read_text(encoding="utf-8"))))
        total += new
        batches += 1
        progress.advance(new)
        if total == 0 and batches == PATIENCE:
            raise ModelError(judge.nothing(base))
    _write(out, batches, _Judge(judge.tokenizer, language), said)
    return result


def _write(out: Path, batches: int, judge: "_Judge", log: Log) -> None:
    """Write the documents of all batches, and what was left out; the batches are no longer needed."""
    rows = (
        row
        for number in range(batches)
        for row in json.loads((out / f"batch-{number:05d}.json").read_text(encoding="utf-8"))
    )
    kept = list(judge.kept(rows))
    lines = [
        json.dumps({"text": text, "source": "self", "id": f"self-{i}"}, ensure_ascii=False)
        for i, (_, text) in enumerate(kept)
    ]
    dropped = dict(sorted(judge.dropped.items()))
    facts = {
        "documents": len(kept),
        "tokens": sum(len(row) for row, _ in kept),
        "sampled": judge.sampled,
        "dropped": dropped,
    }
    write_json(out / FACTS, facts)
    atomic_write(out / "replay.jsonl", "\n".join(lines) + "\n")
    for part in out.glob("batch-*.json"):
        part.unlink()
    left = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    log.say(f"replay from the base: {len(kept):,} of {judge.sampled:,} documents kept; left out: {left or 'none'}")


class _Judge:
    """Decides which samples are worth learning from, and counts the others by reason."""

    def __init__(self, tokenizer: "Tokenizer", code: str) -> None:
        self.tokenizer, self.identifier = tokenizer, Identifier(code)
        every = defaults(code)
        repetition = {name: bounds for name, bounds in every.bounds.items() if name.startswith(REPETITION)}
        self.repetition = Thresholds(code, repetition)
        self.sampled, self.dropped = 0, Counter[str]()

    def kept(self, rows: Iterable[list[int]]) -> Iterator[tuple[list[int], str]]:
        """The ids and the text of each sample that is kept."""
        for row in rows:
            self.sampled += 1
            # Half characters (a sample may stop inside one) decode to U+FFFD, which nobody should learn.
            text = self.tokenizer.decode(row, skip_special_tokens=True).replace("\ufffd", "").strip()
            if reason := self._reason(row, text):
                self.dropped[reason] += 1
            else:
                yield row, text

    def _reason(self, row: list[int], text: str) -> str:
        if len(row) < SHORTEST:
            return "too short"
        if not text:
            return "unreadable"
        if not self.identifier.check(text).keep:
            return "in another language"
        return "repetitive" if self.repetition.judge(text) else ""

    def nothing(self, base: Path) -> str:
        """Why there is no replay, for people."""
        reason = self.dropped.most_common(1)[0][0]
        name = self.identifier.language.name
        why = {
            "too short": "ends its documents at once",
            "unreadable": "writes no readable text",
            "in another language": f"writes no {name} of its own accord",
            "repetitive": "repeats itself in everything it writes",
        }[reason]
        return f"{base} {why}, so it cannot write replay; use replay text instead"


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
