"""Bits per byte: how well a model predicts text, comparable across tokenizers and languages.

Bits are summed over every token of a document, the first one included (it is predicted from the separator),
and divided by the document's UTF-8 bytes. Bytes are counted on the text itself, never on decoded tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.errors import CorpusError, InputError, RecipeError
from langgraft.evaluation.likelihood import DocumentBits, Scorer
from langgraft.progress import Log
from langgraft.store import fingerprint


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


def score(
    folder: Path,
    texts: Sequence[str],
    *,
    length: int = 512,
    stride: int = 256,
    batch_tokens: int = 0,
    device: str = "auto",
    threads: int = 0,
    model: Any = None,
    count_right: bool = False,
    new_from: int | None = None,
    log: Log | None = None,
    what: str = "bits per byte",
) -> Scores:
    """Score `texts` with the model and tokenizer in `folder` (or with `model` already in memory).

    `length` and `stride` are in tokens; `batch_tokens` bounds the padded size of a batch (0: what suits the device).
    With `count_right`, tokens that were the model's first choice are counted too, and those from id `new_from` on.

    Raises:
        CorpusError, RecipeError: as `score_documents`.
    """
    from langgraft.evaluation.torch_scorer import TorchScorer

    _check(texts, length, stride)
    scorer = TorchScorer(
        folder, device=device, threads=threads, model=model, batch_tokens=batch_tokens, count_right=count_right,
        new_from=new_from,
    )  # fmt: skip
    return score_documents(scorer, texts, length=length, stride=stride, log=log, what=what)


def score_documents(
    scorer: Scorer,
    texts: Sequence[str],
    *,
    length: int = 512,
    stride: int = 256,
    keep: Path | None = None,
    identity: str = "",
    log: Log | None = None,
    what: str = "bits per byte",
) -> Scores:
    """Score `texts` with a model of any kind.

    Args:
        length: longest context in tokens.
        stride: how far windows advance over longer documents, in tokens.
        keep: a file that gets every document's bits as they are known; a killed call goes on from it, with the
            same result.
        identity: what the model is, so that nobody goes on with the scores of another one.

    Raises:
        CorpusError: `texts` is empty or holds an empty text.
        RecipeError: the stride is longer than the window, so that tokens would be passed over.
        InputError: `keep` was begun with another model, other texts or other windows.
    """
    _check(texts, length, stride)
    settings = {"model": identity, "texts": fingerprint(list(texts)), "window": length, "stride": stride}
    known = _begun(keep, settings) if keep is not None else {}
    file = keep.open("ab") if keep is not None else None
    try:
        for group in scorer.documents(texts, window=length, stride=stride, done=known.keys(), log=log, what=what):
            known.update((one.document, one) for one in group)
            if file is not None:
                file.write(b"".join(json.dumps(one._asdict()).encode() + b"\n" for one in group))
                file.flush()
    finally:
        if file is not None:
            file.close()
    in_order = [known[i] for i in range(len(texts))]
    return Scores(
        np.array([one.bits for one in in_order]),
        np.array([len(text.encode("utf-8")) for text in texts], dtype=np.int64),
        np.array([one.tokens for one in in_order], dtype=np.int64),
        *(np.array([getattr(one, name) for one in in_order]) for name in ("right", "new", "new_right")),
    )


def _check(texts: Sequence[str], length: int, stride: int) -> None:
    if not texts or not all(texts):
        raise CorpusError("bits per byte needs at least one document, and none may be empty; check the held-out split")
    if not 1 <= stride <= length:
        raise RecipeError(
            f"evaluate.stride ({stride}) must be between 1 and evaluate.window ({length}), or tokens are passed over"
        )


def _begun(path: Path, settings: dict[str, Any]) -> dict[int, DocumentBits]:
    """Documents that an earlier call scored; what a kill left of a last line is cut off. Starts the file if new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[bytes] = []
    if path.is_file():
        with path.open("r+b") as file:
            lines = [line for line in file if line.endswith(b"\n")]
            file.truncate(sum(map(len, lines)))
    if not lines:
        path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return {}
    before = json.loads(lines[0])
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        raise InputError(
            f"{path} was begun with other settings ({', '.join(changed)}); delete it, or write to another folder"
        )
    rows = (DocumentBits(**json.loads(line)) for line in lines[1:])
    return {row.document: row for row in rows}
