"""The watch in the loop: what it decides, that it leaves no trace in the bits, and that every decision resumes."""

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drift import drift as drift_of
from quick import ONE_THREAD, QUICK

from langgraft.errors import Interrupted, RecipeError, TrainingError
from langgraft.progress import Log
from langgraft.training import checkpoint
from langgraft.training import retention as module
from langgraft.training.device import load_model
from langgraft.training.loop import Settings, train
from langgraft.training.modes import Lora, Phase
from langgraft.training.retention import Measurement, Retention

STEPS = replace(QUICK, steps=8)
Measure = Callable[[Any], Measurement]


@pytest.fixture(scope="module")
def run(pico: Path, target: Path, replay: Path) -> Callable[..., dict[str, Any]]:
    """Train with a watch; `settings`, `after_step` and the fields of `Retention` may be given."""

    def go(out: Path, retention: Retention | None, settings: Settings = STEPS, **more: Any) -> dict[str, Any]:
        options = {"replay": replay, "compute": ONE_THREAD, "log": Log(out / "log.txt", quiet=True), **more}
        return train(pico, out, target=target, old_rows=380, settings=settings, retention=retention, **options)

    return go


@pytest.fixture(scope="module")
def drift(pico: Path) -> Callable[..., Measure]:
    """A measure by how far the weights moved: that is the gain, and above a bound it is too much."""
    return functools.partial(drift_of, pico)


def module_device() -> Any:
    import torch

    return torch.device("cpu")


def digest(out: Path) -> str:
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


def digest_of(folder: Path) -> dict[str, str]:
    """The hash of every tensor of the model that was written."""
    return hashes(load_model(folder / "model", module_device()))


def hashes(model: Any) -> dict[str, str]:
    return {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in model.state_dict().items()}


def weights_at(run: Callable[..., Any], step: int, out: Path, settings: Settings = STEPS) -> dict[str, str]:
    """The hash of every tensor after a step of a run that nobody watches."""
    found: dict[int, dict[str, str]] = {}
    run(out, None, settings, after_step=lambda at, model: found.update({at: hashes(model)}))
    return found[step]


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "retention.jsonl").read_text().splitlines()]


