"""Instruction tuning outside any recipe: `langgraft.tune`, `langgraft train --chat`, what is held out, going on."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chats import CHATML, sums, talk, with_template, write_rows
from command import langgraft
from pico import pico_writer
from quick import ONE_THREAD, QUICK
from transformers import AutoTokenizer

import langgraft as public
from langgraft.errors import CorpusError, InputError, Interrupted, RecipeError, TrainingError
from langgraft.progress import Log
from langgraft.serving.generate import chat_prompt
from langgraft.serving.hub import HubModel
from langgraft.store import sha256_file
from langgraft.tokenizer.template import template_of
from langgraft.training import continual
from langgraft.training.continual import Trained
from langgraft.training.loop import METRICS, Settings
from langgraft.training.modes import Lora, Phase
from langgraft.training.tuning import DEV, read_dev
from langgraft.training.turns import CHATML as OWN_CHATML

SETTINGS = replace(
    QUICK, length=96, batch_rows=4, learning_rate=5e-3, new_rows_learning_rate=5e-3, old_rows_learning_rate=5e-3,
    replay_ratio=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has read English and has no chat template."""
    return with_template(pico_writer(tmp_path_factory.mktemp("tuning") / "model", steps=40), None)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "chats.jsonl", sums(60))


def call(model: Path, rows: Path, out: Path, settings: Settings = SETTINGS, **options: Any) -> Trained:
    log = Log(out.parent / f"{out.name}.log", quiet=True)
    given = {"chats": [str(rows)], "settings": settings, "compute": ONE_THREAD, "log": log, "dev": 6, "epochs": 3}
    return public.tune(model, out, **{**given, **options})


