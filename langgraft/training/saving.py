"""A run's checkpoints and metrics: saving a learner, finding where to go on, ending after a whole step."""

import json
import shutil
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from langgraft.errors import TrainingError
from langgraft.progress import Log
from langgraft.store import TEMPORARY, atomic_write, disk_errors
from langgraft.training import checkpoint
from langgraft.training.learner import Learner
from langgraft.training.parallel import Group
from langgraft.training.regions import Shard
from langgraft.training.together import write_parts

METRICS = "metrics.jsonl"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C, the end of a lease, and Slurm's warning before it


class Saving:
    """What lies in a run's folder `out` beside the model: `checkpoints/` and `metrics.jsonl`.

    `settings` are all that decides what is learned; a checkpoint of a run with others is refused. In the
    `background`, a save copies the tensors and returns; a thread writes them, and the next save waits for it.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        *,
        keep: int,
        log: Log,
        background: bool = False,
        group: Group | None = None,
    ) -> None:
        self.out, self.keep, self.log, self.group = out, keep, log, group or Group.alone()
        self.thread = ThreadPoolExecutor(1) if background else None
        # A thread's messages must not be taken for those that the training sends meanwhile.
        self.writers = self.group.apart() if background else self.group
        self.writing: Future[None] | None = None
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.folder, self.metrics = out / "checkpoints", out / METRICS
        self.saved = -1

    def save(self, learner: Learner, progress: dict[str, Any], *, best: Collection[int] = ()) -> None:
        """Write a checkpoint after step `progress["step"]`, if it is not there yet; those of `best` steps are kept.

        Raises:
            DiskFullError: no space is left, now or when the checkpoint before was written in the background.
            TrainingError: the weights are not finite; they would be what a later start goes on with.
        """
        step = progress["step"]
        if self.saved == step:
            return
        self.wait()
        if not learner.finite():
            raise TrainingError(
                f"weights are not finite after step {step}, and were not saved; lower the learning rates, or delete "
                f"{self.folder} to start afresh"
            )
        state = {**learner.state(), "progress": progress, "settings": self.settings}
        if self.thread is None:
            self._write(step, state, best)
        else:
            self.writing = self.thread.submit(self._write, step, copied(state), best)
        self.saved = step

    def _write(self, step: int, state: dict[str, Any], best: Collection[int]) -> None:
        if self.group.world == 1:
            checkpoint.save(self.folder, step, state, keep=self.keep, best=best)
        else:
            self._write_together(step, state, best)

    def _write_together(self, step: int, state: dict[str, Any], best: Collection[int]) -> None:
        """Each process writes its parts; when all are on disk, the first one puts the folder in its place."""
        target = self.folder / checkpoint.name_of(step)
        staging = target.with_name(f"{TEMPORARY}{target.name}")
        plain = {key: value for key, value in state.items() if key not in checkpoint.TENSORS}
        self.writers.first(lambda: _fresh(staging))
        parts = {key: value for key, value in state.items() if key in checkpoint.TENSORS}
        files = write_parts(staging, parts, self.writers)

        def finish() -> None:
            # A target that is there already is a damaged one that was passed over.
            shutil.rmtree(target, ignore_errors=True)
            checkpoint.finish(staging, target, step, plain, files)
            checkpoint.drop_surplus(self.folder, step, self.keep, best)

        self.writers.first(finish)

    def wait(self) -> None:
        """Wait until what was saved is on the device; raises what went wrong there."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    @contextmanager
    def written(self) -> Iterator[None]:
        """However the block ends, no checkpoint is half-written then, and none failed without a word."""
        try:
            yield
        finally:
            if self.thread is not None:
                self.thread.shutdown()
            self.wait()

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest whole checkpoint, None where there is none; metrics after it are dropped.

        Raises:
            TrainingError: every checkpoint is damaged, or it belongs to a run with other settings.
        """
        step = self.group.first(self._newest_step)
        if step is None:
            return None
        state = checkpoint.load(self.folder, step)
        then = state["settings"]
        changed = [f"{k} {v} -> {self.settings.get(k)}" for k, v in then.items() if v != self.settings.get(k)]
        if changed:
            raise TrainingError(
                f"the checkpoints in {self.out} belong to a run with other settings ({', '.join(changed)}); "
                "use those settings, give another folder, or delete this one"
            )
        self.group.first(lambda: self.cut_metrics(step))
        return step, state

    def at(self, step: int) -> dict[str, Any]:
        """The state of the checkpoint of one step.

        Raises:
            TrainingError: it is damaged or not there.
        """
        self.group.first(lambda: checkpoint.require(self.folder, step))
        return checkpoint.load(self.folder, step)

    def _newest_step(self) -> int | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("model", "adapter"):
            for half_written in self.out.glob(f"{TEMPORARY}*{name}-*"):
                shutil.rmtree(half_written)
        step = checkpoint.newest(self.folder, self.log)
        if step is None:
            self.metrics.unlink(missing_ok=True)
        return step

    def cut_metrics(self, step: int) -> None:
        """Drop the lines of metrics of steps after `step`, and what a killed process left of a line."""
        lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else []
        kept = [line for line in lines[:step] if line.endswith("}")]
        atomic_write(self.metrics, "".join(line + "\n" for line in kept))


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with disk_errors(folder):
        folder.mkdir(parents=True)


def copied(state: Any, known: dict[Any, torch.Tensor] | None = None) -> Any:
    """The same dicts and lists with tensors, or parts of some, of their own, in main memory.

    What shares memory (a tied head) does so.
    """
    known = {} if known is None else known
    if isinstance(state, dict):
        return {key: copied(value, known) for key, value in state.items()}
    if isinstance(state, list):
        return [copied(value, known) for value in state]
    if isinstance(state, Shard):
        return Shard(state.region, copied(state.tensor, known))
    if not isinstance(state, torch.Tensor):
        return state
    place = (state.data_ptr(), state.shape, state.dtype) if state.numel() else id(state)
    if place not in known:
        known[place] = state.detach().to("cpu", copy=True)
    return known[place]


@contextmanager
def stop_requested() -> Iterator[list[str]]:
    """Collect the names of signals that ask to stop, so that the loop ends after a whole step."""
    names: list[str] = []

    def remember(number: int, _: Any) -> None:
        names.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield names
        return
    old = {number: signal.signal(number, remember) for number in SIGNALS}
    try:
        yield names
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
