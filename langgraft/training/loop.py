"""The training loop: continual pretraining with replay, exact resume, and nothing hidden.

What a step computes depends on (model, data, settings, step) alone, so a run that is killed and started again
ends with the same bits on the same machine and thread count.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langgraft.errors import Interrupted, RecipeError, TrainingError
from langgraft.methods import resolve
from langgraft.progress import Log, Progress
from langgraft.training.cursor import Cursor, Segment
from langgraft.training.device import (
    autocast,
    choose_device,
    choose_dtype,
    keep_freed_memory,
    load_model,
    load_quantized,
    set_threads,
)
from langgraft.training.judging import judged
from langgraft.training.kernels import Kernels, check_kernels, decided, prepare
from langgraft.training.learner import Learner, Rates, describe
from langgraft.training.loss import divergence_function, loss_function
from langgraft.training.mixture import open_rows
from langgraft.training.modes import Lora, Phase, check_phases, check_quantization, spans
from langgraft.training.optimizers import check_optimizer
from langgraft.training.packing import IGNORED, Packed, Row
from langgraft.training.parallel import Group, Layout, check_together, join, load_sharded, share_batch
from langgraft.training.retention import GoBack, Measure, Measurement, Retention, Watch
from langgraft.training.saving import METRICS as METRICS
from langgraft.training.saving import Saving, stop_requested
from langgraft.training.schedule import SCHEDULES
from langgraft.training.speed import Speedometer, flops_per_token, peak_memory
from langgraft.training.taking import note_source
from langgraft.training.tracking import Tracking
from langgraft.training.vocabulary import sharded_divergence, sharded_loss


@dataclass(frozen=True)
class Settings:
    """What to learn and how fast. `batch_rows` rows of `length` tokens make one optimizer step.

    `phases` say what learns, one after the other; `z_loss` is the weight of that loss (0 for none), `ema_decay` the
    decay of a moving average of the weights that becomes the result (0 for none).
    """

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
    phases: tuple[Phase, ...] = (Phase(),)
    lora: Lora = field(default_factory=Lora)
    z_loss: float = 0.0
    ema_decay: float = 0.0
    optimizer: str = "adamw"


@dataclass(frozen=True)
class Compute:
    """How and where; changes nothing about what is learned except rounding.

    With a `layout`, all processes that torchrun started train one model; without, this one trains alone.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    micro_rows: int = 4
    checkpoint_every: int = 50
    keep_checkpoints: int = 2
    async_checkpoints: bool = False
    attention: str = "auto"
    compile: bool | str = "auto"
    activation_checkpointing: bool = False
    report_to: tuple[str, ...] = ()
    layout: Layout | None = None


