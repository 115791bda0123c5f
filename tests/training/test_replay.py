"""Replay the base writes: deterministic, resumable, and drawn from the base's own distribution."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pico import pico_model

from langgraft.errors import ModelError
from langgraft.progress import Log
from langgraft.training import replay as module
from langgraft.training.device import load_model
from langgraft.training.replay import generate_replay, sample

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico base with large logits, so that it ends documents and has favourites."""
    from safetensors.torch import load_file, save_file

    folder = pico_model(tmp_path_factory.mktemp("writer"), tie=False)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 8
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)


def write(base: Path, out: Path, **more: Any) -> bytes:
    options = {"tokens": 300, "length": 24, "device": "cpu", "threads": 1, "log": Log(quiet=True), **more}
    return generate_replay(base, out, **options).read_bytes()


def test_the_same_seed_writes_the_same_file(writer: Path, tmp_path: Path) -> None:
    first = write(writer, tmp_path / "a")
    assert first == write(writer, tmp_path / "b")
    assert first != write(writer, tmp_path / "c", seed=1)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["replay.json", "replay.jsonl"]
    documents = [json.loads(line) for line in first.decode().splitlines()]
    assert [d["id"] for d in documents] == [f"self-{i}" for i in range(len(documents))]
    assert all(d["text"] and "\ufffd" not in d["text"] and d["source"] == "self" for d in documents)


def test_a_finished_file_is_left_alone(writer: Path, tmp_path: Path) -> None:
    (tmp_path / "replay.jsonl").write_text("mine\n")
    assert write(writer, tmp_path) == b"mine\n"


def test_an_interrupted_call_goes_on_between_batches(
    writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(writer, tmp_path / "whole")
    real, calls = module.sample, [0]

    def failing(*args: Any, **options: Any) -> list[list[int]]:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "sample", failing)
        with pytest.raises(KeyboardInterrupt):
            write(writer, tmp_path / "cut")
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["batch-00000.json", "batch-00001.json"]
    again: list[int] = []
    monkeypatch.setattr(module, "sample", lambda *a, **o: again.append(1) or real(*a, **o))  # type: ignore[func-returns-value]
    assert write(writer, tmp_path / "cut") == whole
    assert again


def test_half_characters_are_left_out(writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langgraft.tokenizer.files import load

    tokenizer = load(writer)
    good = tokenizer.encode("The quick brown fox jumps over the lazy dog.").ids
    half = tokenizer.encode("好").ids[:1]
    monkeypatch.setattr(module, "sample", lambda *_, **__: [good, half * 9, good[:3], half + good])
    documents = write(writer, tmp_path, tokens=1).decode().splitlines()
    assert [json.loads(d)["text"] for d in documents] == ["The quick brown fox jumps over the lazy dog."] * 2


def test_a_base_without_readable_text_is_an_error(
    writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langgraft.tokenizer.files import load

    half = load(writer).encode("好").ids[:1]
    monkeypatch.setattr(module, "sample", lambda *_, **__: [half * 9])
    with pytest.raises(ModelError, match="writes no readable text"):
        write(writer, tmp_path, tokens=1)
    assert not (tmp_path / "replay.jsonl").exists()


def test_a_base_that_writes_nothing_is_an_error(writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sample", lambda *_, **__: [[5], []])
    with pytest.raises(ModelError, match="ends its documents at once, so it cannot write replay"):
        write(writer, tmp_path)


def samples(base: Path, *texts: str) -> list[list[int]]:
    from langgraft.tokenizer.files import load

    return [load(base).encode(text).ids for text in texts]


GOOD = "The old man walked along the river and sat down under a tree to read his letters before the rain came."
FRENCH = "Le vieil homme marchait le long de la rivière et lisait ses lettres sous un arbre avant que la pluie tombe."
CHINESE = "香港嘅夜景真係好靚，好多人都鍾意喺海邊影相，我哋聽日一齊去啦。"
LOOP = "I went to the shop to buy some milk for the children. " * 12


def test_other_languages_and_repetition_are_left_out_and_counted(
    writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = samples(writer, GOOD, FRENCH, LOOP, "Hi", CHINESE)
    monkeypatch.setattr(module, "sample", lambda *_, **__: rows)
    documents = write(writer, tmp_path, tokens=len(rows[0]) + 1, log=Log()).decode().splitlines()
    assert [json.loads(d)["text"] for d in documents] == [GOOD, GOOD]  # two batches: what was left out does not count
    facts = json.loads((tmp_path / "replay.json").read_text())
    assert facts == {
        "documents": 2,
        "tokens": 2 * len(rows[0]),
        "sampled": 10,
        "dropped": {"in another language": 4, "repetitive": 2, "too short": 2},
    }
    said = "2 of 10 documents kept; left out: 4 in another language, 2 repetitive, 2 too short"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"), [(FRENCH, "writes no English of its own accord"), (LOOP, "repeats itself in everything")]
)
def test_a_base_that_writes_nothing_of_use_is_an_error(
    text: str, sentence: str, writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sample", lambda *_, **__: samples(writer, text))
    with pytest.raises(ModelError, match=sentence):
        write(writer, tmp_path, tokens=1)


def test_documents_end_at_the_separator_and_at_the_length(writer: Path) -> None:
    model = load_model(writer, CPU)
    with torch.no_grad():
        favourite = int(model(input_ids=torch.tensor([[0]])).logits[0, -1].argmax())
    found = [
        document
        for seed in range(4)
        for document in sample(model, favourite, seed=seed, length=20, temperature=1.0, top_p=1.0)
    ]
    assert len(found) == 16
    assert all(favourite not in document for document in found)
    assert len({len(document) for document in found}) > 1
    assert max(map(len, found)) == 20


def test_the_base_samples_without_its_own_penalties(writer: Path) -> None:
    """A repetition penalty in generation_config.json is for chatting, not for remembering."""
    options: dict[str, Any] = {"seed": 1, "length": 30, "temperature": 1.0, "top_p": 1.0}
    plain = sample(load_model(writer, CPU), 0, **options)
    model = load_model(writer, CPU)
    model.generation_config.repetition_penalty = 9.0
    model.generation_config.no_repeat_ngram_size = 1
    assert sample(model, 0, **options) == plain


def test_a_low_temperature_writes_what_is_likeliest(writer: Path) -> None:
    model = load_model(writer, CPU)
    ids = [0]
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    expected = ids[1 : ids.index(0, 1)] if 0 in ids[1:] else ids[1:]
    assert sample(model, 0, seed=0, length=12, temperature=1e-4, top_p=1.0) == [expected] * 4
