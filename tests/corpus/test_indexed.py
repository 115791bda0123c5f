"""Megatron's indexed dataset: byte for byte, whole or gone on with, and read from anyone."""

import importlib.util
import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH, pico_tokenizer

from langgraft.corpus import indexed, tokens
from langgraft.corpus.document import Input, Report
from langgraft.corpus.indexed import Indexed, write_indexed
from langgraft.corpus.readers import choose, read
from langgraft.corpus.sources import with_companions
from langgraft.errors import CorpusError, DamagedError
from langgraft.store import sha256_file
from langgraft.tokenizer.files import load

TEXTS = [*ENGLISH, "", *CANTONESE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def by_hand(documents: list[list[list[int]]], code: int, kind: str) -> tuple[bytes, bytes]:
    """`.bin` and `.idx` of documents of sequences, straight from the description of the format."""
    sequences = [sequence for document in documents for sequence in document]
    item = struct.calcsize(kind)
    places = [item * sum(map(len, sequences[:i])) for i in range(len(sequences))]
    borders = [sum(map(len, documents[:i])) for i in range(len(documents) + 1)]
    data = b"".join(struct.pack(f"<{len(sequence)}{kind}", *sequence) for sequence in sequences)
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sequences), len(borders))
    index += struct.pack(f"<{len(sequences)}i", *map(len, sequences))
    index += struct.pack(f"<{len(places)}q", *places) + struct.pack(f"<{len(borders)}q", *borders)
    return data, index


def put(prefix: Path, files: tuple[bytes, bytes]) -> Path:
    for suffix, content in zip((".bin", ".idx"), files, strict=True):
        Path(f"{prefix}{suffix}").write_bytes(content)
    return prefix


def write(folder: Path, prefix: Path, texts: Any = TEXTS, **more: Any) -> dict[str, Any]:
    return write_indexed(load(folder), texts, prefix, **{"eod": 2, "identity": "x", **more})


def test_two_documents_as_bytes(folder: Path, tmp_path: Path) -> None:
    write(folder, tmp_path / "a", ["a", "", "bb"])
    a, b = load(folder).encode("a").ids, load(folder).encode("bb").ids
    assert (tmp_path / "a.bin").read_bytes() == struct.pack(f"<{len(a) + len(b) + 2}H", *a, 2, *b, 2)
    assert (tmp_path / "a.idx").read_bytes() == bytes.fromhex(
        "4d4d4944494458 0000  0100000000000000  08  0200000000000000  0300000000000000"
        f"{len(a) + 1:02x}000000 {len(b) + 1:02x}000000"
        f"0000000000000000 {2 * len(a) + 2:02x}00000000000000"
        "0000000000000000 0100000000000000 0200000000000000"
    )


def test_what_is_written_is_the_description_and_counts_and_sums_are_true(folder: Path, tmp_path: Path) -> None:
    summary = write(folder, tmp_path / "a")
    ids = [load(folder).encode(text).ids for text in TEXTS if text]
    data, index = by_hand([[[*document, 2]] for document in ids], 8, "H")
    assert (tmp_path / "a.bin").read_bytes() == data
    assert (tmp_path / "a.idx").read_bytes() == index
    assert summary == json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert summary["sha256"] == {name: sha256_file(tmp_path / name) for name in ("a.bin", "a.idx")}
    assert (summary["documents"], summary["empty"], summary["dtype"]) == (len(ids), 1, "uint16")
    assert summary["tokens"] == sum(map(len, ids)) + len(ids)
    assert summary["bytes"] == sum(len(text.encode()) for text in TEXTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.idx", "a.json"]
    dataset = Indexed(tmp_path / "a.idx")
    assert [dataset[i].tolist() for i in range(len(dataset))] == [[*document, 2] for document in ids]


def test_a_large_vocabulary_takes_int32(folder: Path, tmp_path: Path) -> None:
    assert write(folder, tmp_path / "a", eod=70_000)["dtype"] == "int32"
    assert Indexed(tmp_path / "a")[0][-1] == 70_000
    ids = [[[*load(folder).encode(text).ids, 70_000]] for text in TEXTS if text]
    assert ((tmp_path / "a.bin").read_bytes(), (tmp_path / "a.idx").read_bytes()) == by_hand(ids, 4, "i")


def test_the_index_in_pieces_is_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, tmp_path / "a")
    monkeypatch.setattr(indexed, "_CHUNK", 5)
    write(folder, tmp_path / "b")
    assert (tmp_path / "a.idx").read_bytes() == (tmp_path / "b.idx").read_bytes()


def test_any_number_of_workers_writes_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "BATCH_DOCUMENTS", 2)
    for workers in (1, 3):
        write(folder, tmp_path / str(workers), workers=workers)
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"3.{suffix}").read_bytes()


@pytest.mark.parametrize("stop", [1, 5, 9, 12])
def test_a_stopped_writer_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    write(folder, tmp_path / "whole")
    monkeypatch.setattr(tokens, "BATCH_DOCUMENTS", 1)
    monkeypatch.setattr(indexed, "CHECKPOINT_TOKENS", 40)

    def until(count: int) -> Iterator[str]:
        yield from TEXTS[:count]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(folder, tmp_path / "a", until(stop))
    assert not (tmp_path / "a.json").exists()
    with (tmp_path / "a.bin").open("ab") as file:
        file.write(b"what a killed process had half written")
    known = tmp_path / "a.partial.json"
    done = json.loads(known.read_text(encoding="utf-8"))["texts"] if known.is_file() else 0
    assert done > 0 or stop < 9  # so that the test tests something
    encoded: list[str] = []
    monkeypatch.setattr(tokens, "_batches", lambda texts: ([encoded.append(text) or text] for text in texts))  # type: ignore[func-returns-value]
    write(folder, tmp_path / "a")
    assert encoded == TEXTS[done:]
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert not known.exists()


