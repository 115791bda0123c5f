"""Documents cleaned into shards, by several processes: a shard that is there is complete and is not made again.

A shard is some thousand documents in the order they were read. Its folder holds `kept.jsonl` and `dropped.jsonl`
(documents, and those left out with the reason), `index.npz` (where each kept line starts, keys, MinHash signatures)
and `counts.json`. What a shard holds depends on its documents alone, so the number of processes changes nothing.
"""

import itertools
import json
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from langgraft.corpus.clean import Cleaner, Dropped, Settings
from langgraft.corpus.document import Document
from langgraft.corpus.lines import line_of, parse
from langgraft.corpus.near import MIN_CHARACTERS, folded, key_of, signatures
from langgraft.corpus.part import Part
from langgraft.errors import WorkerError
from langgraft.store import read_json, staged_folder

DOCUMENTS, CHARACTERS = 4096, 2_000_000  # a shard ends after so many documents or characters
_KEY = np.dtype("S20")
_cleaner: Cleaner | None = None  # of this worker process


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents of one shard after the other."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) >= DOCUMENTS or size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write_shard(
    folder: Path,
    documents: Sequence[Document],
    results: Iterable[Document | Dropped],
    *,
    code: str,
    near: bool,
    counts: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Write what became of `documents` into the new folder `folder`; `counts` is read at the end."""
    offsets, keys, long, folds = list[int](), list[bytes](), list[int](), list[str]()
    with staged_folder(folder) as out:
        with (out / "kept.jsonl").open("wb") as kept, (out / "dropped.jsonl").open("wb") as dropped:
            for result in results:
                if isinstance(result, Dropped):
                    left_out = result.document
                    row = {"id": left_out.id, "reason": result.reason, **result.more, "text": left_out.text}
                    dropped.write(line_of(row))
                    continue
                fold = folded(result.text)
                if near and len(result.text) >= MIN_CHARACTERS and fold:
                    long.append(len(keys))
                    folds.append(fold)
                keys.append(key_of(fold, result.text))
                offsets.append(kept.tell())
                kept.write(line_of(result.row()))
        np.savez(
            out / "index.npz",
            offsets=np.array(offsets, dtype=np.uint64),
            keys=np.array(keys, dtype=_KEY),
            long=np.array(long, dtype=np.uint32),
            signatures=signatures(folds, code),
        )
        found = {
            "read": len(documents),
            "first": documents[0].id,
            "last": documents[-1].id,
            "kept": len(keys),
            "counts": dict(sorted(counts.items())),
        }
        (out / "counts.json").write_text(json.dumps(found), encoding="utf-8")


def _start_worker(settings: Settings) -> None:
    """Prepare a worker: it leaves Ctrl-C to its parent, and does not outlive it, however that ends."""
    import multiprocessing

    global _cleaner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["RAYON_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    if parent is not None:

        def end_with_parent() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()
    _cleaner = Cleaner(settings)


def _work(folder: Path, documents: Sequence[Document]) -> None:
    _clean_shard(folder, documents, cast(Cleaner, _cleaner))


def _clean_shard(folder: Path, documents: Sequence[Document], cleaner: Cleaner) -> None:
    cleaner.counts.clear()
    settings, results = cleaner.settings, itertools.chain.from_iterable(map(cleaner, documents))
    write_shard(folder, documents, results, code=settings.code, near=settings.near_duplicates, counts=cleaner.counts)


class _Here(Executor):
    """Runs what it is given at once, in this process."""

    def __init__(self, settings: Settings) -> None:
        self._clean = Cleaner(settings)

    def submit(self, _: Any, /, folder: Path, documents: Sequence[Document]) -> "Future[None]":  # type: ignore[override]
        future: Future[None] = Future()
        _clean_shard(folder, documents, self._clean)
        future.set_result(None)
        return future


def _executor(settings: Settings, workers: int) -> AbstractContextManager[Executor]:
    if workers <= 1:
        return nullcontext(_Here(settings))
    import multiprocessing

    # Not by fork: the parent may have started threads (torch, rayon), and a fork of those hangs.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(settings,))


def clean(
    documents: Iterable[Document],
    folder: Path,
    settings: Settings,
    *,
    workers: int = 1,
    done: Callable[[dict[str, Any]], bool] = lambda _: True,
    part: Part | None = None,
) -> "Shards":
    """Clean `documents` into shards below `folder`, leaving those that are there.

    Args:
        documents: the same ones, in the same order, as in an earlier run that wrote into `folder`.
        workers: processes; 1 works in this one.
        done: told the counts of each shard, in order; the rest is not read once it answers False.
        part: clean only the shards of this part, while other processes clean the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting: deque[tuple[Path, Future[None] | None]] = deque()
    finished: list[Path] = []

    def finish() -> bool:
        path, future = waiting.popleft()
        if future is not None:
            try:
                future.result()
            except BrokenProcessPool as error:
                raise WorkerError(
                    "a process that cleans text ended before its work, perhaps for want of memory; run the same "
                    "command again, with fewer workers: finished shards are kept"
                ) from error
        finished.append(path)
        return done(read_json(path / "counts.json"))

    with _executor(settings, workers) as executor:
        go_on = True
        try:
            for number, batch in enumerate(batches(documents)):
                if part is not None and not part.has(number):
                    continue
                path = folder / f"{number:06d}"
                ready = _is_ready(path, batch)
                waiting.append((path, None if ready else executor.submit(_work, path, batch)))
                while go_on and len(waiting) > 2 * workers:
                    go_on = finish()
                if not go_on:
                    break
            while go_on and waiting:
                go_on = finish()
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()
    return Shards(finished)