def steps_of(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def said(out: Path) -> str:
    return (out / "log.txt").read_text(encoding="utf-8")


def test_measured_at_the_start_every_few_steps_and_at_the_end(run: Any, drift: Any, tmp_path: Path) -> None:
    summary = run(tmp_path, Retention(drift(), every=3))
    assert [row["step"] for row in records(tmp_path)] == [0, 3, 6, 8]
    facts = summary["retention"]
    assert (facts["measurements"], facts["result_step"], facts["stopped"], facts["rollbacks"]) == (4, 8, None, [])
    assert facts["values"] == records(tmp_path)[-1]["values"]
    assert "retention, step 6: " in said(tmp_path)


LORA = (Phase("lora"),)


@pytest.mark.parametrize(
    "settings",
    [
        STEPS,
        replace(STEPS, phases=LORA, lora=Lora(rank=2, alpha=4, dropout=0.5)),
        replace(STEPS, ema_decay=0.9),
    ],
    ids=["full", "dropout", "average"],
)
def test_measuring_changes_no_bit(settings: Settings, run: Any, tmp_path: Path) -> None:
    """Random numbers, training mode, weights and the average are what they were, whatever a measure does."""
    import torch

    seen: list[tuple[bool, Any]] = []

    def measure(model: Any) -> Measurement:
        seen.append((model.training, next(model.parameters()).detach().clone()))
        torch.manual_seed(len(seen))
        torch.rand(3)
        return Measurement({"target_bits_per_byte": 1.0})

    run(tmp_path / "plain", None, settings)
    after: list[Any] = []
    run(
        tmp_path / "watched", Retention(measure, every=1), settings,
        after_step=lambda _, model: after.append((model.training, next(model.parameters()).detach().clone())),
    )  # fmt: skip
    assert digest(tmp_path / "plain") == digest(tmp_path / "watched")
    assert [mode for mode, _ in seen] == [False] * 9
    assert all(mode for mode, _ in after)
    same = all(torch.equal(a, b) for (_, a), (_, b) in zip(seen[1:], after, strict=True))
    assert same != bool(settings.ema_decay)  # with an average, that is what is measured: it is what will be written


def test_a_broken_bound_stops_and_the_best_checkpoint_is_the_result(
    run: Any, drift: Any, moved: dict[int, float], tmp_path: Path
) -> None:
    bound = (moved[5] + moved[6]) / 2
    summary = run(tmp_path / "out", Retention(drift(bound), every=2))
    stopped = summary["retention"]["stopped"]
    assert (stopped["at"], stopped["result_step"], summary["steps"], summary["tokens"]) == (6, 4, 4, 4 * 96)
    assert stopped["why"].startswith("moved by")
    assert f"stopped at step 6, since {stopped['why']}; the result is that of step 4" in said(tmp_path / "out")
    assert weights_at(run, 4, tmp_path / "other") == digest_of(tmp_path / "out")
    assert max(steps_of(tmp_path / "out")) == 6  # what was tried stays on record


def test_stopped_before_anything_was_gained_is_the_start(run: Any, drift: Any, pico: Path, tmp_path: Path) -> None:
    summary = run(tmp_path, Retention(drift(0.0001), every=2))
    assert (summary["retention"]["result_step"], summary["steps"], summary["target_bytes"]) == (0, 0, 0)
    start = load_model(pico, module_device()).state_dict()
    end = load_model(tmp_path / "model", module_device()).state_dict()
    assert all((start[name] == end[name]).all() for name in start)


@pytest.fixture(scope="module")
def moved(run: Any, drift: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """How far the weights are after each step, undisturbed."""
    out = tmp_path_factory.mktemp("free")
    run(out, Retention(drift(), every=1))
    return {row["step"]: row["values"]["in_context"] for row in records(out)}


@pytest.fixture(scope="module")
def turned_back(
    run: Any, drift: Any, moved: dict[int, float], tmp_path_factory: pytest.TempPathFactory
) -> tuple[float, dict[str, Any], Path]:
    """A run that breaks its bound at step 6, goes back to step 4 with more replay, and ends: bound, summary, folder."""
    bound, out = (moved[5] + moved[6]) / 2, tmp_path_factory.mktemp("back")
    asked = Retention(drift(bound, only_first=out), every=2, on_breach="rollback", raise_replay=0.5)
    return bound, run(out, asked), out


def test_rollback_goes_on_from_the_best_checkpoint_with_more_replay(
    turned_back: tuple[float, dict[str, Any], Path], moved: dict[int, float]
) -> None:
    _, summary, out = turned_back
    (back,) = summary["retention"]["rollbacks"]
    assert (back["at"], back["to"], back["ratio"]) == (6, 4, 0.75)
    assert (summary["steps"], summary["replay_ratio"], summary["retention"]["stopped"]) == (8, 0.75, None)
    assert "back from step 6 to step 4, since moved by" in said(out)
    assert "replay is 75% of the tokens now (rollback 1 of 2)" in said(out)
    assert [(row["step"], row["attempt"]) for row in records(out)] == [(0, 0), (2, 0), (4, 0), (6, 0), (6, 1), (8, 1)]
    assert steps_of(out) == list(range(1, 9))  # the way that leads to the model
    assert sum(row["values"]["in_context"] == moved[row["step"]] for row in records(out)) == 4  # then other rows


class Crash(BaseException):
    """The process is gone; nothing in the code catches this."""


CRASHES = ["step 1", "step 5", "step 6", "step 7", "step 8", "write", "clean", "save 2", "save 3"]


@pytest.mark.parametrize("where", CRASHES)
def test_a_run_killed_around_a_rollback_ends_with_the_same_bits(
    where: str, turned_back: tuple[float, dict[str, Any], Path], run: Any, drift: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`step N` is the N-th step taken: the first six are thrown away from the fifth on, and 7 and 8 follow."""
    bound, expected, whole = turned_back
    out, taken = tmp_path / "out", [0]
    asked = Retention(drift(bound, only_first=out), every=2, on_breach="rollback", raise_replay=0.5)
    kind, _, number = where.partition(" ")

    def after_step(*_: Any) -> None:
        taken[0] += 1
        if kind == "step" and taken[0] == int(number):
            raise Crash

    def crash(*_: Any, **__: Any) -> None:
        taken[0] += 1
        raise Crash

    with monkeypatch.context() as patch:
        if kind == "write":
            patch.setattr(module, "write_json", crash)  # before anything of the rollback is on disk
        if kind == "clean":
            patch.setattr(module.shutil, "rmtree", crash)  # after, while what is thrown away is still there
        if kind == "save":
            real, left = checkpoint.save, [int(number)]

            def save(*args: Any, **options: Any) -> Any:
                left[0] -= 1
                return crash() if left[0] == 0 else real(*args, **options)

            patch.setattr(checkpoint, "save", save)
        with pytest.raises(Crash):
            run(out, asked, after_step=after_step, compute=replace(ONE_THREAD, checkpoint_every=1))
    summary = run(out, asked, compute=replace(ONE_THREAD, checkpoint_every=1))
    assert digest(out) == digest(whole)
    assert summary["retention"]["rollbacks"] == expected["retention"]["rollbacks"]
    assert [{**row, "details": 0} for row in records(out)] == [{**row, "details": 0} for row in records(whole)]


def test_checkpoints_in_the_background_change_nothing(
    turned_back: tuple[float, dict[str, Any], Path], run: Any, drift: Any, tmp_path: Path
) -> None:
    bound, _, whole = turned_back
    out = tmp_path / "out"
    asked = Retention(drift(bound, only_first=out), every=2, on_breach="rollback", raise_replay=0.5)
    run(out, asked, compute=replace(ONE_THREAD, async_checkpoints=True))
    assert digest(out) == digest(whole)


def test_back_into_an_earlier_phase(run: Any, tmp_path: Path) -> None:
    """What the later phase moved is as it was: the transformer here, of which earlier checkpoints hold nothing."""
    phases = (Phase("embeddings", 0.5), Phase("full", 0.5))
    calls: list[int] = []

    def measure(_: Any) -> Measurement:
        calls.append(1)
        return Measurement({"target_bits_per_byte": 9.0 - len(calls)}, ("too much",) if len(calls) == 3 else ())

    settings = replace(STEPS, phases=phases)
    summary = run(tmp_path, Retention(measure, every=3), settings)
    assert (summary["retention"]["stopped"]["at"], summary["steps"]) == (6, 3)
    assert digest_of(tmp_path) == weights_at(run, 3, tmp_path / "other", settings)


def test_rollbacks_are_counted_and_then_it_stops(run: Any, drift: Any, moved: dict[int, float], tmp_path: Path) -> None:
    asked = Retention(drift(moved[3]), every=2, on_breach="rollback", rollbacks=2, raise_replay=0.3)
    summary = run(tmp_path / "out", asked)
    facts = summary["retention"]
    assert [row["ratio"] for row in facts["rollbacks"]] == [0.55, 0.85]
    assert facts["stopped"]["at"] == 4
    assert facts["result_step"] == summary["steps"] == 2
    assert "stopped at step 4 after 2 rollbacks, since" in said(tmp_path / "out")


def test_back_to_the_start_where_nothing_better_is_known(run: Any, drift: Any, tmp_path: Path) -> None:
    asked = Retention(drift(0.0001, only_first=tmp_path), every=2, on_breach="rollback")
    summary = run(tmp_path, asked)
    assert [(row["to"], row["ratio"]) for row in summary["retention"]["rollbacks"]] == [(0, 0.35)]
    other = run(tmp_path / "other", None, replace(STEPS, replay_ratio=0.35))
    assert digest(tmp_path) == digest(tmp_path / "other")
    assert summary["target_bytes"] == other["target_bytes"]


def test_the_best_checkpoints_are_kept_beside_the_newest(run: Any, tmp_path: Path) -> None:
    values = {0: 9.0, 1: 3.0, 2: 5.0, 3: 2.0, 4: 6.0, 5: 7.0, 6: 7.0, 7: 7.0, 8: 8.0}
    calls = iter(range(9))

    def measure(_: Any) -> Measurement:
        return Measurement({"target_bits_per_byte": values[next(calls)]})

    few = replace(ONE_THREAD, checkpoint_every=2, keep_checkpoints=1)
    summary = run(tmp_path, Retention(measure, every=1, keep_best=2, result="best"), compute=few)
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == [
        checkpoint.name_of(step) for step in (1, 3, 6)
    ]
    assert summary["retention"]["result_step"] == summary["steps"] == 3
    assert "the best checkpoint by target_bits_per_byte is of step 3; it is the result" in said(tmp_path)
    assert digest_of(tmp_path) == weights_at(run, 3, tmp_path / "other")


def test_more_is_better_for_some_metrics(run: Any, drift: Any, tmp_path: Path) -> None:
    run(tmp_path, Retention(drift(), every=4, metric="in_context"), compute=replace(ONE_THREAD, keep_checkpoints=1))
    assert (tmp_path / "checkpoints" / checkpoint.name_of(4)).is_dir()
    summary = run(tmp_path / "first", Retention(drift(), every=4, metric="in_context", result="best"))
    assert summary["steps"] == 8  # the weights move on and on


def test_a_damaged_best_checkpoint_is_passed_over(
    run: Any, drift: Any, moved: dict[int, float], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def spoil(step: int, _: Any) -> None:
        if step == 6:
            (out / "checkpoints" / checkpoint.name_of(4) / "model.pt").write_bytes(b"")

    asked = Retention(drift((moved[5] + moved[6]) / 2), every=2, keep_best=2)
    assert run(out, asked, after_step=spoil)["retention"]["result_step"] == 2


def test_an_interrupted_watch_goes_on(run: Any, drift: Any, tmp_path: Path) -> None:
    import os
    import signal

    def stop(step: int, _: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(tmp_path, Retention(drift(), every=2), after_step=stop)
    run(tmp_path, Retention(drift(), every=2))
    assert [row["step"] for row in records(tmp_path)] == [0, 2, 4, 6, 8]
    run(tmp_path / "other", None)
    assert digest(tmp_path) == digest(tmp_path / "other")


def test_a_run_begun_anew_forgets_its_rollbacks(
    turned_back: tuple[float, dict[str, Any], Path], run: Any, drift: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(turned_back[2], out)
    shutil.rmtree(out / "checkpoints")
    summary = run(out, Retention(drift(), every=4))
    assert summary["retention"]["rollbacks"] == []
    assert [row["step"] for row in records(out)] == [0, 4, 8]


def test_what_cannot_be_is_refused(run: Any, drift: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"metric `in_contxt` is unknown; did you mean `in_context`"):
        Retention(drift(), every=1, metric="in_contxt")
    with pytest.raises(RecipeError, match="every and keep_best must be at least 1"):
        Retention(drift(), every=0)
    with pytest.raises(RecipeError, match="raises the share of replay, and this run has none"):
        run(tmp_path, Retention(drift(), every=1, on_breach="rollback"), replay=None)
    with pytest.raises(TrainingError, match="the measurement has no source_accuracy; choose another"):
        run(tmp_path, Retention(drift(), every=1, metric="source_accuracy"))
    with pytest.raises(TrainingError, match=r"breaks a bound of .* before any training: moved by"):
        run(tmp_path, Retention(drift(-1.0), every=1))
