"""Text to token ids, in order and in bounded memory: encoding goes on while the caller reads and writes."""

import collections
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from langgraft.corpus.recall import Recall
from langgraft.errors import LanggraftError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_CHARACTERS = 1 << 19
BATCH_DOCUMENTS = 2000


class Batch(NamedTuple):
    """Tokens of consecutive documents.

    `ids` has shape (sum of sizes,), uint32; `sizes` (documents,), int32, of at least one token each.
    `texts` counts the texts that went in, those without a token too, and `bytes` their UTF-8 bytes.
    """

    ids: np.ndarray
    sizes: np.ndarray
    texts: int
    bytes: int


def token_dtype(size: int) -> np.dtype:
    """What holds ids below `size`: uint16 where it fits, else int32; Megatron-LM's rule (`DType.optimal_dtype`)."""
    return np.dtype("<u2") if size < 65500 else np.dtype("<i4")


def id_bound(tokenizer: "Tokenizer") -> int:
    """One more than the highest id a tokenizer gives, added tokens included."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def encode(tokenizer: "Tokenizer", texts: Iterable[str], *, workers: int = 1) -> Iterator[Batch]:
    """Yield the ids of `texts`, without special tokens, in order; the same for any number of workers.

    One worker is a thread of this process (in which `tokenizers` uses its own threads, as RAYON_NUM_THREADS
    says); more are processes of one thread each, started afresh, so a script that asks for them needs
    `if __name__ == "__main__":`. Truncation and padding that a tokenizer.json may ask for are left out.

    Raises:
        LanggraftError: a worker process died.
    """
    executor: Executor
    submit: Callable[[list[str]], Future[Batch]]
    if workers == 1:
        executor, own = ThreadPoolExecutor(1), Recall(_plain(tokenizer))
        submit = lambda batch: executor.submit(_encode, own, batch)  # noqa: E731
    else:
        spawn = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(tokenizer.to_str(),))
        submit = lambda batch: executor.submit(_encode_here, batch)  # noqa: E731
    waiting: collections.deque[Future[Batch]] = collections.deque()
    try:
        for batch in _batches(texts):
            waiting.append(submit(batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise LanggraftError(
            "a worker process was killed, most often for want of memory; run again with fewer workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _plain(tokenizer: "Tokenizer") -> "Tokenizer":
    """`tokenizer`, or a copy that neither cuts nor pads where it does."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    tokenizer = type(tokenizer).from_str(tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(recall: Recall, texts: list[str]) -> Batch:
    try:
        size = sum(len(text.encode("utf-8")) for text in texts)
    except UnicodeEncodeError:  # lone surrogates, as broken JSON holds them, are no text
        return _encode(recall, [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts])
    found = recall(texts)
    sizes = np.fromiter(map(len, found), dtype=np.int64, count=len(found)) // 4
    ids = np.frombuffer(b"".join(found), dtype=np.uint32)
    return Batch(ids, sizes[sizes > 0].astype(np.int32), len(texts), size)


_worker: Recall


def _start(document: str) -> None:
    """Make this worker process ready."""
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    _worker = Recall(_plain(Tokenizer.from_str(document)))


def _encode_here(texts: list[str]) -> Batch:
    return _encode(_worker, texts)
