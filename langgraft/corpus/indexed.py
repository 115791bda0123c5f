"""Megatron-LM's indexed dataset: tokens in `PREFIX.bin`, where they stand in `PREFIX.idx`.

Layout of the index, little-endian, after `megatron/core/datasets/indexed_dataset.py`:

    9 bytes   MMIDIDX and two zeros          8 bytes   version, 1          1 byte   number type of the tokens
    8 bytes   number of sequences (n)        8 bytes   number of document borders (m)
    n int32   tokens of each sequence        n int64   first byte of each in PREFIX.bin
    m int64   borders: a document is the sequences from one to the next; the first is 0, the last n
    n int8    a mode for each sequence, in multimodal data alone

We write one sequence a document, its end marked by one end-of-document token.
"""

import itertools
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from langgraft.base import separator_id
from langgraft.corpus.document import Record
from langgraft.corpus.streams import File
from langgraft.corpus.tokens import Batch, encode, id_bound, token_dtype
from langgraft.errors import CorpusError, DamagedError
from langgraft.progress import Log
from langgraft.store import disk_errors, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
# Megatron's codes; 6 and 7 are floats, which are no tokens.
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
CODES = {np.dtype(name): code for code, name in DTYPES.items()}
CHECKPOINT_TOKENS = 1 << 24  # tokens between two points from which a stopped writer goes on
_CHUNK = 1 << 20


def write_indexed(
    tokenizer: "Tokenizer",
    texts: Iterable[str],
    prefix: Path,
    *,
    eod: int,
    identity: str,
    workers: int = 1,
    log: Log | None = None,
) -> dict[str, Any]:
    """Write `texts` as `prefix.bin` and `prefix.idx`, and beside them `prefix.json` with counts and checksums.

    The bytes do not depend on `workers`. Texts without a token are left out. `prefix.json` is written last: what
    has it is complete, and is not written again while `identity` is the same. A writer that was stopped goes on
    after the last `CHECKPOINT_TOKENS` it finished: earlier texts are read again, but not tokenised.

    Args:
        eod: the id that ends every document, once.
        workers: see `tokens.encode`.
        identity: a fingerprint of the texts, the tokenizer and `eod`.

    Returns:
        `documents, tokens` (end marks counted), `bytes` (of text), `empty` (texts left out), `dtype, eod,
        identity, sha256` (by file name).

    Raises:
        CorpusError: there is no text.
        DiskFullError: no space is left.
    """
    data, index, facts = (prefix.with_name(f"{prefix.name}.{suffix}") for suffix in ("bin", "idx", "json"))
    if facts.is_file() and read_json(facts).get("identity") == identity:
        return dict(read_json(facts))
    facts.unlink(missing_ok=True)
    dtype = token_dtype(max(id_bound(tokenizer), eod + 1))
    with disk_errors(data):
        with _Writer(data, dtype, eod, identity) as writer:
            rest = itertools.islice(texts, writer.state["texts"], None)
            for batch in encode(tokenizer, rest, workers=workers):
                if writer.add(batch) and log is not None:
                    log.say(f"{data.name}: {writer.state['documents']:,} documents, {writer.state['tokens']:,} tokens")
        state = writer.state
        if not state["documents"]:
            raise CorpusError(f"there is no text for {data}; check the corpus")
        with index.open("wb") as file:
            _write_index(file, np.memmap(writer.sizes, dtype="<i4", mode="r"), dtype)
            file.flush()
            os.fsync(file.fileno())
        summary = {
            **{key: state[key] for key in ("documents", "tokens", "bytes")},
            "empty": state["texts"] - state["documents"],
            "dtype": dtype.name,
            "eod": eod,
            "identity": identity,
            "sha256": {path.name: sha256_file(path) for path in (data, index)},
        }
        write_json(facts, summary)
        writer.forget()
    return summary


