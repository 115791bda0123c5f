"""The training loop: continual pretraining with replay, exact resume, and nothing hidden.

What a step computes depends on (model, data, settings, step) alone, so a run that is killed and started again
ends with the same bits on the same machine and thread count.
"""

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langgraft.errors import Interrupted, RecipeError, TrainingError
from langgraft.methods import resolve
from langgraft.progress import Log, Progress
from langgraft.store import TEMPORARY, atomic_write, staged_folder
from langgraft.training import checkpoint
from langgraft.training.device import autocast, choose_device, choose_dtype, keep_freed_memory, load_model, set_threads
from langgraft.training.loss import divergence_function, loss_function
from langgraft.training.mixture import open_rows
from langgraft.training.packing import Packed, Row, interleave
from langgraft.training.schedule import SCHEDULES
from langgraft.training.trainable import OldRows, parameter_groups

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Settings:
    """What to learn and how fast. `batch_rows` rows of `length` tokens make one optimizer step."""

    steps: int
    length: int = 256
    batch_rows: int = 4
    learning_rate: float = 2e-4
    new_rows_learning_rate: float = 1e-3
    old_rows_learning_rate: float = 2e-4
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: float = 1.0
    schedule: str = "wsd"
    warmup: float = 0.05
    decay: float = 0.4
    minimum: float = 0.0
    replay_ratio: float = 0.25
    seed: int = 0


@dataclass(frozen=True)
class Compute:
    """How and where; changes nothing about what is learned except rounding."""

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    micro_rows: int = 4
    checkpoint_every: int = 50
    keep_checkpoints: int = 2


def train(
    model_folder: Path,
    out: Path,
    *,
    target: Path,
    replay: Path | None,
    old_rows: int,
    settings: Settings,
    teacher: Path | None = None,
    compute: Compute | None = None,
    log: Log | None = None,
    after_step: Callable[[int, Any], None] | None = None,
) -> dict[str, Any]:
    """Train the model in `model_folder` on packed rows; writes `out/model`, resumable until then.

    `target` and `replay` are packed folders, the first may be a mixture; `old_rows` is the number of rows the base
    had. With a `teacher` (the base's folder; `replay` must then be packed with the base's tokenizer), replay rows
    teach the model to predict what the teacher predicts instead of the text itself. `after_step(step, model)` may
    look at the model between steps. Returns a summary with steps, tokens, seconds and the last loss.

    Raises:
        RecipeError: the rates of old and new rows do not fit together, or the device is not there.
        TrainingError: the loss is not a number, no checkpoint is usable, or those in `out` belong to a run with
            other settings.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written, the same call resumes.
    """
    data = _Data(target, replay, teacher, old_rows)
    return _Run(model_folder, out, data, settings, compute or Compute(), log or Log()).go(after_step)


def old_rows_share(settings: Settings) -> float:
    """The fraction of the new rows' step that old rows take.

    Raises:
        RecipeError: it would not lie between 0 and 1.
    """
    old, new = settings.old_rows_learning_rate, settings.new_rows_learning_rate
    if not 0 <= old <= new or new == 0:
        raise RecipeError(
            f"pretrain.old_rows_learning_rate ({old:g}) must be between 0 and new_rows_learning_rate ({new:g}): "
            "lower the first or raise the second"
        )
    return old / new


@dataclass(frozen=True)
class _Data:
    """What a run learns from, and how many rows are old."""

    target: Path
    replay: Path | None
    teacher: Path | None
    old_rows: int


