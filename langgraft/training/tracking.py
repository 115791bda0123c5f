"""Where a run's figures go, step by step: `metrics.jsonl` always, and whatever trackers the user watches.

A tracker is a function `f(folder, *, name, settings, step, identity) -> Writer` and a row in TRACKERS; `folder` is the
run's, `step` the last one that the writer may keep from before, `identity` stays the same when a run goes on.
Trackers look on: they draw no random numbers of torch's, and a run is the same bits with or without them.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from langgraft.errors import RecipeError
from langgraft.methods import resolve, suggest
from langgraft.store import read_json, write_json
from langgraft.training.saving import METRICS

IDENTITY = "tracking.json"
PROJECT = "langgraft"
TRACKERS: dict[str, str] = {
    "tensorboard": "langgraft.training.tracking:tensorboard",
    "trackio": "langgraft.training.tracking:trackio",
    "wandb": "langgraft.training.tracking:wandb",
}


class Writer(Protocol):
    """What takes a run's figures."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of one step; steps only grow."""

    def close(self) -> None:
        """Write what is still held in memory."""


def check_trackers(names: Sequence[str]) -> None:
    """Say what is not there before anything is trained.

    Raises:
        RecipeError: no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise RecipeError(f"compute.report_to: `{name}` is unknown; {suggest(name, TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f'compute.report_to: "{name}" needs the package {name}, which is not installed; '
                f"run pip install 'langgraft[{name}]' or leave it out ({METRICS} is always written)"
            )


class Tracking:
    """The figures of one run in `out`. Make it before metrics of steps that will be repeated are dropped."""

    def __init__(self, out: Path, report_to: Sequence[str], settings: Mapping[str, Any]) -> None:
        check_trackers(report_to)
        self.out, self.names, self.settings = out, tuple(report_to), settings
        self.metrics = out / METRICS
        self.reported = last_step(self.metrics)
        self.writers: list[Writer] = []

    def begin(self, step: int) -> None:
        """Open the trackers of a run that goes on after `step`; 0 is a fresh start."""
        if not self.names:
            return
        file = self.out / IDENTITY
        if step == 0 or not file.is_file():
            self.reported = 0
            write_json(file, {"run": secrets.token_hex(4)})
        name = "-".join(self.out.resolve().parts[-2:])
        for tracker in self.names:
            opened = resolve(TRACKERS, tracker, what="compute.report_to")
            identity = read_json(file)["run"]
            # TensorBoard can take steps back; others would hold them twice, so they keep what they were told first.
            kept = step if tracker == "tensorboard" else max(step, self.reported)
            writer = opened(self.out, name=name, settings=self.settings, step=kept, identity=identity)
            self.writers.append(_After(writer, kept))

    def write(self, figures: Mapping[str, Any]) -> None:
        """Append the figures of a step; numbers among them go to the trackers too."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
        numbers = {name: value for name, value in figures.items() if isinstance(value, int | float) and name != "step"}
        for writer in self.writers:
            writer.log(figures["step"], numbers)

    def close(self) -> None:
        """Let the trackers finish."""
        for writer in self.writers:
            writer.close()
        self.writers = []


class _After:
    """A writer that is told nothing of steps up to `step`."""

    def __init__(self, writer: Writer, step: int) -> None:
        self.writer, self.step = writer, step

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if step > self.step:
            self.writer.log(step, figures)
            self.step = step

    def close(self) -> None:
        self.writer.close()


def last_step(metrics: Path) -> int:
    """The last step that has a whole line in `metrics.jsonl`; 0 where there is none."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError):
            return int(json.loads(line)["step"])
    return 0


def tensorboard(folder: Path, *, name: str, settings: Mapping[str, Any], step: int, identity: str) -> Writer:  # noqa: ARG001
    """Event files in `folder/tensorboard`; see them with `tensorboard --logdir runs`."""
    from torch.utils.tensorboard import SummaryWriter

    # What a killed process told of later steps is marked as gone; readers leave it out.
    events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
    if step == 0:
        events.add_text("settings", f"```json\n{json.dumps(settings, indent=2)}\n```")

    class Events:
        def log(self, step: int, figures: Mapping[str, float]) -> None:
            for figure, value in figures.items():
                events.add_scalar(f"train/{figure}", value, step)

        def close(self) -> None:
            events.close()

    return Events()


def trackio(folder: Path, *, name: str, settings: Mapping[str, Any], step: int, identity: str) -> Writer:  # noqa: ARG001
    """A run of project `langgraft` in trackio's local store; see it with `trackio show`."""
    import trackio as package

    with contextlib.redirect_stdout(sys.stderr):  # stdout is for our JSON
        run = package.init(
            project=PROJECT, name=f"{name}-{identity}", config=dict(settings), resume="allow", embed=False,
            auto_log_cpu=False, auto_log_gpu=False,
        )  # fmt: skip

    class Run:
        def log(self, step: int, figures: Mapping[str, float]) -> None:
            run.log(dict(figures), step=step)

        def close(self) -> None:
            with contextlib.redirect_stdout(sys.stderr):
                package.finish()  # not the run's own: the package would end it once more, on stdout

    return Run()


def wandb(folder: Path, *, name: str, settings: Mapping[str, Any], step: int, identity: str) -> Writer:  # noqa: ARG001
    """A run of project `langgraft` (or WANDB_PROJECT); without an account on this machine it is kept offline."""
    import wandb as package

    run = package.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=name,
        id=identity,
        resume="allow",
        dir=str(folder),
        config=dict(settings),
        mode=os.environ.get("WANDB_MODE") or ("online" if package.api.api_key else "offline"),  # type: ignore[arg-type]
        settings=package.Settings(silent=True, console="off"),
    )

    class Run:
        def log(self, step: int, figures: Mapping[str, float]) -> None:
            run.log(dict(figures), step=step)

        def close(self) -> None:
            run.finish()

    return Run()
