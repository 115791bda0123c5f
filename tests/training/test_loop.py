"""The loop learns, stops, resumes to the same bits, and refuses what is not a number."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import ONE_THREAD, QUICK
from safetensors.torch import load_file, save_file

from langgraft.errors import DiskFullError, Interrupted, RecipeError, TrainingError
from langgraft.progress import Log
from langgraft.store import sha256_file
from langgraft.training import checkpoint, loop
from langgraft.training.checkpoint import MANIFEST
from langgraft.training.loop import METRICS, Compute, Settings, train
from langgraft.training.packing import Packed
from langgraft.training.saving import Saving

OLD = 300
CHILD = Path(__file__).with_name("loop_child.py")


@pytest.fixture(scope="module")
def data(pico: Path, target: Path, replay: Path) -> dict[str, Any]:
    """What every run here trains on."""
    return {"model": pico, "target": target, "replay": replay, "old_rows": OLD}


def run(
    data: dict[str, Any], out: Path, settings: Settings = QUICK, compute: Compute = ONE_THREAD, **options: Any
) -> dict[str, Any]:
    rest = {key: value for key, value in data.items() if key != "model"} | options
    return train(data["model"], out, **rest, settings=settings, compute=compute, log=Log(out / "log.txt", quiet=True))


@pytest.fixture(scope="module")
def whole(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An uninterrupted run and its summary."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(data, out)


def bits(out: Path) -> str:
    return sha256_file(out / "model" / "model.safetensors")


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


def assert_same(out: Path, whole: Path) -> None:
    """The same weights, and one line of metrics per step with the same losses."""
    assert bits(out) == bits(whole)
    ours, theirs = metrics(out), metrics(whole)
    assert [m["step"] for m in ours] == [1, 2, 3, 4, 5, 6]
    assert [m["loss"] for m in ours] == [m["loss"] for m in theirs]
    assert not list(out.rglob(".tmp-*"))


def crash(data: dict[str, Any], out: Path, how: str) -> None:
    """Train in a process that kills itself."""
    out.mkdir()
    job = {**{k: str(v) for k, v in data.items()}, "old_rows": OLD, "out": str(out), "crash": how}
    job |= {"settings": asdict(QUICK), "compute": asdict(ONE_THREAD)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHILD), json.dumps(job)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert not (out / "model").exists()


def test_loss_falls_and_the_summary_adds_up(whole: tuple[Path, dict[str, Any]], data: dict[str, Any]) -> None:
    out, summary = whole
    lines = metrics(out)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    assert summary["steps"] == 6
    assert summary["tokens"] == 6 * 3 * 32 == lines[-1]["tokens"]
    assert summary["last_loss"] == lines[-1]["loss"]
    # A quarter of 18 rows: 4 of replay, and 14 of target.
    assert summary["target_bytes"] == round(14 * 32 * Packed(data["target"], length=8, seed=0).bytes_per_place)
    assert {
        "loss",
        "gradient_norm",
        "learning_rate",
        "tokens_per_second",
        "seconds",
        "mfu",
        "peak_memory_bytes",
    } <= lines[0].keys()
    assert max(m["learning_rate"] for m in lines) == QUICK.learning_rate
    # Everything but the weights travels unchanged, and the folder loads.
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (out / "model" / name).read_bytes() == (data["model"] / name).read_bytes()
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-000002", "step-000004"]


@pytest.mark.parametrize("how", ["step 1", "step 3", "write 4", "rename 2", "model"])
def test_killed_and_started_again_gives_the_same_bits(
    how: str, data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    crash(data, tmp_path / "run", how)
    summary = run(data, tmp_path / "run")
    assert_same(tmp_path / "run", whole[0])
    assert summary["last_loss"] == whole[1]["last_loss"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_after_a_whole_step_and_resumes(
    number: signal.Signals,
    data: dict[str, Any],
    tmp_path: Path,
    whole: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = loop._Run._step

    def stepping(self: Any) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), number)
        return step(self)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_step", stepping)
        with pytest.raises(Interrupted, match=f"stopped at step 3 by {number.name}; run the same command to go on"):
            run(data, tmp_path)
    assert signal.getsignal(number) is before
    assert (tmp_path / "checkpoints" / "step-000003").is_dir()
    assert not (tmp_path / "model").exists()
    run(data, tmp_path)
    assert_same(tmp_path, whole[0])
    assert "going on from step 3 of 6" in (tmp_path / "log.txt").read_text()


def test_a_signal_in_the_last_step_lets_the_run_finish(
    data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._Run._step

    def stepping(self: Any) -> Any:
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(loop._Run, "_step", stepping)
    run(data, tmp_path)
    assert_same(tmp_path, whole[0])
    # Called again with nothing left to do, the summary still knows the last loss.
    assert run(data, tmp_path)["last_loss"] == whole[1]["last_loss"]
    assert_same(tmp_path, whole[0])


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    shutil.copyfile(whole[0] / METRICS, tmp_path / METRICS)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 7, "lo')  # what a kill in mid-write leaves
    (tmp_path / "checkpoints" / "step-000004" / "optimizer.pt").write_bytes(b"no")
    run(data, tmp_path)
    assert_same(tmp_path, whole[0])
    assert "step-000004 is damaged" in (tmp_path / "log.txt").read_text()


FILES = ["model.pt", "optimizer.pt", "progress.json", "settings.json", MANIFEST]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["deleted", "truncated", "flipped"])
def test_any_damage_to_any_file_is_found_said_and_stepped_over(
    file: str, damage: str, tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    shutil.copyfile(whole[0] / METRICS, tmp_path / METRICS)
    assert {found.name for found in (tmp_path / "checkpoints" / "step-000004").iterdir()} == set(FILES)
    saving = Saving(tmp_path, asdict(QUICK), keep=2, log=Log(tmp_path / "log.txt", quiet=True))
    found = saving.newest()
    assert found is not None
    assert found[0] == 4
    broken = tmp_path / "checkpoints" / "step-000004" / file
    content = broken.read_bytes()
    middle = content.index(b"sha256") if file == MANIFEST else len(content) // 2
    if damage == "deleted":
        broken.unlink()
    elif damage == "truncated":
        broken.write_bytes(content[:-1])
    else:
        broken.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    found = saving.newest()
    assert found is not None
    assert found[0] == 2
    assert "checkpoint step-000004 is damaged" in (tmp_path / "log.txt").read_text()
    (tmp_path / "checkpoints" / "step-000002" / file).write_bytes(b"")
    with pytest.raises(TrainingError, match=r"every checkpoint in .* is damaged; delete that folder"):
        saving.newest()


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def test_checkpoints_in_the_background_are_the_same(
    data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is slower than the steps, and still writes the tensors of its own step."""
    real = checkpoint.save

    def slow(*args: Any, **options: Any) -> Path:
        time.sleep(0.3)
        return real(*args, **options)

    monkeypatch.setattr(checkpoint, "save", slow)
    run(data, tmp_path, compute=replace(ONE_THREAD, async_checkpoints=True))
    assert_same(tmp_path, whole[0])
    for name in ("step-000002", "step-000004"):
        ours, theirs = (checkpoint.load(out / "checkpoints", int(name[5:])) for out in (tmp_path, whole[0]))
        for part in ("model", "optimizer"):
            assert same(ours[part], theirs[part])
        sizes = [(out / "checkpoints" / name / "model.pt").stat().st_size for out in (tmp_path, whole[0])]
        assert abs(sizes[0] - sizes[1]) < 4096  # a tied head is written once


