"""The training loop: continual pretraining with replay, exact resume, and nothing hidden.

What a step computes depends on (model, data, settings, step) alone, so a run that is killed and started again
ends with the same bits on the same machine and thread count.
"""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langgraft.errors import Interrupted, TrainingError
from langgraft.methods import resolve
from langgraft.progress import Log
from langgraft.store import atomic_write, staged_folder
from langgraft.training import checkpoint
from langgraft.training.device import autocast, choose_device, choose_dtype, set_threads
from langgraft.training.loss import loss_function
from langgraft.training.packing import Packed, interleave
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
    compute: Compute | None = None,
    log: Log | None = None,
) -> dict[str, Any]:
    """Train the model in `model_folder` on packed rows; writes `out/model`, resumable until then.

    `target` and `replay` are packed folders; `old_rows` is the number of rows the base had. Returns a summary
    with steps, tokens, seconds and the last loss.

    Raises:
        TrainingError: the loss is not a number, or no checkpoint is usable.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written, the same call resumes.
    """
    return _Run(
        model_folder, out, target, replay, old_rows, settings, compute or Compute(), log or Log()
    ).go()


class _Run:
    """One training run: the objects a step needs, and the step."""

    def __init__(
        self,
        model_folder: Path,
        out: Path,
        target: Path,
        replay: Path | None,
        old_rows: int,
        settings: Settings,
        compute: Compute,
        log: Log,
    ) -> None:
        from transformers import AutoModelForCausalLM

        set_threads(compute.threads)
        self.settings, self.compute, self.log, self.out = settings, compute, log, out
        self.model_folder = model_folder
        self.device = choose_device(compute.device)
        self.dtype = choose_dtype(compute.dtype, self.device)
        self.model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).to(self.device)
        self.model.train()
        self.loss = loss_function(self.model)
        groups = parameter_groups(
            self.model,
            learning_rate=settings.learning_rate,
            new_rows_learning_rate=settings.new_rows_learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.optimizer = torch.optim.AdamW(
            groups, betas=settings.betas, eps=1e-8, fused=self.device.type != "mps"
        )
        ratio = settings.old_rows_learning_rate / settings.new_rows_learning_rate
        self.old_rows = OldRows(self.model, old_rows, min(ratio, 1.0))
        self.target = Packed(target, length=settings.length, seed=settings.seed)
        self.replay = Packed(replay, length=settings.length, seed=settings.seed) if replay else None
        self.schedule = resolve(SCHEDULES, settings.schedule, what="schedule")
        self.warmup = max(round(settings.warmup * settings.steps), 1)
        self.step = 0
        self.seconds = 0.0

    def go(self) -> dict[str, Any]:
        self._resume()
        tokens = self.settings.batch_rows * self.settings.length
        progress = self.log.progress(
            "pretrain", self.settings.steps * tokens, unit="tokens", done=self.step * tokens
        )
        last = math.nan
        with _stop_requested() as stop:
            while self.step < self.settings.steps:
                started = time.perf_counter()
                last, norm, rate = self._step()
                self.step += 1
                self.seconds += time.perf_counter() - started
                self._record({"step": self.step, "loss": last, "gradient_norm": norm, "learning_rate": rate,
                              "tokens": self.step * tokens, "seconds": round(self.seconds, 3)})  # fmt: skip
                progress.advance(tokens, f"step {self.step}, loss {last:.3f}")
                finished = self.step == self.settings.steps
                if stop or (self.step % self.compute.checkpoint_every == 0 and not finished):
                    self._save()
                if stop and not finished:
                    raise Interrupted(
                        f"stopped at step {self.step} by {stop[0]}; run the same command to go on"
                    )
        self._write_model()
        return self._summary(last)

    def _batch(self) -> Iterator[tuple[bool, list[Any]]]:
        """The step's rows in micro-batches."""
        first = self.step * self.settings.batch_rows
        rows = []
        for index in range(first, first + self.settings.batch_rows):
            is_replay, own = interleave(index, self.settings.replay_ratio if self.replay else 0.0)
            rows.append((self.replay if is_replay and self.replay else self.target).row(own))
        for start in range(0, len(rows), self.compute.micro_rows):
            yield False, rows[start : start + self.compute.micro_rows]

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
        tokens = self.settings.batch_rows * self.settings.length
        total = 0.0
        for _, rows in self._batch():
            ids, positions, labels = (self._tensor(rows, name) for name in ("ids", "positions", "labels"))
            with autocast(self.device, self.dtype):
                loss = self.loss(ids, positions, labels) / tokens
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise TrainingError(
                f"loss {total} and gradient norm {norm} at step {self.step + 1} are not finite; nothing of this step was kept: "
                f"lower the learning rates (now {self.settings.learning_rate:g}, {self.settings.new_rows_learning_rate:g}) and run again"
            )
        with self.old_rows.held_back():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm, self.settings.learning_rate * factor

    def _tensor(self, rows: list[Any], name: str) -> Tensor:
        import numpy as np

        return torch.from_numpy(np.stack([getattr(row, name) for row in rows])).to(self.device)

    def _record(self, metrics: dict[str, Any]) -> None:
        with (self.out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def _save(self) -> None:
        started = time.perf_counter()
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {"step": self.step, "seconds": self.seconds},
        }
        checkpoint.save(self.out / "checkpoints", self.step, state, keep=self.compute.keep_checkpoints)
        self.seconds += time.perf_counter() - started

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint; metrics after it are dropped."""
        (self.out / "checkpoints").mkdir(parents=True, exist_ok=True)
        found = checkpoint.load_latest(self.out / "checkpoints", self.log)
        metrics = self.out / METRICS
        if found is None:
            metrics.unlink(missing_ok=True)
            return
        self.step, state = found
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds = state["progress"]["seconds"]
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
        kept = [line for line in lines[: self.step] if line.endswith("}")]
        atomic_write(metrics, "".join(line + "\n" for line in kept))
        self.log.say(f"pretrain: going on from step {self.step} of {self.settings.steps}")

    def _write_model(self) -> None:
        import shutil

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

    def _summary(self, last: float) -> dict[str, Any]:
        tokens = self.settings.steps * self.settings.batch_rows * self.settings.length
        share = self.settings.replay_ratio if self.replay else 0.0
        return {
            "steps": self.settings.steps,
            "tokens": tokens,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(tokens / self.seconds, 1) if self.seconds else None,
            "target_bytes": round(tokens * (1 - share) * self.target.bytes_per_token),
            "replay_ratio": share,
            "last_loss": last,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
        }


@contextmanager
def _stop_requested() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM, so that the loop ends after a whole step."""
    names: list[str] = []

    def remember(number: int, _: Any) -> None:
        names.append(signal.Signals(number).name)

    import threading

    if threading.current_thread() is not threading.main_thread():
        yield names
        return
    old = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield names
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
