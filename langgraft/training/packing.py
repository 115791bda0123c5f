"""Documents as packed token rows, without attention across documents, in an order that needs no state.

A document of tokens t1..tn takes n+1 places: it reads `separator t1 .. tn` and predicts `t1 .. tn separator`,
so its first token is predicted and every place carries a label. Documents follow one another in an order that
is a function of (seed, epoch) alone; rows of `length` places are cut from that stream. Position ids restart at
every document and every row, which is what keeps documents apart in attention.
"""

import functools
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from langgraft.corpus.tokens import encode, id_bound, token_dtype
from langgraft.errors import CorpusError
from langgraft.store import read_json, staged_folder, write_json

IGNORED = -100  # the label of places that are not to be predicted, as torch has it

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Row:
    """One packed row; each array has shape (length,)."""

    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray


def pack(tokenizer: "Tokenizer", texts: Iterable[str], out: Path, *, separator: int) -> dict[str, int]:
    """Tokenise `texts` once into the folder `out`; returns the counts of documents, tokens and bytes.

    Tokens go to disk as they come: uint16 where every id fits, else int32. Memory holds a few batches and the
    sizes of the documents.

    Raises:
        CorpusError: there is no text.
    """
    sizes: list[np.ndarray] = []
    tokens = total_bytes = 0
    dtype = token_dtype(id_bound(tokenizer))
    with staged_folder(out) as staging:
        with (staging / "tokens.npy").open("w+b") as file:
            npy_header(file, dtype, 0)
            for batch in encode(tokenizer, texts):
                file.write(batch.ids.astype(dtype).tobytes())
                sizes.append(batch.sizes)
                tokens += len(batch.ids)
                total_bytes += batch.bytes
            file.seek(0)
            npy_header(file, dtype, tokens)
        if not tokens:
            raise CorpusError("there is no text to train on; check the corpus and its train split")
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes), dtype=np.int64)])
        counts = {"documents": len(offsets) - 1, "tokens": tokens, "bytes": total_bytes, "separator": separator}
        np.save(staging / "offsets.npy", offsets)
        write_json(staging / "packed.json", counts)
    return counts


def npy_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    """The header of a vector; numpy gives it the same length for any `count`, so it can be written again."""
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, facts)


class Packed:
    """Reads rows of a packed folder; `row(i)` is a pure function of (folder, length, seed, order, i).


    `order` is "shuffled", or "length" for short documents first in every epoch (equally long ones are shuffled).
    `masked`: whether some labels are to be ignored.
    """

    masked = False

    def __init__(self, folder: Path, *, length: int, seed: int, order: str = "shuffled") -> None:
        # Two epochs at a time, because a batch may straddle their border.
        self._epoch = functools.lru_cache(maxsize=2)(self._order)
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.offsets = np.load(folder / "offsets.npy")
        counts = read_json(folder / "packed.json")
        self.separator: int = counts["separator"]
        # Places are tokens and the ends of documents: with short documents the ends are many.
        self.bytes_per_place: float = counts["bytes"] / (counts["tokens"] + counts["documents"])
        self.length, self.seed, self.by_length = length, seed, order == "length"
        self.places = int(self.offsets[-1]) + len(self.offsets) - 1
        self.rows_per_epoch = max(self.places // length, 1)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Document order of an epoch, and where each document starts in its stream."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.offsets) - 1)
        if self.by_length:
            order = order[np.argsort(np.diff(self.offsets)[order], kind="stable")]
        sizes = np.diff(self.offsets)[order] + 1
        return order, np.concatenate([[0], np.cumsum(sizes)])

    def row(self, index: int) -> Row:
        """Row `index`; epochs follow one another without end."""
        epoch, within = divmod(index, self.rows_per_epoch)
        order, starts = self._epoch(epoch)
        begin = within * self.length
        ids = np.empty(self.length, dtype=np.int64)
        labels = np.empty(self.length, dtype=np.int64)
        positions = np.empty(self.length, dtype=np.int64)
        filled = 0
        document = int(np.searchsorted(starts, begin, side="right")) - 1
        while filled < self.length:
            # A corpus smaller than one row repeats itself inside the row.
            which = order[document % len(order)]
            tokens = self.tokens[self.offsets[which] : self.offsets[which + 1]]
            inside = np.concatenate([[self.separator], tokens, [self.separator]]).astype(np.int64)
            skip = max(begin - int(starts[document]), 0) if document < len(order) else 0
            take = min(len(inside) - 1 - skip, self.length - filled)
            part = slice(filled, filled + take)
            ids[part] = inside[skip : skip + take]
            labels[part] = inside[skip + 1 : skip + 1 + take]
            positions[part] = np.arange(take)
            filled += take
            document += 1
        return Row(ids, labels, positions)


def interleave(index: int, ratio: float) -> tuple[bool, int]:
    """Whether row `index` of a mixture is replay, and its index within its own part.

    Replay rows are spread evenly, so every window of rows holds its share to within one row.
    """
    before, after = int(index * ratio + 1e-9), int((index + 1) * ratio + 1e-9)
    return (True, before) if after > before else (False, index - before)


def forget(folder: Path) -> None:
    """Remove a packed folder."""
    shutil.rmtree(folder, ignore_errors=True)
