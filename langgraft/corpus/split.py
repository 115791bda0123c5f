"""Train, dev and test by whole documents, as a function of the seed and the texts alone."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from langgraft.errors import CorpusError

SPLITS = ("train", "dev", "test")


def order(key: str, seed: int) -> bytes:
    """What documents are sorted by: a hash of the seed and the text's key."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest()


def _size(wanted: float, total: int, name: str) -> int:
    """Documents to hold out: a share of `total` (at least one document) below 1, a count from 1 on."""
    if wanted < 0 or (wanted >= 1 and wanted != int(wanted)):
        raise CorpusError(f"{name} = {wanted}: give a share below 1 or a whole number of documents")
    if wanted >= 1:
        return int(wanted)
    return max(1, round(wanted * total)) if wanted > 0 else 0


def split(keys: Iterable[str], *, dev: float, test: float, seed: int) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Positions in `keys` that go to "train", "dev" and "test", each in its shuffled order.

    `keys` are distinct (see `near.text_key`). The result does not depend on their order: the documents that
    come first by hash are the test set, the next the dev set.

    Raises:
        CorpusError: `dev` or `test` makes no sense, or leaves nothing to train on.
    """
    hashes = np.fromiter((order(key, seed) for key in keys), dtype="S16")
    n_test, n_dev = _size(test, len(hashes), "test"), _size(dev, len(hashes), "dev")
    if len(hashes) and n_test + n_dev >= len(hashes):
        raise CorpusError(
            f"dev and test ask for {n_dev + n_test:,} documents, but only {len(hashes):,} are left after "
            "cleaning; lower dev and test, or give more text"
        )
    ranked = np.argsort(hashes, kind="stable")
    return {
        "train": ranked[n_test + n_dev :],
        "dev": ranked[n_test : n_test + n_dev],
        "test": ranked[:n_test],
    }