class _Run:
    """One training run: the objects a step needs, and the step."""

    def __init__(
        self,
        model_folder: Path,
        out: Path,
        data: _Data,
        settings: Settings,
        compute: Compute,
        log: Log,
    ) -> None:
        ratio = old_rows_share(settings)
        set_threads(compute.threads)
        keep_freed_memory()
        self.settings, self.compute, self.log, self.out = settings, compute, log, out
        self.model_folder = model_folder
        self.device = choose_device(compute.device)
        self.dtype = choose_dtype(compute.dtype, self.device)
        self.model = load_model(model_folder, self.device)
        self.loss = loss_function(self.model)
        self.divergence = self._divergence(data)
        self.model.train()
        self.optimizer = self._optimizer()
        self.old_rows = OldRows(self.model, data.old_rows, ratio)
        self.target = open_rows(data.target, length=settings.length, seed=settings.seed)
        self.replay = Packed(data.replay, length=settings.length, seed=settings.seed) if data.replay else None
        self.schedule = resolve(SCHEDULES, settings.schedule, what="schedule")
        self.warmup = max(round(settings.warmup * settings.steps), 1)
        self.step_tokens = settings.batch_rows * settings.length
        self.step = 0
        self.seconds = 0.0
        self.last_loss = math.nan

    def _divergence(self, data: _Data) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The loss on replay rows when there is a teacher."""
        if data.teacher is None or data.replay is None:
            return None
        return divergence_function(self.model, load_model(data.teacher, self.device), rows=data.old_rows)

    def _optimizer(self) -> torch.optim.AdamW:
        groups = parameter_groups(
            self.model,
            learning_rate=self.settings.learning_rate,
            new_rows_learning_rate=self.settings.new_rows_learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        fused = self.device.type != "mps"
        return torch.optim.AdamW(groups, betas=self.settings.betas, eps=1e-8, fused=fused)

    def go(self, after_step: Callable[[int, Any], None] | None) -> dict[str, Any]:
        """Resume, take every step that is left, write the model; returns the summary."""
        self._resume()
        steps, tokens = self.settings.steps, self.step_tokens
        progress = self.log.progress("pretrain", steps * tokens, unit="tokens", done=self.step * tokens)
        with _stop_requested() as stop:
            while self.step < steps:
                self._advance(progress)
                if after_step is not None:
                    after_step(self.step, self.model)
                finished = self.step == steps
                if stop or (self.step % self.compute.checkpoint_every == 0 and not finished):
                    self._save()
                if stop and not finished:
                    raise Interrupted(f"stopped at step {self.step} by {stop[0]}; run the same command to go on")
        self._write_model()
        return self._summary()

    def _advance(self, progress: Progress) -> None:
        """Take one step and tell of it."""
        started = time.perf_counter()
        self.last_loss, norm, rate = self._step()
        elapsed = time.perf_counter() - started
        self.step += 1
        self.seconds += elapsed
        self._record(
            {
                "step": self.step,
                "loss": self.last_loss,
                "gradient_norm": norm,
                "learning_rate": rate,
                "tokens": self.step * self.step_tokens,
                "seconds": round(self.seconds, 3),
                "tokens_per_second": round(self.step_tokens / elapsed, 1),
            }
        )
        progress.advance(self.step_tokens, f"step {self.step}, loss {self.last_loss:.3f}")

    def _batch(self) -> Iterator[tuple[bool, list[Row]]]:
        """The step's rows in micro-batches, each with whether it is to match the teacher."""
        first = self.step * self.settings.batch_rows
        text: list[Row] = []
        matched: list[Row] = []
        for index in range(first, first + self.settings.batch_rows):
            is_replay, own = interleave(index, self.settings.replay_ratio if self.replay else 0.0)
            if is_replay and self.replay:
                (matched if self.divergence else text).append(self.replay.row(own))
            else:
                text.append(self.target.row(own))
        for match, rows in ((False, text), (True, matched)):
            for start in range(0, len(rows), self.compute.micro_rows):
                yield match, rows[start : start + self.compute.micro_rows]

    def _step(self) -> tuple[float, float, float]:
        """One optimizer step; returns mean loss in nats per token, gradient norm before clipping, body rate."""
        factor = self.schedule(
            self.step,
            self.settings.steps,
            warmup=self.warmup,
            decay=self.settings.decay,
            minimum=self.settings.minimum,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        # For models with dropout: what is dropped must not depend on where the run was interrupted.
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        total = 0.0
        for match, rows in self._batch():
            ids, positions, labels = (self._tensor(rows, name) for name in ("ids", "positions", "labels"))
            with autocast(self.device, self.dtype):
                if match and self.divergence:
                    loss = self.divergence(ids, positions) / self.step_tokens
                else:
                    loss = self.loss(ids, positions, labels) / self.step_tokens
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise TrainingError(
                f"loss {total} and gradient norm {norm} at step {self.step + 1} are not finite; nothing of this step "
                f"was kept: lower the learning rates (now {self.settings.learning_rate:g}, "
                f"{self.settings.new_rows_learning_rate:g}) and run again"
            )
        with self.old_rows.held_back():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm, self.settings.learning_rate * factor

    def _tensor(self, rows: list[Row], name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(row, name) for row in rows])).to(self.device)

    def _record(self, metrics: dict[str, Any]) -> None:
        with (self.out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def _save(self) -> None:
        started = time.perf_counter()
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {"step": self.step, "seconds": self.seconds, "loss": self.last_loss},
            "settings": asdict(self.settings),
        }
        checkpoint.save(self.out / "checkpoints", self.step, state, keep=self.compute.keep_checkpoints)
        self.seconds += time.perf_counter() - started

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint; metrics after it are dropped.

        Raises:
            TrainingError: the checkpoint belongs to a run with other settings.
        """
        (self.out / "checkpoints").mkdir(parents=True, exist_ok=True)
        for half_written in self.out.glob(f"{TEMPORARY}*model-*"):
            shutil.rmtree(half_written)
        found = checkpoint.load_latest(self.out / "checkpoints", self.log)
        metrics = self.out / METRICS
        if found is None:
            metrics.unlink(missing_ok=True)
            return
        self.step, state = found
        ours = json.loads(json.dumps(asdict(self.settings)))
        changed = [f"{k} {v} -> {ours.get(k)}" for k, v in state["settings"].items() if v != ours.get(k)]
        if changed:
            raise TrainingError(
                f"the checkpoints in {self.out} belong to a run with other settings ({', '.join(changed)}); "
                "use those settings, give another folder, or delete this one"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds, self.last_loss = state["progress"]["seconds"], state["progress"]["loss"]
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
        kept = [line for line in lines[: self.step] if line.endswith("}")]
        atomic_write(metrics, "".join(line + "\n" for line in kept))
        self.log.say(f"pretrain: going on from step {self.step} of {self.settings.steps}")

    def _write_model(self) -> None:
        with staged_folder(self.out / "model") as staging:
            self.model.save_pretrained(staging)
            for file in sorted(self.model_folder.iterdir()):
                # Configs and tokenizer travel unchanged; only the weights are new.
                if (
                    file.is_file()
                    and file.suffix in (".json", ".jinja", ".model", ".txt")
                    and "safetensors" not in file.name
                ):
                    shutil.copyfile(file, staging / file.name)

    def _summary(self) -> dict[str, Any]:
        tokens = self.settings.steps * self.step_tokens
        share = self.settings.replay_ratio if self.replay else 0.0
        return {
            "steps": self.settings.steps,
            "tokens": tokens,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(tokens / self.seconds, 1) if self.seconds else None,
            "target_bytes": round(tokens * (1 - share) * self.target.bytes_per_token),
            "replay_ratio": share,
            "last_loss": self.last_loss,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
        }


@contextmanager
def _stop_requested() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM, so that the loop ends after a whole step."""
    names: list[str] = []

    def remember(number: int, _: Any) -> None:
        names.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield names
        return
    old = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield names
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
