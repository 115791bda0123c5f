"""Mixtures of packed sources: shares of tokens, repetition limits, and an order that is a function of the position."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from langgraft.errors import CorpusError
from langgraft.store import read_json, write_json
from langgraft.training.mixture import Mixture, open_rows, write_mixture
from langgraft.training.packing import Packed

LENGTH = 8
# Documents of seven tokens fill a row each; a source writes one token only, so that its rows can be told.
SIZES = {"small": 10, "large": 300}
TOKEN = {"small": 5, "large": 6}


def source(folder: Path, documents: int, token: int) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "tokens.npy", np.full(7 * documents, token, dtype=np.uint32))
    np.save(folder / "offsets.npy", np.arange(documents + 1, dtype=np.int64) * 7)
    counts = {"separator": 0, "tokens": 7 * documents, "documents": documents, "bytes": 7 * documents * token}
    write_json(folder / "packed.json", counts)
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return {name: source(tmp_path / name, n, TOKEN[name]) for name, n in SIZES.items()}


def rows_of(folder: Path, count: int) -> Counter[str]:
    rows = Mixture(folder, length=LENGTH, seed=1)
    named = {token: name for name, token in TOKEN.items()}
    return Counter(named[int(rows.row(i).ids[1])] for i in range(count))


def test_sources_get_their_share_of_the_rows(tmp_path: Path, sources: dict[str, Path]) -> None:
    parts = write_mixture(tmp_path, sources, budget=100 * LENGTH, shares={"small": 1, "large": 3})
    assert parts["small"] == {"tokens": 70, "share": 0.25, "epochs": 2.5}
    assert rows_of(tmp_path, 100) == {"small": 25, "large": 75}


def test_a_source_is_not_repeated_more_than_allowed(tmp_path: Path, sources: dict[str, Path]) -> None:
    parts = write_mixture(tmp_path, sources, budget=100 * LENGTH, shares={"small": 1, "large": 1}, max_epochs=2)
    assert parts["small"]["epochs"] == 2
    assert rows_of(tmp_path, 100) == {"small": 20, "large": 80}
    # Every document of it is read exactly twice.
    rows = Mixture(tmp_path, length=LENGTH, seed=1)
    small = Packed(sources["small"], length=LENGTH, seed=1)
    read = [rows.row(i) for i in range(100) if rows.row(i).ids[1] == TOKEN["small"]]
    assert len(read) == 2 * small.rows_per_epoch


def test_temperature_brings_sizes_closer(tmp_path: Path, sources: dict[str, Path]) -> None:
    natural = write_mixture(tmp_path, sources, budget=800)
    flat = write_mixture(tmp_path, sources, budget=800, temperature=2)
    assert natural["small"]["share"] == pytest.approx(10 / 310)
    assert flat["small"]["share"] == pytest.approx(10**0.5 / (10**0.5 + 300**0.5))


def test_a_source_without_a_share_is_not_read(tmp_path: Path, sources: dict[str, Path]) -> None:
    write_mixture(tmp_path, sources, budget=800, shares={"small": 0, "large": 1})
    assert rows_of(tmp_path, 100) == {"large": 100}


def test_rows_are_a_function_of_the_position(tmp_path: Path, sources: dict[str, Path]) -> None:
    write_mixture(tmp_path, sources, budget=800, shares={"small": 1, "large": 1})
    once, again = (Mixture(tmp_path, length=LENGTH, seed=3) for _ in range(2))
    forwards = [once.row(i).ids.tolist() for i in range(40)]
    assert forwards == [again.row(i).ids.tolist() for i in reversed(range(40))][::-1]


def test_bytes_per_place_are_those_of_the_mixture(tmp_path: Path, sources: dict[str, Path]) -> None:
    write_mixture(tmp_path, sources, budget=800, shares={"small": 1, "large": 3})
    small, large = (Packed(folder, length=LENGTH, seed=0).bytes_per_place for folder in sources.values())
    assert small != large
    assert Mixture(tmp_path, length=LENGTH, seed=0).bytes_per_place == pytest.approx(0.25 * small + 0.75 * large)


def test_open_rows_tells_a_mixture_from_a_packed_folder(tmp_path: Path, sources: dict[str, Path]) -> None:
    write_mixture(tmp_path, sources, budget=800)
    assert isinstance(open_rows(tmp_path, length=LENGTH, seed=0), Mixture)
    assert isinstance(open_rows(sources["small"], length=LENGTH, seed=0), Packed)
    assert set(read_json(tmp_path / "mixture.json")) == set(SIZES)


def test_too_little_text_for_the_limit(tmp_path: Path, sources: dict[str, Path]) -> None:
    with pytest.raises(CorpusError, match=r"training takes 80,000 tokens of text, but the sources give 4,960"):
        write_mixture(tmp_path, sources, budget=80_000, shares={"small": 1, "large": 1}, max_epochs=2)


EASY_FIRST = [(0.0, {"small": 1.0, "large": 0.0}), (1.0, {"small": 0.0, "large": 1.0})]


def test_a_curriculum_gives_every_tenth_of_the_run_its_tokens(tmp_path: Path, sources: dict[str, Path]) -> None:
    parts = write_mixture(tmp_path, sources, budget=400 * LENGTH, curriculum=EASY_FIRST)
    assert parts["small"]["share"] == pytest.approx(0.5)
    assert parts["small"]["epochs"] == pytest.approx(20)
    rows = Mixture(tmp_path, length=LENGTH, seed=1)
    for tenth in range(10):
        read = [rows.row(i).ids for i in range(40 * tenth, 40 * (tenth + 1))]
        tokens = sum(int((ids == TOKEN["small"]).sum()) for ids in read)
        assert abs(tokens - (38 - 4 * tenth) * 7) <= 7  # a row, of which one place is the separator
    again = Mixture(tmp_path, length=LENGTH, seed=1)
    assert [again.row(i).ids.tolist() for i in (399, 3)] == [rows.row(i).ids.tolist() for i in (399, 3)]


def test_a_curriculum_that_repeats_too_often_is_refused(tmp_path: Path, sources: dict[str, Path]) -> None:
    with pytest.raises(CorpusError, match=r"source small would be read 20.00 times, more than max_epochs = 4; give"):
        write_mixture(tmp_path, sources, budget=400 * LENGTH, curriculum=EASY_FIRST, max_epochs=4)
    write_mixture(tmp_path, sources, budget=400 * LENGTH, curriculum=EASY_FIRST, max_epochs=20)
    write_mixture(tmp_path, sources, budget=100 * LENGTH, shares={"small": 1, "large": 3})
    assert rows_of(tmp_path, 100) == {"small": 25, "large": 75}  # the curriculum is gone


def test_short_documents_first(tmp_path: Path) -> None:
    sizes = [5, 1, 3, 1, 4, 2]
    folder = tmp_path / "a"
    folder.mkdir()
    np.save(folder / "tokens.npy", np.concatenate([np.full(size, 10 + i) for i, size in enumerate(sizes)]))
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]))
    write_json(folder / "packed.json", {"separator": 0, "tokens": 16, "documents": 6, "bytes": 16})
    write_mixture(tmp_path, {"a": folder}, budget=44, order="length")
    orders = set()
    for seed in range(8):
        ids = Mixture(tmp_path, length=22, seed=seed).row(0).ids.tolist()
        documents = [token for i, token in enumerate(ids) if token and ids[i - 1] == 0]
        assert [sizes[token - 10] for token in documents] == sorted(sizes)
        orders.add(tuple(documents))
    assert len(orders) == 2  # the two of one token in either order
