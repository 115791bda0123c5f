"""Trackers get every step once, from the real packages, and the run is the same bits with or without them."""

import importlib.util
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from quick import ONE_THREAD, QUICK

from langgraft.errors import RecipeError
from langgraft.progress import Log
from langgraft.store import sha256_file
from langgraft.training.loop import METRICS, train
from langgraft.training.tracking import TRACKERS, Tracking, check_trackers, last_step

CHILD = Path(__file__).with_name("loop_child.py")
THERE = tuple(name for name in TRACKERS if importlib.util.find_spec(name))


@pytest.fixture(scope="module")
def tracked(pico: Path, target: Path, replay: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that told all trackers there are, was killed after step 3 and went on from its checkpoint of step 2."""
    folder = tmp_path_factory.mktemp("tracked")
    out = folder / "run"
    out.mkdir()
    data = {"model": str(pico), "target": str(target), "replay": str(replay), "old_rows": 300, "out": str(out)}
    job = {**data, "settings": asdict(QUICK), "compute": asdict(replace(ONE_THREAD, report_to=THERE))}
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"),
    }  # fmt: skip
    for crash, code in (("step 3", -signal.SIGKILL), ("none", 0)):
        done = subprocess.run(
            [sys.executable, str(CHILD), json.dumps({**job, "crash": crash})],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr[-2000:]
        # Nothing but the child's own line of JSON: stdout is for programs.
        assert [json.loads(line)["steps"] for line in done.stdout.splitlines()] == [6] * (code == 0)
    return folder


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def test_trackers_change_no_bits(tracked: Path, pico: Path, target: Path, replay: Path, tmp_path: Path) -> None:
    train(pico, tmp_path, target=target, replay=replay, old_rows=300, settings=QUICK, compute=ONE_THREAD,
          log=Log(quiet=True))  # fmt: skip
    weights = [sha256_file(out / "model" / "model.safetensors") for out in (tmp_path, tracked / "run")]
    assert weights[0] == weights[1]
    assert losses(tmp_path) == losses(tracked / "run")


@pytest.mark.skipif("tensorboard" not in THERE, reason="tensorboard is not installed")
def test_tensorboard_holds_every_step_once(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / "run" / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/mfu", "train/target_bytes_per_second"} <= set(events.Tags()["scalars"])
    seen = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert dict(seen) == pytest.approx(losses(tracked / "run"))


@pytest.mark.skipif("trackio" not in THERE, reason="trackio is not installed")
def test_trackio_holds_every_step_once(tracked: Path) -> None:
    with sqlite3.connect(tracked / "trackio" / "langgraft.db") as database:
        rows = database.execute("SELECT step, metrics, run_name FROM metrics ORDER BY id").fetchall()
    assert len({name for _, _, name in rows}) == 1
    # What the killed process had not yet handed over is missing, and nothing is there twice.
    steps = [step for step, _, _ in rows]
    assert steps == sorted(set(steps))
    assert {4, 5, 6} <= set(steps) <= {1, 2, 3, 4, 5, 6}
    ours = losses(tracked / "run")
    assert {step: json.loads(values)["loss"] for step, values, _ in rows} == {step: ours[step] for step in steps}


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of W&B's transaction log: after 7 bytes, pieces of records in blocks of 32 KiB, as LevelDB has it."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


@pytest.mark.skipif("wandb" not in THERE, reason="wandb is not installed")
def test_wandb_holds_every_step_once(tracked: Path) -> None:
    seen: dict[int, float] = {}
    folders = sorted((tracked / "run" / "wandb").glob("offline-run-*"))
    assert len({folder.name.split("-")[-1] for folder in folders}) == 1  # one run of W&B's, in two parts
    for file in (found for folder in folders for found in folder.glob("*.wandb")):
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "history":
                values = {item.nested_key[0]: item.value_json for item in record.history.item}
                assert int(values["_step"]) not in seen
                seen[int(values["_step"])] = json.loads(values["loss"])
    assert {4, 5, 6} <= set(seen)
    assert seen == {step: value for step, value in losses(tracked / "run").items() if step in seen}


def test_what_is_not_there_is_said_before_anything(
    pico: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"compute\.report_to: `wandbb` is unknown; did you mean `wandb`\?"):
        check_trackers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"needs the package trackio, .* pip install 'langgraft\[trackio\]'"):
        train(pico, tmp_path / "out", target=target, replay=None, old_rows=300, settings=QUICK,
              compute=replace(ONE_THREAD, report_to=("trackio",)), log=Log(quiet=True))  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_the_last_whole_line_counts(tmp_path: Path) -> None:
    metrics = tmp_path / METRICS
    assert last_step(metrics) == 0
    metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert last_step(metrics) == 2


def test_a_fresh_start_is_another_run_to_the_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def remember(folder: Path, **facts: Any) -> Any:  # noqa: ARG001
        seen.append(facts)
        return type("Quiet", (), {"log": lambda *_: None, "close": lambda *_: None})()

    monkeypatch.setattr("langgraft.training.tracking.wandb", remember)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    for step in (0, 2, 0):
        tracking = Tracking(tmp_path, ["wandb"], {})
        tracking.begin(step)
        tracking.close()
    assert [facts["step"] for facts in seen] == [0, 3, 0]
    assert seen[0]["identity"] == seen[1]["identity"] != seen[2]["identity"]
