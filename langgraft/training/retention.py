"""Retention in the loop: measure what is kept while training goes on, and stop or turn back where too much is lost.

Every so many steps a measurement is taken and written to `retention.jsonl`. What is decided follows from that file,
the checkpoints and `rollbacks.json` alone, so a run that is killed and started again decides the same and ends with
the same bits. Several processes decide alike: the first one reads and writes the files, and tells the others what it
found. The measurement itself (what is measured, and when a bound is broken) is the caller's function; see
`langgraft.evaluation.retention`.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from langgraft.errors import RecipeError, TrainingError
from langgraft.methods import suggest
from langgraft.progress import Log
from langgraft.store import atomic_write, read_json, write_json
from langgraft.training import checkpoint
from langgraft.training.cursor import Cursor, Segment
from langgraft.training.parallel import Group

RECORDS, ROLLBACKS = "retention.jsonl", "rollbacks.json"
METRICS = {
    # values a checkpoint can be the best by -> whether less is better
    "target_bits_per_byte": True,
    "source_bits_per_byte": True,
    "target_accuracy": False,
    "source_accuracy": False,
    "in_context": False,
}


@dataclass(frozen=True)
class Measurement:
    """What was found: numbers by name, which bounds are broken (a sentence each), a line for people, and the rest."""

    values: dict[str, float]
    breaches: tuple[str, ...] = ()
    line: str = ""
    details: dict[str, Any] = field(default_factory=dict)


Measure = Callable[[Any], Measurement]


@dataclass(frozen=True)
class Retention:
    """When to measure, and what to do.

    `measure(model)` must leave the model as it was; of several processes, only the first one needs it. On a breach,
    `stop` ends the run with the best checkpoint; `rollback` goes back to it and raises the share of replay by
    `raise_replay`, `rollbacks` times at most, and then stops. The best `keep_best` checkpoints by `metric` are kept
    beside the newest ones; with `result = "best"` the best one becomes the model even if nothing broke a bound.
    """

    measure: Measure | None
    every: int
    on_breach: Literal["stop", "rollback"] = "stop"
    raise_replay: float = 0.1
    rollbacks: int = 2
    keep_best: int = 1
    metric: str = "target_bits_per_byte"
    result: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            RecipeError: the metric is unknown, or there is nothing to do.
        """
        if self.metric not in METRICS:
            raise RecipeError(f"pretrain.retention.metric `{self.metric}` is unknown; {suggest(self.metric, METRICS)}")
        if self.every < 1 or self.keep_best < 1:
            raise RecipeError("pretrain.retention: every and keep_best must be at least 1")


class GoBack(Exception):  # noqa: N818 - not an error: the loop starts anew from a checkpoint
    """The run goes on from, or with `finish` ends with, the checkpoint of `step`; 0 is the model it started from."""

    def __init__(self, step: int, *, finish: bool) -> None:
        super().__init__(step)
        self.step, self.finish = step, finish


class Rollback(NamedTuple):
    """The run broke a bound at step `at` and went on from step `to`, with `ratio` of replay."""

    at: int
    to: int
    ratio: float
    why: str