class _Writer:
    """Appends batches to `.bin`, and their sizes to a file beside it; `state` counts what is in both."""

    def __init__(self, data: Path, dtype: np.dtype, eod: int, identity: str) -> None:
        self.data, self.dtype, self.eod = data, dtype, eod
        self.sizes, self.note = data.with_suffix(".sizes"), data.with_suffix(".partial.json")
        self.state: dict[str, Any] = {"identity": identity, "texts": 0, "documents": 0, "tokens": 0, "bytes": 0}
        known = read_json(self.note) if self.note.is_file() else {}
        if known.get("identity") == identity and data.is_file() and self.sizes.is_file():
            self.state = known
        self.saved: int = self.state["tokens"]

    def __enter__(self) -> "_Writer":
        self.files = [path.open("r+b" if path.is_file() else "w+b") for path in (self.data, self.sizes)]
        ends = self.state["tokens"] * self.dtype.itemsize, self.state["documents"] * 4
        for file, end in zip(self.files, ends, strict=True):
            file.truncate(end)
            file.seek(end)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._save()
        for file in self.files:
            file.close()

    def add(self, batch: Batch) -> bool:
        """Append; True where a point to go on from was reached."""
        ids = np.insert(batch.ids, np.cumsum(batch.sizes, dtype=np.int64), self.eod)
        self.files[0].write(ids.astype(self.dtype).tobytes())
        self.files[1].write((batch.sizes + 1).astype("<i4").tobytes())
        added = {"texts": batch.texts, "documents": len(batch.sizes), "tokens": len(ids), "bytes": batch.bytes}
        self.state.update({key: self.state[key] + n for key, n in added.items()})
        due: bool = self.state["tokens"] - self.saved >= CHECKPOINT_TOKENS
        if due:
            self._save()
        return due

    def _save(self) -> None:
        for file in self.files:
            file.flush()
            os.fsync(file.fileno())
        write_json(self.note, self.state)
        self.saved = self.state["tokens"]

    def forget(self) -> None:
        """Remove what only a stopped writer needs."""
        self.sizes.unlink()
        self.note.unlink()


def _write_index(file: BinaryIO, sizes: np.ndarray, dtype: np.dtype) -> None:
    """The index of documents of one sequence each, in pieces, so that memory does not grow with their number."""
    file.write(HEADER.pack(MAGIC, 1, CODES[dtype], len(sizes), len(sizes) + 1))
    pieces = [sizes[i : i + _CHUNK] for i in range(0, len(sizes), _CHUNK)]
    for piece in pieces:
        file.write(piece.tobytes())
    start = 0
    for piece in pieces:
        ends = start + np.cumsum(piece, dtype="<i8") * dtype.itemsize
        file.write((ends - piece.astype("<i8") * dtype.itemsize).tobytes())
        start = int(ends[-1])
    for i in range(0, len(sizes) + 1, _CHUNK):
        file.write(np.arange(i, min(i + _CHUNK, len(sizes) + 1), dtype="<i8").tobytes())