def train(
    model_folder: Path,
    out: Path,
    *,
    target: Path,
    replay: Path | None,
    old_rows: int,
    settings: Settings,
    teacher: Path | None = None,
    base: str = "",
    compute: Compute | None = None,
    log: Log | None = None,
    after_step: Callable[[int, Any], None] | None = None,
    retention: Retention | None = None,
    name: str = "pretrain",
) -> dict[str, Any]:
    """Train the model in `model_folder` on packed rows; writes `out/model`, resumable until then.

    Where nothing changes but one LoRA and new rows, `out/adapter` holds just these (see adapter.py), and `out/model`
    both merged. `base` is the name of the model that `model_folder` was extended from, for the adapter.

    `target` and `replay` are packed folders, the first may be a mixture, or hold conversations, of which the answers
    alone count in the loss; `old_rows` is the number of rows the base had. With a `teacher` (the base's folder;
    `replay` must then be packed with the base's tokenizer), replay rows teach the model to predict what the teacher
    predicts instead of the text itself. `after_step(step, model)` may look at the model between steps; `retention`
    measures it there, and may stop the run or turn it back (see retention.py). Returns a summary with steps, tokens,
    seconds and the last loss; `name` is who the log says trains.

    Raises:
        RecipeError: rates or phases do not fit together or to the model, or the device is not there.
        TrainingError: the loss is not a number, no checkpoint is usable, or those in `out` belong to a run with
            other settings.
        Interrupted: SIGINT, SIGTERM or SIGUSR1 came; a checkpoint was written, the same call resumes.

    With `compute.layout`, every process calls it alike; the first one writes, and all return the summary.
    """
    data, compute = _Data(target, replay, teacher, old_rows, base, name), compute or Compute()
    if compute.layout is None:
        group = Group.alone()
    else:
        join(compute.device)
        group = Group(compute.layout)
    check_together(settings, group.layout, group.world)
    shown = (log or Log()) if group.first_process else Log(quiet=True)
    ratio = settings.replay_ratio if replay else 0.0
    watch = None
    if retention:
        watch = Watch(retention, out, shown, ratio=ratio, batch_rows=settings.batch_rows, group=group)
    finish: int | None = None
    while True:
        # Turning back is a start like any other, from an earlier checkpoint: nothing is left of what was thrown away.
        run = _Run(model_folder, out, data, settings, compute, shown, group, watch)
        try:
            return run.go(after_step) if finish is None else run.finish(finish)
        except GoBack as back:
            finish = back.step if back.finish else None
        del run
        gc.collect()  # the model is in cycles, and the next one needs the room


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
    """What a run learns from, how many rows are old, and what the log calls it."""

    target: Path
    replay: Path | None
    teacher: Path | None
    old_rows: int
    base: str
    name: str


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
        group: Group,
        watch: Watch | None = None,
    ) -> None:
        check_phases(settings.phases, settings.lora)
        rates = Rates(
            settings.learning_rate, settings.new_rows_learning_rate, old_rows_share(settings), settings.weight_decay,
            settings.betas, settings.ema_decay, settings.optimizer,
        )  # fmt: skip
        parts = spans(settings.phases, settings.steps)
        set_threads(compute.threads)
        keep_freed_memory()
        self.settings, self.compute, self.log, self.out, self.data = settings, compute, log, out, data
        self.model_folder, self.group = model_folder, group
        self.device = choose_device(compute.device)
        self.dtype = choose_dtype(compute.dtype, self.device)
        check_quantization(settings.lora, self.device)
        check_optimizer(settings.optimizer, self.device)
        kernels = Kernels(compute.attention, compute.compile, compute.activation_checkpointing)
        check_kernels(kernels, self.device)
        self.step_tokens = settings.batch_rows * settings.length
        self.tracking = Tracking(out, compute.report_to if group.first_process else (), asdict(settings))
        if group.first_process:
            note_source(out, model_folder, old_rows=data.old_rows, base=data.base)
        self.speed = Speedometer(self.device, self.dtype, processes=group.world)
        self.model = self._load(model_folder)
        flops = flops_per_token(self.model) * settings.steps * self.step_tokens
        kernels = decided(kernels, self.device, flops=flops, processes=group.world, log=log)
        prepare(self.model, kernels, self.dtype, log, rows=compute.micro_rows)
        make_loss = loss_function if group.world == 1 else sharded_loss
        self.loss = make_loss(self.model, z_loss=settings.z_loss)
        self.divergence = self._divergence(data)
        self.learner = Learner(
            self.model, parts, settings.lora, rates, first_row=data.old_rows, seed=settings.seed, group=group
        )
        self.target = open_rows(data.target, length=settings.length, seed=settings.seed)
        self.replay = Packed(data.replay, length=settings.length, seed=settings.seed) if data.replay else None
        self.schedule = resolve(SCHEDULES, settings.schedule, what="schedule")
        self.saving = Saving(
            out, asdict(settings), keep=compute.keep_checkpoints, log=log, background=compute.async_checkpoints,
            group=group,
        )  # fmt: skip
        self.watch = watch
        ratio = settings.replay_ratio if data.replay else 0.0
        self.cursor = watch.cursor if watch else Cursor([Segment(0, ratio)], settings.batch_rows)
        self.step = 0
        self.seconds = 0.0
        self.last_loss = math.nan

    def _load(self, folder: Path) -> Any:
        if self.group.world > 1:
            arithmetic = share_batch(
                self.settings.batch_rows, self.settings.length, self.compute.micro_rows, self.group.data_parallel
            )
            self.log.say(f"{self.data.name}: {self.group}; {arithmetic}")
            return load_sharded(folder, self.group, bfloat16=self.dtype is torch.bfloat16)
        load = load_model if self.settings.lora.quantize == "none" else load_quantized
        return load(folder, self.device)

    def _divergence(self, data: _Data) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The loss on replay rows when there is a teacher."""
        if data.teacher is None or data.replay is None:
            return None
        make = divergence_function if self.group.world == 1 else sharded_divergence
        return make(self.model, load_model(data.teacher, self.device), rows=data.old_rows)

    def _enter(self, number: int) -> None:
        self.learner.enter(number)
        self.speed.learn(self.model)
        if self.settings.phases != (Phase(),):
            self.log.say(f"{self.data.name}: {describe(self.learner)}")

    def go(self, after_step: Callable[[int, Any], None] | None) -> dict[str, Any]:
        """Resume, take every step that is left, write the model; returns the summary."""
        self._resume()
        steps, tokens = self.settings.steps, self.step_tokens
        self._watched()
        progress = self.log.progress(self.data.name, steps * tokens, unit="tokens", done=self.step * tokens)
        self.tracking.begin(self.step)
        with closing(self.tracking), self.saving.written(), stop_requested() as asked:
            while self.step < steps:
                if (number := self.learner.due(self.step)) != self.learner.number:
                    self._enter(number)
                self._advance(progress)
                if after_step is not None:
                    after_step(self.step, self.model)
                self._watched()
                finished = self.step == steps
                stop = self._agreed(asked)
                if stop or (self.step % self.compute.checkpoint_every == 0 and not finished):
                    self._save()
                if stop and not finished:
                    raise Interrupted(f"stopped at step {self.step} by {stop[0]}; run the same command to go on")
        return self._written()

    def finish(self, step: int) -> dict[str, Any]:
        """End with the checkpoint of `step`, or with the model as it was where that is 0; returns the summary."""
        self.step = step
        self._enter(self.learner.due(step - 1))
        if step:
            self._take(self.saving.at(step))
        return self._written()

    def _written(self) -> dict[str, Any]:
        self.learner.end()
        return self._summary(self.learner.write(self.out, self.model_folder, self.data.base))

    def _agreed(self, asked: list[str]) -> list[str]:
        """The signals that any process got: all of them stop after the same step, or none."""
        if self.group.world == 1 or not self.group.sums(bool(asked))[0]:
            return asked if self.group.world == 1 else []
        return [name for names in self.group.gathered(list(asked)) for name in names]

    def _watched(self) -> None:
        """Let the watch look at the model between steps; what it does changes no bit of the training."""
        if self.watch is None:
            return
        if self.step == self.settings.steps or self.watch.due(self.step, self.settings.steps):
            self.saving.wait()  # what is decided depends on the checkpoints there are

        def measure(function: Measure | None) -> Measurement:
            return judged(self.learner, function, self.model_folder, self.device, self.dtype)

        self.watch.after_step(self.step, self.settings.steps, measure, self._save)

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
                "mode": self.learner.span.phase.mode,
                "loss": self.last_loss,
                "gradient_norm": norm,
                "learning_rate": rate,
                "tokens": self.step * self.step_tokens,
                "seconds": round(self.seconds, 3),
                **self.speed.figures(self.step_tokens, self._target_bytes(self.step - 1), elapsed),
            }
        )
        progress.advance(self.step_tokens, f"step {self.step}, loss {self.last_loss:.3f}")

    def _target_bytes(self, step: int) -> float:
        """Bytes of text in the new language that a step reads."""
        rows = sum(not is_replay for is_replay, _ in self.cursor.rows(step))
        return rows * self.settings.length * self.target.bytes_per_place

    def _batch(self) -> Iterator[tuple[bool, list[Row], float]]:
        """This process's rows in micro-batches, each with whether it is to match the teacher, and its weight.

        Processes that share a model call it equally often; one without rows of a kind adds some that weigh nothing.
        """
        places = list(self.cursor.rows(self.step))
        split = [self._split(places[own.start : own.stop]) for own in self.group.shares(0, len(places))]
        for kind, match in ((0, False), (1, True)):
            own = split[self.group.data_rank][kind]
            passes = max(-(-len(parts[kind]) // self.compute.micro_rows) for parts in split)
            for start in range(0, passes * self.compute.micro_rows, self.compute.micro_rows):
                rows = own[start : start + self.compute.micro_rows]
                yield match, [self._row(*place) for place in rows or [(match, 0)]], 1.0 if rows else 0.0

    def _counted(self) -> int:
        """How many places of the step, in all processes, the loss is a mean over: those that have a label."""
        if not self.target.masked:
            return self.step_tokens
        places = list(self.cursor.rows(self.step))
        own = self.group.shares(0, len(places))[self.group.data_rank]
        labels = sum(int((self._row(*place).labels != IGNORED).sum()) for place in places[own.start : own.stop])
        return round(self.group.sums(labels)[0]) // self.group.layout.tensor_parallel

    def _split(self, places: list[tuple[bool, int]]) -> tuple[list[tuple[bool, int]], list[tuple[bool, int]]]:
        """Rows to learn the text of, and rows to match the teacher on; each as whether it is replay, and its index."""
        matched = [place for place in places if place[0] and self.divergence]
        return [place for place in places if not (place[0] and self.divergence)], matched

    def _row(self, is_replay: bool, index: int) -> Row:
        return self.replay.row(index) if is_replay and self.replay else self.target.row(index)

    def _step(self) -> tuple[float, float, float]:
        """One optimizer step; returns mean loss in nats per token, gradient norm before clipping, body rate."""
        span = self.learner.span
        factor = self.schedule(
            self.step - span.first,
            span.steps,
            warmup=max(round(self.settings.warmup * span.steps), 1),
            decay=self.settings.decay,
            minimum=self.settings.minimum,
        )
        # For models with dropout: what is dropped must not depend on where the run was interrupted.
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        total, counted = 0.0, self._counted()
        for match, rows, weight in self._batch():
            ids, positions, labels = (self._tensor(rows, name) for name in ("ids", "positions", "labels"))
            with autocast(self.device, self.dtype):
                if match and self.divergence:
                    loss = self.divergence(ids, positions) / counted
                else:
                    loss = self.loss(ids, positions, labels) / counted
            (loss * weight * self.group.data_parallel).backward()  # FSDP2 averages gradients; they are to be summed
            total += loss.item() * weight
        total = self.group.sums(total)[0] / self.group.layout.tensor_parallel
        norm = self.learner.clip(self.settings.gradient_clip).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise self._not_finite(total, norm)
        self.learner.step(factor)
        return total, norm, self.settings.learning_rate * factor

    def _not_finite(self, loss: float, norm: float) -> TrainingError:
        """What to raise when a step gave no numbers; the weights before it are saved, if these are numbers."""
        if self.step and self.learner.finite():
            self._save()
        return TrainingError(
            f"loss {loss} and gradient norm {norm} at step {self.step + 1} are not finite; nothing of this step "
            f"was kept: lower the learning rates (now {self.settings.learning_rate:g}, "
            f"{self.settings.new_rows_learning_rate:g}) and run again"
        )

    def _tensor(self, rows: list[Row], name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(row, name) for row in rows])).to(self.device)

    def _record(self, metrics: dict[str, Any]) -> None:
        if self.group.first_process:
            self.tracking.write(metrics)

    def _save(self) -> None:
        started = time.perf_counter()
        progress = {"step": self.step, "seconds": self.seconds, "loss": self.last_loss}
        self.saving.save(self.learner, progress, best=self.watch.best() if self.watch else ())
        self.seconds += time.perf_counter() - started

    def _resume(self) -> None:
        found = self.saving.newest()
        if self.watch:
            self.watch.begin(found[0] if found else 0)
        if found is None:
            self._enter(0)
            return
        self.step, state = found
        self._enter(self.learner.due(self.step - 1))
        self._take(state)
        self.log.say(f"{self.data.name}: going on from step {self.step} of {self.settings.steps}")

    def _take(self, state: dict[str, Any]) -> None:
        self.learner.load(state)
        self.seconds, self.last_loss = state["progress"]["seconds"], state["progress"]["loss"]

    def _summary(self, adapter_bytes: int | None) -> dict[str, Any]:
        tokens = self.step * self.step_tokens
        per_second = tokens / self.seconds if self.seconds else 0.0
        watched = {"retention": self.watch.summary(self.step)} if self.watch else {}
        return {
            **watched,
            "steps": self.step,
            "tokens": tokens,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(per_second, 1) or None,
            "mfu": round(self.speed.flops * per_second / self.speed.rate, 4),
            "matmul_flops": round(self.speed.rate),
            "peak_memory_bytes": peak_memory(self.device),
            "target_bytes": round(self.cursor.read(self.step)[0] * self.settings.length * self.target.bytes_per_place),
            "replay_ratio": self.cursor.segment(max(self.step - 1, 0)).ratio,
            "last_loss": self.last_loss,
            "modes": [phase.mode for phase in self.settings.phases],
            "adapter_bytes": adapter_bytes,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
        }