class Watch:
    """Keeps the records of one training folder, and decides."""

    def __init__(
        self, asked: Retention, out: Path, log: Log, *, ratio: float, batch_rows: int, group: Group | None = None
    ) -> None:
        if asked.on_breach == "rollback" and ratio == 0:
            raise RecipeError(
                'pretrain.retention.on_breach = "rollback" raises the share of replay, and this run has none; '
                'give it some (pretrain.replay), or use "stop"'
            )
        self.asked, self.log, self.group = asked, log, group or Group.alone()
        self.records_file, self.rollbacks_file = out / RECORDS, out / ROLLBACKS
        self.checkpoints = out / "checkpoints"
        self.records: list[dict[str, Any]] = []
        self.stopped: dict[str, Any] | None = None
        self.rollbacks: list[Rollback] = []
        self.cursor = Cursor([Segment(0, ratio)], batch_rows)
        if known := self.group.first(self._known):
            self._settle(known)

    def _known(self) -> dict[str, Any]:
        return dict(read_json(self.rollbacks_file)) if self.rollbacks_file.is_file() else {}

    def _settle(self, known: dict[str, Any]) -> None:
        """Take up earlier rollbacks; the last one may have been cut short before what it left behind was removed."""
        self.rollbacks = [Rollback(**row) for row in known["rollbacks"]]
        self.cursor.segments = [Segment(**row) for row in known["segments"]]
        if known["pending"]:
            self.group.first(self._clean)

    def _clean(self) -> None:
        for folder in self.checkpoints.glob("step-*"):
            if int(folder.name.removeprefix("step-")) > self.rollbacks[-1].to:
                shutil.rmtree(folder)
        self._write(pending=False)

    def _write(self, *, pending: bool) -> None:
        rows = {
            "pending": pending,
            "rollbacks": [row._asdict() for row in self.rollbacks],
            "segments": [asdict(segment) for segment in self.cursor.segments],
        }
        write_json(self.rollbacks_file, rows)

    def begin(self, step: int) -> None:
        """Go on at `step`: records of later steps are dropped, since these will be taken again.

        Those of steps that were turned back from stay; they belong to the story.
        """
        if step == 0 and not (self.rollbacks and self.rollbacks[-1].to == 0):
            self._forget()
        self.records = self.group.first(lambda: self._read(step))

    def _forget(self) -> None:
        """Begin a run anew: somebody removed the checkpoints."""
        self.rollbacks, self.cursor.segments = [], self.cursor.segments[:1]

        def remove() -> None:
            for file in (self.records_file, self.rollbacks_file):
                file.unlink(missing_ok=True)

        self.group.first(remove)

    def _read(self, step: int) -> list[dict[str, Any]]:
        """The records that hold when the run goes on at `step`; the file has these alone afterwards."""
        lines = self.records_file.read_text(encoding="utf-8").split("\n") if self.records_file.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        held = [row for row in rows if row["step"] <= step or not self._kept(row)]
        atomic_write(self.records_file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held))
        return held

    def _kept(self, row: dict[str, Any]) -> bool:
        """Whether a record is of the way that leads to the model, not of one that was turned back from."""
        return all(row["step"] <= back.to for back in self.rollbacks[row["attempt"] :])

    def best(self) -> list[int]:
        """The steps of the best measurements that broke no bound, best first; at most `keep_best`, at least one."""
        metric = self.asked.metric
        sign = 1 if METRICS[metric] else -1
        sound = [row for row in self.records if self._kept(row) and not row["breaches"] and metric in row["values"]]
        ranked = sorted(sound, key=lambda row: (sign * row["values"][metric], row["step"]))
        return [row["step"] for row in ranked][: self.asked.keep_best]

    def due(self, step: int, steps: int) -> bool:
        """Whether to measure now: at the start, every so many steps, and at the end; never twice."""
        known = any(row["step"] == step and self._kept(row) for row in self.records)
        return not known and (step % self.asked.every == 0 or step == steps)

    def after_step(
        self, step: int, steps: int, measure: Callable[[Measure | None], Measurement],
        save: Callable[[], None],
    ) -> None:  # fmt: skip
        """Measure if it is due, keep the checkpoint if it is among the best, and act on a breach.

        `measure(function)` calls the function with the model as it would be written; `save` writes a checkpoint.

        Raises:
            GoBack: a bound is broken, or the run is over and its result is an earlier checkpoint.
            TrainingError: the model breaks a bound before any training.
        """
        if self.due(step, steps):
            found = measure(self.asked.measure)
            self._record(step, found)
            self.log.say(f"retention, step {step}: {found.line or found.values}")
            if found.breaches:
                self._breach(step, found)
            elif step in self.best() and 0 < step < steps:
                save()
        if step == steps and self.asked.result == "best" and (best := self._usable()) != step:
            self.log.say(f"retention: the best checkpoint by {self.asked.metric} is of step {best}; it is the result")
            raise GoBack(best, finish=True)

    def _record(self, step: int, found: Measurement) -> None:
        row = {"step": step, "attempt": len(self.rollbacks), **asdict(found)}
        row["breaches"] = list(found.breaches)
        if self.asked.metric not in found.values:
            raise TrainingError(f"the measurement has no {self.asked.metric}; choose another pretrain.retention.metric")
        self.records.append(row)
        self.group.first(lambda: self._append(row))

    def _append(self, row: dict[str, Any]) -> None:
        with self.records_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _usable(self) -> int:
        """The best step that there is something of: its checkpoint is whole, or it is the start or the present."""
        present = self.records[-1]["step"]

        def usable(step: int) -> bool:
            folder = self.checkpoints / checkpoint.name_of(step)
            return step in (0, present) or (folder.is_dir() and checkpoint.check(folder) is None)

        return self.group.first(lambda: next(filter(usable, self.best()), 0))

    def _breach(self, step: int, found: Measurement) -> None:
        why = "; ".join(found.breaches)
        if step == 0:
            raise TrainingError(
                f"the model breaks a bound of [pretrain.retention] before any training: {why}; loosen the bound, or "
                "change what was done to the model before"
            )
        best = self._usable()
        if self.asked.on_breach == "stop" or len(self.rollbacks) == self.asked.rollbacks:
            tried = f" after {len(self.rollbacks)} rollbacks" if self.rollbacks else ""
            self.log.say(f"retention: stopped at step {step}{tried}, since {why}; the result is that of step {best}")
            self.stopped = {"at": step, "why": why, "result_step": best}
            raise GoBack(best, finish=True)
        ratio = round(min(self.cursor.segments[-1].ratio + self.asked.raise_replay, 0.9), 6)
        self.log.say(
            f"retention: back from step {step} to step {best}, since {why}; replay is {ratio:.0%} of the tokens now "
            f"(rollback {len(self.rollbacks) + 1} of {self.asked.rollbacks})"
        )
        self.cursor.segments = self.cursor.turned_back(best, ratio)
        self.rollbacks.append(Rollback(step, best, ratio, why))
        self.group.first(self._turn_back)
        raise GoBack(best, finish=False)

    def _turn_back(self) -> None:
        self._write(pending=True)
        self._clean()

    def summary(self, step: int) -> dict[str, Any]:
        """What the stage says of it; `step` is the step whose weights are the result."""
        way = [row for row in self.records if self._kept(row)]
        return {
            "measurements": len(self.records),
            "result_step": step,
            "stopped": self.stopped,
            "rollbacks": [row._asdict() for row in self.rollbacks],
            "values": next((row["values"] for row in reversed(way) if row["step"] == step), None),
        }
