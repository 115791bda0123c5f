"""Splits: a partition, and a function of the seed and the texts alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.split import split
from langgraft.errors import CorpusError

KEYS = st.lists(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=5, max_size=60, unique=True)


@given(KEYS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_partition_independent_of_order(keys: list[str], seed: int, random: object) -> None:
    parts = split(keys, dev=0.2, test=1, seed=seed)
    assert sorted(i for part in parts.values() for i in part) == list(range(len(keys)))
    assert len(parts["test"]) == 1
    assert len(parts["dev"]) == max(1, round(0.2 * len(keys)))
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = split(shuffled, dev=0.2, test=1, seed=seed)
    for name, part in parts.items():
        assert [keys[i] for i in part] == [shuffled[i] for i in again[name]]


def test_seed_changes_it() -> None:
    keys = [f"k{i}" for i in range(100)]
    assert list(split(keys, dev=5, test=5, seed=0)["test"]) != list(split(keys, dev=5, test=5, seed=1)["test"])


def test_nothing_held_out() -> None:
    parts = split(["a"], dev=0, test=0, seed=0)
    assert {name: list(part) for name, part in parts.items()} == {"train": [0], "dev": [], "test": []}


@pytest.mark.parametrize(
    ("dev", "test", "match"),
    [(3, 2, "ask for 5 documents, but only 5"), (-1, 0, "dev = -1"), (0, 1.5, "test = 1.5")],
)
def test_wrong_sizes(dev: float, test: float, match: str) -> None:
    with pytest.raises(CorpusError, match=match):
        split(["a", "b", "c", "d", "e"], dev=dev, test=test, seed=0)