class Indexed:
    """An indexed dataset, ours or anyone's; `dataset[i]` is the tokens of document `i`, shape (tokens,).

    Raises:
        DamagedError: the files are no indexed dataset, or do not fit together; the sentence says how.
    """

    def __init__(self, prefix: Path) -> None:
        name = str(prefix).removesuffix(".bin").removesuffix(".idx")
        self.data, self.index = Path(f"{name}.bin"), Path(f"{name}.idx")
        for path in (self.data, self.index):
            if not path.is_file():
                raise DamagedError(f"{path} is missing; an indexed dataset is a .bin and an .idx of one name")
        self.dtype, sequences, borders = self._header()
        self.sizes = self._part("<i4", HEADER.size, sequences)
        self.pointers = self._part("<i8", HEADER.size + 4 * sequences, sequences)
        self.borders = self._part("<i8", HEADER.size + 12 * sequences, borders)
        self._check()
        count = self.data.stat().st_size // self.dtype.itemsize
        self.tokens = np.memmap(self.data, dtype=self.dtype, mode="r") if count else np.empty(0, self.dtype)

    def _damage(self, what: str) -> DamagedError:
        return DamagedError(f"{self.index}: {what}; get a complete copy of it and of {self.data.name}")

    def _header(self) -> tuple[np.dtype, int, int]:
        with self.index.open("rb") as file:
            head = file.read(HEADER.size)
        if not head.startswith(MAGIC) or len(head) < HEADER.size:
            raise DamagedError(f"{self.index} is no index of Megatron's indexed dataset (it does not begin as one)")
        _, version, code, sequences, borders = HEADER.unpack(head)
        if version != 1:
            raise DamagedError(f"{self.index} has version {version}; only version 1 is known")
        if code not in DTYPES:
            known = ", ".join(f"{code} ({np.dtype(name).name})" for code, name in DTYPES.items())
            raise DamagedError(f"{self.index} holds tokens of number type {code}; known are {known}")
        length, needed = self.index.stat().st_size, HEADER.size + 12 * sequences + 8 * borders
        if length not in (needed, needed + sequences):  # with modes, in multimodal data
            raise self._damage(f"{sequences:,} sequences and {borders:,} borders take {needed:,} bytes, not {length:,}")
        return np.dtype(DTYPES[code]), sequences, borders

    def _part(self, kind: str, offset: int, count: int) -> np.ndarray:
        if not count:
            return np.empty(0, kind)
        return np.memmap(self.index, dtype=kind, mode="r", offset=offset, shape=(count,))

    def _check(self) -> None:
        item, length = self.dtype.itemsize, self.data.stat().st_size
        if len(self.sizes) and int(self.sizes.min()) < 0:
            raise self._damage(f"sequence {int(self.sizes.argmin()):,} has a negative size")
        ends = self.pointers + self.sizes.astype(np.int64) * item
        wrong = np.flatnonzero((self.pointers < 0) | (self.pointers % item != 0) | (ends > length))
        if len(wrong):
            at = int(wrong[0])
            raise self._damage(
                f"sequence {at:,} should be bytes {int(self.pointers[at]):,} to {int(ends[at]):,} of {self.data}, "
                f"which has {length:,}"
            )
        if length != int(ends.max(initial=0)):
            raise self._damage(
                f"its sequences end at byte {int(ends.max(initial=0)):,} of {self.data}, which has {length:,}"
            )
        borders = self.borders
        if not len(borders) or borders[0] != 0 or borders[-1] != len(self.sizes) or np.any(np.diff(borders) < 0):
            raise self._damage(f"its documents are not the sequences 0 to {len(self.sizes):,} in order")

    def __len__(self) -> int:
        return len(self.borders) - 1

    def __getitem__(self, document: int) -> np.ndarray:
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {len(self):,}")
        parts = range(int(self.borders[document]), int(self.borders[document + 1]))
        starts = [int(self.pointers[part]) // self.dtype.itemsize for part in parts]
        found = [self.tokens[s : s + int(self.sizes[part])] for s, part in zip(starts, parts, strict=True)]
        return np.concatenate(found) if found else np.empty(0, self.dtype)


def megatron(file: File, *, tokenizer: str = "") -> Iterator[Record]:
    """Documents of an indexed dataset (`….idx` beside `….bin`), decoded; the mark at the end of each is left out.

    Args:
        tokenizer: folder of the tokenizer it was written with (tokenizer.json).
    """
    from tokenizers import Tokenizer

    path = Path(tokenizer).expanduser() / "tokenizer.json"
    if not tokenizer or not path.is_file():
        raise CorpusError(
            f"{file.path} holds token ids: give the reader `megatron` the option `tokenizer`, "
            f"the folder of the tokenizer it was written with{f' ({path} does not exist)' if tokenizer else ''}"
        )
    reader, eod = Tokenizer.from_file(str(path)), separator_id(path.parent)
    bound, dataset = id_bound(reader), Indexed(file.path)
    for number in range(len(dataset)):
        ids = dataset[number]
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < bound:
            raise DamagedError(
                f"{file.path}: document {number:,} has the token id {int(ids.max()):,}, and {path} has {bound:,} ids; "
                "name the tokenizer it was written with"
            )
        ids = ids[:-1] if len(ids) and int(ids[-1]) == eod else ids
        yield Record(reader.decode(ids.tolist(), skip_special_tokens=False), str(number))
