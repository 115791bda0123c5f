"""`langgraft train` and `langgraft.train`: text in, model out, the same call goes on, other options are refused."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import langgraft, process
from pico import ENGLISH, pico_model, pico_writer, sentences
from quick import ONE_THREAD, QUICK
from safetensors.torch import load_file

import langgraft as public
from langgraft.errors import Interrupted, ModelError, RecipeError, TrainingError
from langgraft.progress import Log
from langgraft.store import sha256_file
from langgraft.surgery.resize import resize
from langgraft.text import language
from langgraft.tokenizer.extend import extend
from langgraft.training import loop
from langgraft.training.continual import Trained, train
from langgraft.training.guidance import size_advice
from langgraft.training.held_out import Watching
from langgraft.training.loop import METRICS

SETTINGS = replace(QUICK, steps=1, length=32, batch_rows=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has read English, the same extended by Cantonese, and text of both."""
    folder = tmp_path_factory.mktemp("world")
    pico_writer(folder / "base", steps=40)
    texts = sentences(120)
    extend(folder / "base", texts, folder / "tokenizer", language=language("yue"), new_tokens=30, min_frequency=2)
    resize(folder / "base", folder / "tokenizer", folder / "model")
    (folder / "yue.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (folder / "en.txt").write_text("\n".join(t.replace("\n", " ") for t in ENGLISH * 3) + "\n", encoding="utf-8")
    more = [f"{text} And {number} more." for number in range(9) for text in ENGLISH]
    (folder / "more.txt").write_text("\n".join(t.replace("\n", " ") for t in more) + "\n", encoding="utf-8")
    return folder


def call(world: Path, out: Path, **options: Any) -> Trained:
    given = {"base": world / "base", "language": "yue", "replay": [str(world / "en.txt")], "settings": SETTINGS,
             "compute": ONE_THREAD, "log": Log(out.parent / f"{out.name}.log", quiet=True)}  # fmt: skip
    return train(world / "model", out, corpus=[str(world / "yue.txt")], **{**given, **options})


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


def test_the_text_is_read_once_with_replay_beside_it(world: Path, tmp_path: Path) -> None:
    done = call(world, tmp_path / "out")
    facts = done.as_dict()
    packed = json.loads((done.folder / "packed" / "target" / "packed.json").read_text())
    places = packed["tokens"] + packed["documents"]
    assert facts["steps"] == -(-places * 4 // 3 // 128) or facts["steps"] == -(-places * 4 // 3 // 128) + 1
    assert facts["replay_ratio"] == 0.25
    assert facts["corpus_tokens"] == packed["tokens"]
    assert lines(done.folder)[-1]["loss"] < lines(done.folder)[0]["loss"]
    assert (done.model / "tokenizer.json").read_bytes() == (world / "model" / "tokenizer.json").read_bytes()
    assert "teach a model the look of a language" in (tmp_path / "out.log").read_text()
    # Called again, nothing is trained again.
    before = sha256_file(done.model / "model.safetensors")
    assert call(world, tmp_path / "out").as_dict() == facts
    assert sha256_file(done.model / "model.safetensors") == before
    assert public.train is train


def test_it_goes_on_to_the_same_bits_and_refuses_other_options(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = call(world, tmp_path / "whole", tokens=6 * 128)
    step = loop._Run._step

    def stepping(self: Any) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_step", stepping)
        with pytest.raises(Interrupted):
            call(world, tmp_path / "cut", tokens=6 * 128)
    with pytest.raises(TrainingError, match=r"belongs to a training with other settings \(learning_rate changed\)"):
        call(world, tmp_path / "cut", tokens=6 * 128, settings=replace(SETTINGS, learning_rate=1e-3))
    cut = call(world, tmp_path / "cut", tokens=6 * 128)
    assert sha256_file(cut.model / "model.safetensors") == sha256_file(whole.model / "model.safetensors")
    assert len(lines(cut.folder)) == 6


def test_changed_text_is_another_training(world: Path, tmp_path: Path) -> None:
    text = tmp_path / "some.txt"
    shutil.copyfile(world / "yue.txt", text)
    train(world / "model", tmp_path / "out", corpus=[str(text)], tokens=128, settings=SETTINGS, compute=ONE_THREAD,
          log=Log(quiet=True))  # fmt: skip
    text.write_text("我哋今日去邊度食飯呀？\n" * 9, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"other settings \(text changed\)"):
        train(world / "model", tmp_path / "out", corpus=[str(text)], tokens=128, settings=SETTINGS,
              compute=ONE_THREAD, log=Log(quiet=True))  # fmt: skip


def test_the_base_writes_replay_and_old_rows_hold(world: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, old_rows_learning_rate=0.0)
    done = call(world, tmp_path / "out", replay=["self"], tokens=3 * 128, settings=settings)
    assert (done.folder / "replay" / "replay.jsonl").is_file()
    assert done.facts["replay_ratio"] == 0.25
    before, after = (
        load_file(f / "model.safetensors")["model.embed_tokens.weight"] for f in (world / "model", done.model)
    )
    first = len(json.loads((world / "base" / "tokenizer.json").read_text())["model"]["vocab"])
    assert (before[:first] == after[:first]).all()
    assert not (before[first:] == after[first:]).all()


def test_without_a_base_the_model_as_it_starts_teaches(world: Path, tmp_path: Path) -> None:
    done = call(world, tmp_path / "out", base=None, tokens=2 * 128)
    assert done.facts["steps"] == 2


WATCHING = Watching(2, source_bits_per_byte=None, in_context=None, documents=4, items=8, max_new_tokens=4)


def test_held_out_documents_are_measured_and_not_learned(world: Path, tmp_path: Path) -> None:
    replay = [str(world / "more.txt")]
    plain = call(world, tmp_path / "plain", replay=replay, tokens=4 * 128)
    done = call(world, tmp_path / "out", replay=replay, tokens=4 * 128, watching=WATCHING)
    rows = [json.loads(line) for line in (done.folder / "retention.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert done.facts["retention"]["values"] == rows[-1]["values"]
    assert rows[-1]["values"]["target_bits_per_byte"] < rows[0]["values"]["target_bits_per_byte"]
    assert "held out 4 documents of the text, 4 of replay" in (tmp_path / "out.log").read_text()
    for side in ("target", "replay"):
        all_of_it, learned = (
            json.loads((made.folder / "packed" / side / "packed.json").read_text())["documents"]
            for made in (plain, done)
        )
        assert learned == all_of_it - 4
    with pytest.raises(TrainingError, match=r"other settings \(watching changed\)"):
        call(world, tmp_path / "out", replay=replay, tokens=4 * 128)


def test_a_broken_bound_stops_it(world: Path, tmp_path: Path) -> None:
    fast = replace(SETTINGS, learning_rate=0.5, replay_ratio=0.1)
    watching = replace(WATCHING, source_bits_per_byte=0.01)
    done = call(world, tmp_path / "out", base=None, replay=[str(world / "more.txt")], tokens=8 * 128, settings=fast,
                watching=watching)  # fmt: skip
    assert done.facts["retention"]["stopped"]["at"] == 2
    assert "English bits per byte rose by" in done.facts["retention"]["stopped"]["why"]


def test_what_cannot_be_is_said(world: Path, tmp_path: Path) -> None:
    for replay in ((), ("self",)):
        with pytest.raises(RecipeError, match="--retention-every measures on text of the source language too"):
            call(world, tmp_path / "out", replay=replay, watching=WATCHING)
    with pytest.raises(RecipeError, match="either self or paths"):
        call(world, tmp_path / "out", replay=["self", "x.txt"])
    with pytest.raises(RecipeError, match="choose distill or text"):
        call(world, tmp_path / "out", replay_loss="kl")
    with pytest.raises(RecipeError, match="give --corpus"):
        train(world / "model", tmp_path / "out", corpus=[])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RecipeError, match="holds something else"):
        call(world, tmp_path / "mine")
    pico_model(tmp_path / "small")
    with pytest.raises(ModelError, match="name its own base"):
        train(tmp_path / "small", tmp_path / "out", corpus=[str(world / "yue.txt")], base=world / "model")


def test_the_command(world: Path, tmp_path: Path) -> None:
    given = ["train", "--model", str(world / "model"),
             "--base", str(world / "base"), "--corpus", str(world / "yue.txt"),
             "--replay", str(world / "en.txt"), "-o", str(tmp_path / "out"), "--sequence-length", "32",
             "--tokens", "256", "--threads", "1", "--optimizer", "muon", "--mode", "full"]  # fmt: skip
    done = langgraft(*given, "--batch-tokens", "128", "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["steps"], summary["tokens"]) == (2, 256)
    assert Path(summary["model"], "model.safetensors").is_file()
    wrong = langgraft(*given, "--batch-tokens", "100")
    assert wrong.code == 2
    assert "--batch-tokens (100) must be a multiple of --sequence-length (32)" in wrong.err


def test_the_command_in_two_processes(world: Path, tmp_path: Path) -> None:
    """Every process gets the same command; what is written, said and measured is that of one."""
    given = ["train", "--model", world / "model", "--base", world / "base", "--corpus", world / "yue.txt",
             "--replay", world / "more.txt", "--sequence-length", 32, "--batch-tokens", 128, "--tokens", 512,
             "--language", "yue", "--threads", 1, "--device", "cpu", "--retention-every", 2,
             "--retention-documents", 4, "--source-bits-per-byte", 0, "--in-context", 0, "--json"]  # fmt: skip
    torchrun = ["--standalone", "--nproc-per-node", "2", "-m", "langgraft"]
    done = process(*torchrun, *given, "-o", tmp_path / "two", script="torch.distributed.run")
    assert done.code == 0, done.err[-4000:]
    assert json.loads(done.out)["steps"] == 4
    assert done.err.count("2 processes (2 FSDP)") == 1
    assert langgraft(*given, "-o", tmp_path / "one").code == 0
    for one, two in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
    values = [
        [json.loads(line)["values"] for line in (tmp_path / name / "retention.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [pytest.approx(row, abs=1e-5) for row in values[0]] == values[1]
    wrong = langgraft(*given, "-o", tmp_path / "one", "--on-breach", "halt")
    assert "--on-breach halt is unknown; choose stop or rollback" in wrong.err


@pytest.mark.parametrize(
    ("tokens", "says"),
    [(99_999, "the look of a language"), (100_000, "a proof of concept"), (9_999_999, "at most four times")],
)
def test_small_corpora_are_told_what_they_are(tokens: int, says: str) -> None:
    assert says in str(size_advice(tokens))
    assert f"{tokens:,}" in str(size_advice(tokens))
    assert size_advice(10_000_000) is None