@pytest.mark.parametrize("step", [2, 4])
def test_a_failure_in_the_background_is_told(
    step: int, data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next save, or at the end of training: the last checkpoint has none after it."""
    real = checkpoint.save

    def full(folder: Path, number: int, *args: Any, **options: Any) -> Path:
        if number == step:
            raise DiskFullError("no space left")
        return real(folder, number, *args, **options)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(DiskFullError, match="no space left"):
        run(data, tmp_path, compute=replace(ONE_THREAD, async_checkpoints=True))
    assert not (tmp_path / "model").exists()


def test_killed_in_writes_and_at_random_times_gives_the_same_bits() -> None:
    """The benchmark's own fifty kills, six of them here."""
    script = Path(__file__).parents[2] / "benchmarks" / "kill_training.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "6"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "same in every run" in done.stdout


def test_metrics_of_an_earlier_start_without_checkpoint_are_dropped(
    data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    (tmp_path / METRICS).write_text('{"step": 1}\n')
    run(data, tmp_path)
    assert_same(tmp_path, whole[0])


def test_checkpoints_of_other_settings_are_refused(
    data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(TrainingError, match=r"other settings \(learning_rate 0\.01 -> 0\.003\); use those settings"):
        run(data, tmp_path, replace(QUICK, learning_rate=3e-3))
    assert not (tmp_path / "model").exists()


def test_micro_batches_change_rounding_only(
    data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    run(data, tmp_path, compute=replace(ONE_THREAD, micro_rows=1))
    ours, theirs = (load_file(out / "model" / "model.safetensors") for out in (tmp_path, whole[0]))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


def test_dropout_does_not_break_resume(data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    shutil.copytree(data["model"], model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.2}))
    data = {**data, "model": model}
    run(data, tmp_path / "whole")
    step = loop._Run._step

    def stepping(self: Any) -> Any:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_step", stepping)
        with pytest.raises(Interrupted):
            run(data, tmp_path / "cut")
    torch.rand(7)
    run(data, tmp_path / "cut")
    assert_same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_a_number_stops_the_run_and_leaves_nothing(
    value: float, data: dict[str, Any], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(data["model"], model)
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = value
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=r"at step 1 are not finite; nothing of this step was kept: lower the"):
        run({**data, "model": model}, out)
    assert not (out / "model").exists()
    assert not (out / METRICS).exists()
    assert list((out / "checkpoints").iterdir()) == []


def test_a_gradient_that_is_not_a_number_stops_within_the_step(
    data: dict[str, Any], tmp_path: Path, whole: tuple[Path, dict[str, Any]]
) -> None:
    """Planted after step 3: step 4 stops, and the weights, the metrics and the checkpoint are those of step 3."""
    seen: list[dict[str, torch.Tensor]] = []

    def plant(step: int, model: Any) -> None:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        if step == 3:
            model.model.norm.weight.register_hook(lambda gradient: gradient * math.nan)
            seen.append(model.state_dict())

    with pytest.raises(TrainingError, match="gradient norm nan at step 4 are not finite; nothing of this step was"):
        run(data, tmp_path, after_step=plant)
    for name, tensor in seen[-1].items():  # the model itself
        assert torch.equal(tensor, seen[-2][name])
        assert bool(tensor.isfinite().all())
    assert [m["step"] for m in metrics(tmp_path)] == [1, 2, 3]
    found = checkpoint.load_latest(tmp_path / "checkpoints", Log(quiet=True))
    assert found is not None
    assert found[0] == 3
    assert all(torch.equal(tensor, seen[-2][name]) for name, tensor in found[1]["model"].items())
    run(data, tmp_path)  # without the fault, the same command goes on
    assert_same(tmp_path, whole[0])


def test_weights_that_are_not_numbers_are_never_saved(data: dict[str, Any], tmp_path: Path) -> None:
    def plant(step: int, model: Any) -> None:
        if step == 4:  # as a step that overflows would leave them: the gradients before it were finite
            model.model.norm.weight.data[0] = math.inf

    with pytest.raises(TrainingError, match="weights are not finite after step 4, and were not saved; lower the"):
        run(data, tmp_path, after_step=plant)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]
    with pytest.raises(TrainingError, match="at step 5 are not finite"):
        run(data, tmp_path, compute=replace(ONE_THREAD, checkpoint_every=100), after_step=plant)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]


def test_bfloat16_runs_and_learns(data: dict[str, Any], tmp_path: Path) -> None:
    summary = run(data, tmp_path, compute=replace(ONE_THREAD, dtype="bfloat16"))
    lines = metrics(tmp_path)
    assert summary["dtype"] == "bfloat16"
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    assert {t.dtype for t in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}


def test_old_rows_with_rate_zero_stay_and_no_replay_is_fine(data: dict[str, Any], tmp_path: Path) -> None:
    settings = replace(QUICK, steps=2, old_rows_learning_rate=0.0)
    summary = run({**data, "replay": None}, tmp_path, settings)
    assert summary["replay_ratio"] == 0.0
    name = "model.embed_tokens.weight"
    before = load_file(data["model"] / "model.safetensors")[name]
    after = load_file(tmp_path / "model" / "model.safetensors")[name]
    assert torch.equal(before[:OLD], after[:OLD])
    assert not torch.equal(before[OLD:], after[OLD:])


@pytest.mark.parametrize(("old", "new"), [(2e-3, 1e-3), (-1e-4, 1e-3), (0.0, 0.0)])
def test_rates_of_rows_that_do_not_fit_are_refused(
    old: float, new: float, data: dict[str, Any], tmp_path: Path
) -> None:
    settings = replace(QUICK, old_rows_learning_rate=old, new_rows_learning_rate=new)
    with pytest.raises(RecipeError, match=r"pretrain\.old_rows_learning_rate .* must be between 0 and"):
        run(data, tmp_path, settings)


def test_training_in_a_thread_leaves_signals_alone(data: dict[str, Any], tmp_path: Path) -> None:
    found: list[Any] = []
    settings = replace(QUICK, steps=1)
    thread = threading.Thread(target=lambda: found.append(run(data, tmp_path, settings)))
    thread.start()
    thread.join()
    assert found[0]["steps"] == 1
