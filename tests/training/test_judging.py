"""A watch over several processes decides as over one, and every decision resumes with the same bits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drift import drift
from quick import QUICK
from shared_runs import Runs, losses, result, weights
from together_child import gauge

from langgraft.store import read_json, write_json
from langgraft.training.loop import Settings
from langgraft.training.modes import Lora, Phase
from langgraft.training.parallel import Layout
from langgraft.training.retention import Retention

STEPS = replace(QUICK, steps=8, batch_rows=4, learning_rate=5e-3)
AVERAGE = replace(STEPS, ema_decay=0.9)
LORA = replace(STEPS, phases=(Phase("lora"),), lora=Lora(rank=2))
BACK = {"measure": "drift", "every": 2, "on_breach": "rollback", "raise_replay": 0.5, "once": True}
CASES: dict[str, tuple[Settings, Layout, str]] = {
    "fsdp": (STEPS, Layout(), "gauge"),
    "average": (AVERAGE, Layout(), "drift"),
    "tensor": (AVERAGE, Layout(2), "drift"),
    "replicas": (STEPS, Layout(1, 1, 2), "drift"),
    "lora": (LORA, Layout(), "gauge"),
}


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "retention.jsonl").read_text().splitlines()]


def plain(out: Path) -> list[dict[str, Any]]:
    """The records without their times."""
    return [{**row, "details": {**row["details"], "seconds": 0}} for row in records(out)]


@pytest.fixture(scope="module")
def moved(runs: Runs) -> dict[int, float]:
    """How far the weights are after each step of one process, undisturbed."""
    out = runs.alone("free", "tied", STEPS, retention=Retention(drift(runs.models["tied"]), every=1))
    return {row["step"]: row["values"]["in_context"] for row in records(out)}


@pytest.fixture(scope="module")
def watched(runs: Runs, moved: dict[int, float]) -> Runs:
    """All that happens under torchrun, in two starts: the first ends with a process that is killed."""
    jobs = [
        runs.job(name, "tied", settings, layout, retention={"measure": measure, "every": 3})
        for name, (settings, layout, measure) in CASES.items()
    ]
    back = {**BACK, "bound": (moved[5] + moved[6]) / 2}
    every = {"checkpoint_every": 1}
    jobs += [
        runs.job("unwatched", "tied", STEPS, Layout()),
        runs.job("stopped", "tied", STEPS, Layout(), retention={**back, "on_breach": "stop", "once": False}),
        runs.job("back", "tied", STEPS, Layout(), retention=back),
        runs.job("part-1", "tied", STEPS, Layout(), out="part", retention=back, compute=every, stop=7),
        runs.job(
            "kill-1", "tied", STEPS, Layout(), out="kill", retention=back, crash="part 4",
            compute={"async_checkpoints": True, "checkpoint_every": 1},
        ),
    ]  # fmt: skip
    runs.together(2, jobs, killed=True)
    kept = runs.folder / "kill" / "checkpoints"
    assert sorted(path.name for path in kept.glob("step-*")) == ["step-000002", "step-000003"]
    assert (kept / ".tmp-step-000004").is_dir()
    told = runs.folder / "part" / "rollbacks.json"
    write_json(told, {**read_json(told), "pending": True})  # as if killed while what was thrown away is removed
    jobs = [
        runs.job("part-2", "tied", STEPS, Layout(), out="part", retention=back, compute=every),
        runs.job("kill-2", "tied", STEPS, Layout(), out="kill", retention=back, compute=every),
    ]
    runs.together(2, jobs)
    return runs


@pytest.mark.parametrize("name", CASES)
def test_measures_are_those_of_one_process(name: str, watched: Runs) -> None:
    settings, _, kind = CASES[name]
    start = watched.models["tied"]
    measure = gauge(start) if kind == "gauge" else drift(start)
    alone = records(watched.alone(f"{name}-alone", "tied", settings, retention=Retention(measure, every=3)))
    together = records(watched.folder / name)
    assert [result(watched.folder / name, name, rank) for rank in (0, 1)] == ["done", "done"]
    assert [row["step"] for row in together] == [row["step"] for row in alone] == [0, 3, 6, 8]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours["values"] == pytest.approx(theirs["values"], abs=1e-5)
        assert ours["details"].get("generations") == theirs["details"].get("generations")
    assert together[0]["values"] != together[-1]["values"]


def test_measuring_changes_no_bit_of_several(watched: Runs) -> None:
    assert weights(watched.folder / "fsdp") == weights(watched.folder / "unwatched")


def test_all_stop_with_the_best_checkpoint(watched: Runs, moved: dict[int, float]) -> None:
    out = watched.folder / "stopped"
    bound = (moved[5] + moved[6]) / 2
    alone = watched.alone(
        "stopped-alone", "tied", STEPS, retention=Retention(drift(watched.models["tied"], bound), every=2)
    )
    assert [result(out, "stopped", rank) for rank in (0, 1)] == ["done", "done"]
    assert [row["step"] for row in records(out)] == [row["step"] for row in records(alone)] == [0, 2, 4, 6]
    assert "stopped at step 6, since moved by" in (out / "log.txt").read_text()
    assert losses(out) == pytest.approx(losses(alone), abs=1e-5)


def test_all_turn_back_and_read_more_replay(watched: Runs, moved: dict[int, float]) -> None:
    out = watched.folder / "back"
    alone = watched.folder / "back-alone"
    asked = {name: value for name, value in BACK.items() if name not in ("measure", "once")}
    measure = drift(watched.models["tied"], (moved[5] + moved[6]) / 2, only_first=alone)
    watched.alone("back-alone", "tied", STEPS, retention=Retention(measure, **asked))
    told = [json.loads((folder / "rollbacks.json").read_text())["rollbacks"] for folder in (out, alone)]
    assert [{**back, "why": ""} for (back,) in told] == [{"at": 6, "to": 4, "ratio": 0.75, "why": ""}] * 2
    assert [(row["step"], row["attempt"]) for row in records(out)] == [
        (0, 0), (2, 0), (4, 0), (6, 0), (6, 1), (8, 1),
    ]  # fmt: skip
    assert losses(out) == pytest.approx(losses(alone), abs=1e-5)


@pytest.mark.parametrize("name", ["part", "kill"])
def test_however_it_was_stopped_it_ends_with_the_same_bits(name: str, watched: Runs) -> None:
    """By a signal after a rollback, with its leftovers still there; by SIGKILL inside a background checkpoint."""
    whole, out = watched.folder / "back", watched.folder / name
    assert weights(out) == weights(whole)
    assert plain(out) == plain(whole)
    if name == "part":
        assert "going on from step 4 of 8" in (out / "log.txt").read_text()
