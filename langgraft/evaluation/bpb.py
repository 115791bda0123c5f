"""Bits per byte: how well a model predicts text, comparable across tokenizers and languages.

Bits are summed over every token of a document, the first one included (it is predicted from the separator),
and divided by the document's UTF-8 bytes. Bytes are counted on the text itself, never on decoded tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.base import separator_id
from langgraft.errors import CorpusError, RecipeError
from langgraft.progress import Log
from langgraft.tokenizer.files import load


@dataclass(frozen=True)
class Scores:
    """One value per document; each array has shape (documents,)."""

    bits: np.ndarray
    bytes: np.ndarray
    tokens: np.ndarray
    right: np.ndarray = field(default_factory=lambda: np.zeros(0))  # tokens that were the model's first choice
    new: np.ndarray = field(default_factory=lambda: np.zeros(0))  # tokens from `new_from` on
    new_right: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte over all documents together."""
        return float(self.bits.sum() / self.bytes.sum())

    @property
    def accuracy(self) -> float:
        """Share of tokens that were the model's first choice."""
        return float(self.right.sum() / self.tokens.sum())


@dataclass(frozen=True)
class _Window:
    document: int
    ids: list[int]
    score_from: int  # positions before it are context only


def windows(document: int, ids: Sequence[int], separator: int, length: int, stride: int) -> list[_Window]:
    """Cut `separator + ids` into windows of at most `length` inputs; each token is scored exactly once.

    After the first, windows advance by `stride` and use the tokens before as context.
    """
    inside = [separator, *ids]
    found = [_Window(document, inside[: length + 1], 0)]
    scored = len(found[0].ids) - 1
    while scored < len(ids):
        end = min(scored + stride, len(ids))
        begin = end - length
        found.append(_Window(document, inside[begin : end + 1], scored - begin))
        scored = end
    return found


def score(
    folder: Path,
    texts: Sequence[str],
    *,
    length: int = 512,
    stride: int = 256,
    batch_tokens: int = 4096,
    device: str = "auto",
    threads: int = 0,
    model: Any = None,
    new_from: int | None = None,
    log: Log | None = None,
    what: str = "bits per byte",
) -> Scores:
    """Score `texts` with the model and tokenizer in `folder` (or with `model` already in memory).

    `length` and `stride` are in tokens; `batch_tokens` bounds the padded size of a batch. Ids from `new_from` on count
    as new.

    Raises:
        CorpusError: `texts` is empty or holds an empty text.
        RecipeError: the stride is longer than the window, so that tokens would be passed over.
    """
    import torch
    import torch.nn.functional as F

    from langgraft.training.device import choose_device, keep_freed_memory, load_model, set_threads

    if not texts or not all(texts):
        raise CorpusError("bits per byte needs at least one document, and none may be empty; check the held-out split")
    if not 1 <= stride <= length:
        raise RecipeError(
            f"evaluate.stride ({stride}) must be between 1 and evaluate.window ({length}), or tokens are passed over"
        )
    set_threads(threads)
    keep_freed_memory()
    tokenizer, separator = load(folder), separator_id(folder)
    encoded = [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    if model is None:
        model = load_model(folder, choose_device(device))
    was_training = model.training
    model.eval()
    todo = [w for i, ids in enumerate(encoded) for w in windows(i, ids, separator, length, stride)]
    todo.sort(key=lambda w: (len(w.ids), w.document))
    bits, right, new, new_right = (np.zeros(len(texts)) for _ in range(4))
    progress = log.progress(what, sum(len(w.ids) for w in todo), unit="tokens") if log else None
    where = next(model.parameters()).device
    with torch.inference_mode():
        for batch in _batches(todo, batch_tokens):
            size = max(len(w.ids) for w in batch) - 1
            # Padding stands on the right, where a causal model cannot see it from the left.
            ids = torch.full((len(batch), size + 1), separator)
            for row, window in enumerate(batch):
                ids[row, : len(window.ids)] = torch.tensor(window.ids)
            ids = ids.to(where)
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
            table = losses.view(len(batch), size).double().cpu().numpy() / math.log(2)
            hits = (logits.argmax(-1) == ids[:, 1:]).cpu().numpy()
            for row, window in enumerate(batch):
                part = slice(window.score_from, len(window.ids) - 1)
                bits[window.document] += table[row, part].sum()
                right[window.document] += hits[row, part].sum()
                if new_from is not None:
                    fresh = np.array(window.ids[1:])[part] >= new_from
                    new[window.document] += fresh.sum()
                    new_right[window.document] += hits[row, part][fresh].sum()
            if progress:
                progress.advance(sum(len(w.ids) for w in batch))
    model.train(was_training)
    return Scores(
        bits,
        np.array([len(text.encode("utf-8")) for text in texts], dtype=np.int64),
        np.array([len(ids) for ids in encoded], dtype=np.int64),
        right,
        new,
        new_right,
    )


def _batches(todo: Sequence[_Window], batch_tokens: int) -> list[list[_Window]]:
    """Group windows of similar length; a padded batch holds at most `batch_tokens` (or one window)."""
    batches: list[list[_Window]] = []
    for window in todo:
        if batches and len(window.ids) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(window)
        else:
            batches.append([window])
    return batches
