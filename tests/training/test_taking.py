"""A checkpoint's model is the model that the training had then, whatever learned."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Finished, langgraft, leftovers
from quick import ONE_THREAD, QUICK
from torch import Tensor

from langgraft.errors import TrainingError
from langgraft.progress import Log
from langgraft.store import TEMPORARY, read_json, sha256_file, write_json
from langgraft.training.adapter import load_adapter
from langgraft.training.device import load_model
from langgraft.training.loop import Settings, train
from langgraft.training.modes import Lora, Phase
from langgraft.training.taking import SOURCE, place_of, take_checkpoint

OLD = 300
IDS = torch.tensor([[5, 17, 301, 2, 88, 310]])
MODES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"phases": (Phase("lora"),), "lora": Lora(rank=4, dropout=0.1)},
    "new_rows": {"phases": (Phase("new_rows"),)},
    "after lora": {"phases": (Phase("lora", 0.5), Phase("full", 0.5)), "lora": Lora(rank=4)},
    "average": {"ema_decay": 0.9},
}


@pytest.fixture(scope="module")
def data(pico: Path, target: Path, replay: Path) -> dict[str, Any]:
    return {"target": target, "replay": replay, "old_rows": OLD, "base": str(pico)}


def logits(model: Any) -> Tensor:
    was_training = model.training
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=IDS).logits
    model.train(was_training)
    return found


def trained(pico: Path, data: dict[str, Any], out: Path, settings: Settings) -> dict[int, Tensor]:
    """Train; returns what the model said after each step."""
    said: dict[int, Tensor] = {}
    train(
        pico, out, **data, settings=settings, compute=ONE_THREAD, log=Log(out / "log.txt", quiet=True),
        after_step=lambda step, model: said.update({step: logits(model)}),
    )  # fmt: skip
    return said


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_model_of_that_step(mode: str, pico: Path, data: dict[str, Any], tmp_path: Path) -> None:
    said = trained(pico, data, tmp_path / "run", replace(QUICK, **MODES[mode]))
    for step, name in ((2, "run@2"), (4, "run"), (4, "run/checkpoints/step-000004")):
        shutil.rmtree(tmp_path / "taken", ignore_errors=True)
        assert take_checkpoint(str(tmp_path / name), tmp_path / "taken") == step
        found = logits(load_model(tmp_path / "taken" / "model", torch.device("cpu")))
        if mode == "average":  # the mean of the weights, and not those of the step
            assert not torch.allclose(found, said[step], atol=1e-3)
        else:
            torch.testing.assert_close(found, said[step], atol=1e-5, rtol=1e-5)
    assert (tmp_path / "taken" / "adapter").is_dir() == (mode in ("lora", "new_rows"))
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "taken" / "model" / name).read_bytes() == (pico / name).read_bytes()


def test_the_average_is_that_of_the_training(pico: Path, data: dict[str, Any], tmp_path: Path) -> None:
    """Taken with the rule of average.py, from the weights after each step."""
    means: dict[str, Tensor] = {}

    def note(step: int, model: Any) -> None:
        for name, value in model.state_dict().items():
            if step == 1:
                means[name] = start[name].clone()
            if step <= 4:
                means[name].lerp_(value, 1 - min(0.9, (1 + step) / (10 + step)))

    start = load_model(pico, torch.device("cpu")).state_dict()
    settings = replace(QUICK, ema_decay=0.9)
    train(pico, tmp_path, **data, settings=settings, compute=ONE_THREAD, log=Log(quiet=True), after_step=note)
    take_checkpoint(f"{tmp_path}@4", tmp_path / "taken")
    found = load_model(tmp_path / "taken" / "model", torch.device("cpu")).state_dict()
    for name, value in found.items():
        torch.testing.assert_close(value, means[name], atol=1e-6, rtol=1e-5)


def test_an_adapter_of_a_checkpoint_and_merged(pico: Path, data: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = trained(pico, data, run, replace(QUICK, **MODES["lora"]))
    for to in ("adapter", "merged", "hf"):
        done = langgraft("export", "--checkpoint", f"{run}@2", "--to", to, "-o", tmp_path / to)
        assert done.code == 0, done.err
        assert "took step 2 of 6" in done.err
    loaded = load_adapter(tmp_path / "adapter", pico, merge=True)
    models = (loaded, *(load_model(tmp_path / to, torch.device("cpu")) for to in ("merged", "hf")))
    for model in models:
        torch.testing.assert_close(logits(model), said[2], atol=1e-5, rtol=1e-5)
    assert not leftovers(tmp_path)


def test_a_stage_of_a_run_is_exported_and_answers(finished: Finished, tmp_path: Path) -> None:
    stage, out = finished.stage("pretrain"), tmp_path / "model"
    before = {path: sha256_file(path) for path in stage.rglob("*") if path.is_file()}
    done = langgraft("export", "--checkpoint", f"{stage}@8", "-o", out, "--json")
    assert done.code == 0, done.err
    assert all(gate["passed"] for gate in json.loads(done.out)["gates"])
    assert sha256_file(out / "model.safetensors") != finished.weights()
    assert {path: sha256_file(path) for path in stage.rglob("*") if path.is_file()} == before
    (tmp_path / "questions.jsonl").write_text('{"text": "我今日"}\n', encoding="utf-8")
    asked = langgraft("infer", out, tmp_path / "questions.jsonl", "-o", tmp_path / "answers", "--max-tokens", 4)
    assert asked.code == 0, asked.err
    assert json.loads((tmp_path / "answers" / "questions.jsonl").read_text(encoding="utf-8"))["tokens"]


def test_a_full_run_has_no_adapter(finished: Finished, tmp_path: Path) -> None:
    done = langgraft("export", "--checkpoint", finished.stage("pretrain"), "--to", "adapter", "-o", tmp_path / "out")
    assert done.code == 2
    assert "more than an adapter can hold; use --to hf" in done.sentence()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(pico: Path, data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    trained(pico, data, out, QUICK)
    return out


def test_what_cannot_be_taken(run: Path, tmp_path: Path) -> None:
    def refusal(name: Path | str) -> str:
        with pytest.raises(TrainingError) as caught:
            take_checkpoint(str(name), tmp_path / "taken")
        return str(caught.value)

    assert "holds no checkpoints" in refusal(tmp_path)
    assert "holds no checkpoints" in refusal(tmp_path / "nothing@3")
    assert "no checkpoint of step 3; there are 2, 4" in refusal(f"{run}@3")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    found = read_json(run / SOURCE)
    write_json(copy / SOURCE, {**found, "model": "../gone"})
    assert "is gone; put it back" in refusal(copy)
    write_json(copy / SOURCE, {"model": "."})
    assert f"{SOURCE} is damaged" in refusal(copy)
    (copy / SOURCE).unlink()
    assert f"has no {SOURCE}" in refusal(copy)
    write_json(copy / SOURCE, {**found, "model": str((run / found["model"]).resolve())})
    weights = copy / "checkpoints" / "step-000004" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert "step 4 is damaged (model.pt is missing or cut short)" in refusal(f"{copy}@4")
    half_written = copy / "checkpoints" / f"{TEMPORARY}step-000006"
    half_written.mkdir()
    assert take_checkpoint(str(copy), tmp_path / "taken") == 2, "the newest that is whole"
    assert half_written.is_dir(), "the training may be writing it"
    (copy / "checkpoints" / "step-000002" / "model.pt").unlink()
    assert "every checkpoint there is damaged" in refusal(copy)
    assert not (tmp_path / "taken" / "adapter").exists()


def test_places(run: Path) -> None:
    assert place_of(f"{run}@4") == (run, 4)
    assert place_of(str(run)) == (run, None)
    odd = run.with_name("a@2")
    shutil.copytree(run, odd)
    assert place_of(f"{odd}@2") == (odd, 2)


def test_options_that_do_not_go_together(run: Path, pico: Path, tmp_path: Path) -> None:
    both = langgraft("export", "--checkpoint", run, "--model", pico, "-o", tmp_path / "out")
    assert (both.code, both.sentence()) == (2, "give either --model or --checkpoint")
    text = langgraft("export", "--checkpoint", run, "--to", "nemo-data", "--corpus", "a", "-o", tmp_path / "out")
    assert text.code == 2
    assert "nemo-data takes --tokenizer" in text.sentence()
    none = langgraft("export", "--to", "hf", "-o", tmp_path / "out")
    assert "needs a model: give --model FOLDER, or --checkpoint FOLDER" in none.sentence()