def _is_ready(path: Path, batch: Sequence[Document]) -> bool:
    if not (path / "counts.json").is_file():
        return False
    counts = read_json(path / "counts.json")
    found = (counts["read"], counts["first"], counts["last"])
    return bool(found == (len(batch), batch[0].id, batch[-1].id))


@dataclass
class Shards:
    """Kept documents of several shards, numbered through. Holds 28 bytes a document; texts stay on disk."""

    folders: Sequence[Path]
    _file: tuple[int, Any] = field(default=(-1, None), repr=False)

    def __post_init__(self) -> None:
        keys, offsets, sizes = [np.zeros(0, _KEY)], [np.zeros(0, np.uint64)], [0]
        for folder in self.folders:
            with np.load(folder / "index.npz") as found:
                keys.append(found["keys"])
                offsets.append(found["offsets"])
            sizes.append(len(keys[-1]))
        self.keys = np.concatenate(keys)
        self._offsets = np.concatenate(offsets)
        self._starts = np.cumsum(sizes)

    def __len__(self) -> int:
        return len(self.keys)

    def counts(self) -> Counter[str]:
        """Documents read, and what the cleaners counted, over all shards."""
        total: Counter[str] = Counter()
        for folder in self.folders:
            found = read_json(folder / "counts.json")
            total.update({"read": found["read"], **found["counts"]})
        return total

    def signatures(self) -> Iterator[tuple[Any, Any]]:
        """For each shard, numbers of the documents that have a signature, and the signatures."""
        for start, folder in zip(self._starts, self.folders, strict=False):
            with np.load(folder / "index.npz") as found:
                yield found["long"].astype(np.int64) + int(start), found["signatures"]

    def document(self, number: int) -> Document:
        """One document, read from disk."""
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        if self._file[0] != shard:
            if self._file[1] is not None:
                self._file[1].close()
            self._file = (shard, (self.folders[shard] / "kept.jsonl").open("rb"))
        self._file[1].seek(int(self._offsets[number]))
        return Document(**parse(self._file[1].readline()))

    def __add__(self, other: "Shards") -> "Shards":
        return Shards([*self.folders, *other.folders])