def test_a_finished_dataset_is_kept_and_another_replaces_it(folder: Path, tmp_path: Path) -> None:
    first = write(folder, tmp_path / "a")
    assert write(folder, tmp_path / "a", ["never read"]) == first
    other = write(folder, tmp_path / "a", ["new text"], identity="y")
    assert (other["documents"], len(Indexed(tmp_path / "a"))) == (1, 1)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_an_error(folder: Path, tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="there is no text for"):
        write(folder, tmp_path / "a", texts)
    assert not (tmp_path / "a.json").exists()


sequences = st.lists(st.lists(st.lists(st.integers(0, 200), max_size=5), max_size=3), max_size=6)


@given(sequences, st.sampled_from([(1, "B"), (3, "h"), (4, "i"), (5, "q"), (8, "H")]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_datasets_of_others_are_read(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]], kind: tuple[int, str], modes: bool
) -> None:
    data, index = by_hand(documents, *kind)
    index += bytes(sum(map(len, documents))) if modes else b""
    dataset = Indexed(put(tmp_path_factory.mktemp("others") / "a", (data, index)))
    assert [dataset[i].tolist() for i in range(len(dataset))] == [list(itertools.chain(*d)) for d in documents]
    with pytest.raises(IndexError):
        dataset[len(documents)]


GOOD = by_hand([[[1, 2, 3]], [[4], [5, 6]]], 8, "H")
DATA, INDEX = GOOD


def changed(at: int, new: bytes) -> tuple[bytes, bytes]:
    return DATA, INDEX[:at] + new + INDEX[at + len(new) :]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ((DATA, b"TNTIDX\0\0" + INDEX[8:]), "is no index of Megatron's indexed dataset"),
        ((DATA, INDEX[:20]), "is no index of Megatron's indexed dataset"),
        (changed(9, b"\x02"), "has version 2; only version 1 is known"),
        (changed(17, b"\x07"), "holds tokens of number type 7; known are 1 .uint8."),
        ((DATA, INDEX[:-1]), "3 sequences and 3 borders take 94 bytes, not 93"),
        (changed(34, struct.pack("<i", -1)), "sequence 0 has a negative size"),
        (changed(46 + 8, struct.pack("<q", 7)), "sequence 1 should be bytes 7 to 9"),
        (changed(46 + 16, struct.pack("<q", 10)), "sequence 2 should be bytes 10 to 14 of .*, which has 12"),
        ((DATA[:-2], INDEX), "sequence 2 should be bytes 8 to 12 of .*, which has 10"),
        ((DATA + b"\0\0", INDEX), "its sequences end at byte 12 of .*, which has 14"),
        (changed(70 + 16, struct.pack("<q", 2)), "its documents are not the sequences 0 to 3 in order"),
        (changed(70 + 8, struct.pack("<q", 4)), "its documents are not the sequences 0 to 3 in order"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, files: tuple[bytes, bytes], sentence: str) -> None:
    with pytest.raises(DamagedError, match=sentence):
        Indexed(put(tmp_path / "a", files))


def test_half_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(INDEX)
    with pytest.raises(DamagedError, match=r"a\.bin is missing; an indexed dataset is a \.bin and an"):
        Indexed(tmp_path / "a.idx")


def test_as_a_corpus(folder: Path, tmp_path: Path) -> None:
    write(folder, tmp_path / "a", eod=0)
    path = tmp_path / "a.idx"
    assert choose(path) == "megatron"
    report = Report()
    found = list(read([Input(str(path), options={"tokenizer": str(folder)})], "yue", report))
    assert [document.text for document in found] == [text for text in TEXTS if text]
    assert found[1].id == "a.idx:1"
    assert with_companions([path, folder / "tokenizer.json"]) == [path, folder / "tokenizer.json", tmp_path / "a.bin"]


def test_as_a_corpus_with_no_or_the_wrong_tokenizer(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "a", by_hand([[[1, 2]], [[3, 60_000]]], 8, "H"))
    path = str(tmp_path / "a.idx")
    for options, sentence in (
        ({}, "give the reader `megatron` the option `tokenizer`"),
        ({"tokenizer": "/no"}, "/no/"),
    ):
        with pytest.raises(CorpusError, match=sentence):
            list(read([Input(path, options=options)], "en", Report()))
    report = Report()
    assert len(list(read([Input(path, options={"tokenizer": str(folder)})], "en", report))) == 1
    assert "document 1 has the token id 60,000" in report.damaged[0]["reason"]


@pytest.mark.skipif(importlib.util.find_spec("megatron") is None, reason="megatron-core is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("eod", [2, 70_000])
def test_megatrons_own_reader_and_builder(folder: Path, tmp_path: Path, eod: int) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

    write(folder, tmp_path / "ours", eod=eod)
    ids = [[*load(folder).encode(text).ids, eod] for text in TEXTS if text]
    theirs = IndexedDataset(str(tmp_path / "ours"))
    assert [theirs[i].tolist() for i in range(len(theirs))] == ids
    assert theirs.document_indices.tolist() == list(range(len(ids) + 1))
    size = max(load(folder).get_vocab_size(), eod + 1)
    assert np.dtype(DType.optimal_dtype(size)) == tokens.token_dtype(size)
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=DType.optimal_dtype(size))
    for document in ids:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"theirs.{suffix}").read_bytes() == (tmp_path / f"ours.{suffix}").read_bytes()
