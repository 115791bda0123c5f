"""Conversations as packed rows: whole ones, kept apart, of which the answers alone are to be predicted.

A packed folder of conversations has `answers.npy` (bool, one for each token) beside what `packing.pack` writes. A
conversation is never spread over two rows: rows are filled by best fit, the longest first (Ding et al. 2024,
arXiv 2404.10830), and what is left of a row is ignored. Which conversations share a row follows from the seed, and
the order of the rows from (seed, epoch).
"""

import bisect
import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from langgraft.base import separator_id
from langgraft.corpus.tokens import id_bound, token_dtype
from langgraft.errors import CorpusError, RecipeError
from langgraft.store import read_json, staged_folder, write_json
from langgraft.training.chat_rows import Chat
from langgraft.training.packing import IGNORED, Row, npy_header
from langgraft.training.turns import Encoded, Turns

ANSWERS = "answers.npy"
TOO_LONG = "first answer ends after a row's end"


@dataclass
class Counts:
    """What was packed: `cut` conversations lost their last turns, `left_out` counts others by reason."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    answers: int = 0
    answer_tokens: int = 0
    answer_bytes: int = 0
    cut: int = 0
    separator: int = 0
    length: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def add(self, whole: Encoded, kept: Encoded) -> None:
        """Count a conversation of which `kept` is learned."""
        self.documents += 1
        self.tokens += len(kept.ids)
        self.answers += len(kept.answers)
        self.answer_tokens += sum(answer.stop - answer.start for answer in kept.answers)
        self.answer_bytes += sum(answer.bytes for answer in kept.answers)
        self.cut += len(kept.answers) < len(whole.answers)


def pack_chats(turns: Turns, chats: Iterable[Chat], out: Path, *, length: int) -> Counts:
    """Write conversations into the packed folder `out`, for rows of `length` places.

    One that is longer than a row loses the turns after the last answer that fits; one whose first answer does not
    fit is left out: no answer is cut.

    Raises:
        CorpusError: nothing is left to learn from, or as `Turns.encode`.
    """
    counts = Counts(separator=separator_id(turns.folder), length=length)
    left_out: Counter[str] = Counter()
    sizes: list[int] = []
    dtype = token_dtype(id_bound(turns.tokenizer))
    with staged_folder(out) as staging:
        with (staging / "tokens.npy").open("w+b") as file, (staging / ANSWERS).open("w+b") as marks:
            npy_header(file, dtype, 0)
            npy_header(marks, np.dtype(bool), 0)
            for chat, whole in turns.encode(chats, left_out):
                kept = whole.within(length)
                if kept is None:
                    left_out[TOO_LONG] += 1
                    continue
                counts.add(whole, kept)
                counts.bytes += sum(len(m["content"].encode("utf-8")) for m in chat.messages)
                sizes.append(len(kept.ids))
                file.write(kept.ids.astype(dtype).tobytes())
                marks.write(kept.learn.tobytes())
            for stream, kind in ((file, dtype), (marks, np.dtype(bool))):
                stream.seek(0)
                npy_header(stream, kind, counts.tokens)
        counts.left_out = dict(sorted(left_out.items()))
        if not sizes:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.left_out.items())
            raise CorpusError(f"no conversation is left to learn from ({reasons or 'there are none'}); check the data")
        np.save(staging / "offsets.npy", np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))
        write_json(staging / "packed.json", asdict(counts))
    return counts


def is_packed_chat(folder: Path) -> bool:
    """Whether a packed folder holds conversations."""
    return (folder / ANSWERS).is_file()


class Conversations:
    """Reads rows of packed conversations; `row(i)` is a pure function of (folder, length, seed, i).

    Raises:
        RecipeError: they were packed for shorter or longer rows.
    """

    masked = True

    def __init__(self, folder: Path, *, length: int, seed: int) -> None:
        self._epoch = functools.lru_cache(maxsize=2)(self._order)
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.learn = np.load(folder / ANSWERS, mmap_mode="r")
        self.offsets = np.load(folder / "offsets.npy")
        counts = read_json(folder / "packed.json")
        if counts["length"] != length:
            raise RecipeError(f"{folder} was packed for rows of {counts['length']}, not {length}; pack it again")
        self.separator: int = counts["separator"]
        self.length, self.seed = length, seed
        self.rows = filled(np.diff(self.offsets) - 1, length, seed)
        self.rows_per_epoch = len(self.rows)
        self.bytes_per_place: float = counts["bytes"] / (self.rows_per_epoch * length)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))

    def row(self, index: int) -> Row:
        """Row `index`; epochs follow one another without end."""
        epoch, within = divmod(index, self.rows_per_epoch)
        ids = np.full(self.length, self.separator, dtype=np.int64)
        labels = np.full(self.length, IGNORED, dtype=np.int64)
        positions = np.empty(self.length, dtype=np.int64)
        at = 0
        for document in self.rows[self._epoch(epoch)[within]]:
            part = slice(self.offsets[document], self.offsets[document + 1])
            tokens, learn = self.tokens[part].astype(np.int64), self.learn[part]
            end = at + len(tokens) - 1
            ids[at:end] = tokens[:-1]
            labels[at:end] = np.where(learn[1:], tokens[1:], IGNORED)
            positions[at:end] = np.arange(end - at)
            at = end
        positions[at:] = np.arange(self.length - at)  # what is left is a document of its own that nobody learns
        return Row(ids, labels, positions)


def filled(sizes: np.ndarray, length: int, seed: int) -> list[list[int]]:
    """Numbers of the conversations in each row: best fit, the longest first; equal sizes in an order by the seed."""
    shuffled = np.random.default_rng([seed]).permutation(len(sizes))
    found: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # places left -> rows
    rooms: list[int] = []  # its keys, sorted
    for document in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        size = int(sizes[document])
        at = bisect.bisect_left(rooms, size)
        if at == len(rooms):
            found.append([])
            row, room = len(found) - 1, length
        else:
            room = rooms[at]
            row = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[at]
        found[row].append(int(document))
        left = room - size
        if left:
            if left not in with_room:
                bisect.insort(rooms, left)
            with_room.setdefault(left, []).append(row)
    return found