@pytest.fixture(scope="module")
def tuned(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return call(model, rows, tmp_path_factory.mktemp("tuned") / "out")


def test_answers_are_learned_and_the_template_travels(tuned: Trained, model: Path) -> None:
    facts = tuned.as_dict()
    assert facts["chat"]["dev"] == 6
    assert facts["chat"]["documents"] == 54
    assert facts["chat"]["end"] == "<|im_end|>"
    assert facts["steps"] == -(-facts["chat"]["rows"] * 3 // 4)
    losses = [json.loads(line)["loss"] for line in (tuned.folder / METRICS).read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    assert template_of(model) is None
    assert template_of(tuned.model) == OWN_CHATML
    # What plain transformers and serving ask the written model with.
    question = talk("Ann has 1 coins. Who?")
    theirs = AutoTokenizer.from_pretrained(tuned.model).apply_chat_template(
        question, add_generation_prompt=True, return_dict=False
    )
    assert chat_prompt(HubModel(tuned.model), question) == list(theirs)
    log = (tuned.folder.parent / "out.log").read_text()
    assert "the model has no chat template, but the tokens of ChatML" in log
    assert "54 conversations with" in log


def test_the_same_call_again_trains_nothing(tuned: Trained, model: Path, rows: Path) -> None:
    before = sha256_file(tuned.model / "model.safetensors")
    assert call(model, rows, tuned.folder).as_dict() == tuned.as_dict()
    assert sha256_file(tuned.model / "model.safetensors") == before


def test_other_options_or_rows_are_refused(tuned: Trained, model: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"other settings \(epochs changed\)"):
        call(model, rows, tuned.folder, epochs=1)
    other = write_rows(tmp_path / "other.jsonl", sums(61))
    with pytest.raises(TrainingError, match=r"other settings \(sources, text changed\)"):
        call(model, other, tuned.folder)
    with pytest.raises(RecipeError, match="give --chat PATH"):
        call(model, rows, tmp_path / "out", chats=[])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("Dear")
    with pytest.raises(RecipeError, match="holds something else"):
        call(model, rows, tmp_path / "full")


def test_a_killed_tuning_goes_on_to_the_same_bits(
    tuned: Trained, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langgraft.training import loop

    real = loop._Run._advance

    def advance(run: Any, progress: Any) -> None:
        real(run, progress)
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_advance", advance)
        with pytest.raises(Interrupted, match="stopped at step 3"):
            call(model, rows, tmp_path / "out")
    done = call(model, rows, tmp_path / "out")
    assert sha256_file(done.model / "model.safetensors") == sha256_file(tuned.model / "model.safetensors")
    assert "train: going on from step 3" in (tmp_path / "out.log").read_text()


def test_questions_are_never_on_both_sides(model: Path, tmp_path: Path) -> None:
    """Rows with the same question go together, wherever they stand; so the split does not hang on their order."""
    rows = [{"messages": talk(f"Question {i % 20}?", f"Answer {i}.")} for i in range(60)]
    held = []
    for name, given in (("a", rows), ("b", rows[::-1])):
        write_rows(tmp_path / f"{name}.jsonl", given)
        done = call(model, tmp_path / f"{name}.jsonl", tmp_path / name, dev=0.2, epochs=1)
        held.append(sorted(chat.question for chat in read_dev(done.folder)))
        assert done.facts["chat"]["dev"] == 12
    assert held[0] == held[1]
    assert len(set(held[0])) == 4
    with pytest.raises(CorpusError, match="dev = 20 holds out all 20 different questions"):
        call(model, tmp_path / "a.jsonl", tmp_path / "c", dev=20)
    none = call(model, tmp_path / "a.jsonl", tmp_path / "d", dev=0, epochs=1)
    assert (none.folder / DEV).read_text() == ""


def test_only_what_can_be_measured_is_held_out(model: Path, tmp_path: Path) -> None:
    rows = [{"messages": talk("Go?", "Yes." if i % 2 else "")} for i in range(2)]
    rows += [{"messages": talk(f"Go {i}?", "Yes " * (200 if i % 2 else 1))} for i in range(20)]
    write_rows(tmp_path / "rows.jsonl", rows)
    done = call(model, tmp_path / "rows.jsonl", tmp_path / "out", dev=0.5, epochs=1)
    held = read_dev(done.folder)
    assert 1 <= done.facts["chat"]["dev"] == len(held) < 10
    assert {chat.messages[1]["content"] for chat in held} <= {"Yes.", "Yes "}


def test_lora_leaves_an_adapter_of_the_model_it_was_trained_on(model: Path, rows: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, phases=(Phase("lora"),), lora=Lora(rank=2))
    done = call(model, rows, tmp_path / "out", settings, epochs=1, template=_own(tmp_path))
    facts = json.loads((done.folder / "adapter" / "langgraft_adapter.json").read_text())
    assert facts["base"] == str(model)
    assert facts["first_row"] == facts["rows"]  # no row is new, so none learned
    assert template_of(done.folder / "adapter") == template_of(done.model) == CHATML
    assert json.loads((done.folder / "adapter" / "generation_config.json").read_text())["eos_token_id"]


def _own(folder: Path) -> Path:
    path = folder / "own.jinja"
    path.write_text(CHATML)
    return path


def test_a_system_prompt_is_read_by_all(model: Path, rows: Path, tmp_path: Path) -> None:
    done = call(model, rows, tmp_path / "out", system="Be brief.", epochs=1)
    assert {chat.messages[0]["content"] for chat in read_dev(done.folder)} == {"Be brief."}


def test_one_process_alone(model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="tuning by --chat is for one process"):
        continual.tune(model, tmp_path / "out", chats=[str(rows)])


def test_the_command(model: Path, rows: Path, tmp_path: Path) -> None:
    """Trains, measures what was held out before and after, and says so; a second time nothing is done again."""
    out = tmp_path / "out"
    short = ["--sequence-length", "96", "--batch-tokens", "384", "--learning-rate", "5e-3", "--epochs", "3"]
    given = ["train", "--model", model, "--chat", rows, "-o", out, *short, "--threads", "1", "--language", "en"]
    done = langgraft(*given, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    bits = found["answers"]["bits_per_byte"]
    assert bits["models"]["after"]["mean"] < bits["models"]["before"]["mean"]
    assert bits["better"] == "lower"
    assert "bits per byte of answers:" in done.err
    assert (out / "answers.json").is_file()
    assert template_of(out / "model") is not None
    before = (out / "answers.json").stat().st_mtime_ns
    again = langgraft(*given, "--json")
    assert json.loads(again.out) == found
    assert (out / "answers.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--chat", "a", "--corpus", "b"], "--corpus does not go with --chat"),
        (["--chat", "a", "--replay", "self"], "--replay does not go with --chat"),
        (["--chat", "a", "--tokens", "9"], "--tokens does not go with --chat"),
        (["--chat", "a", "--retention-every", "9"], "--retention-every does not go with --chat"),
        (["--corpus", "a", "--epochs", "2"], "--epochs does not go without --chat"),
        (["--corpus", "a", "--system", "x"], "--system does not go without --chat"),
        ([], "train needs text: give --corpus PATH"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], sentence: str, model: Path, tmp_path: Path) -> None:
    done = langgraft("train", "--model", model, "-o", tmp_path / "out", *options)
    assert done.code == 2
    assert sentence in done.sentence()


def test_a_template_that_cannot_be_learned_with(pico: Path, rows: Path, tmp_path: Path) -> None:
    """The pico model's own ignores add_generation_prompt."""
    shutil.copytree(pico, tmp_path / "model")
    with pytest.raises(InputError, match="ignores add_generation_prompt"):
        call(tmp_path / "model", rows, tmp_path / "out")
