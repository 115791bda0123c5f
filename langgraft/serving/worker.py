"""One thread per model: requests wait in a bounded line, a few are answered side by side, a token each at a time."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langgraft.errors import LanggraftError
from langgraft.serving.generate import Piece, Writing, scored, text_of
from langgraft.serving.model import LanguageModel, shared
from langgraft.serving.sampling import Sampling

if TYPE_CHECKING:
    import numpy as np

Deliver = Callable[[Piece | Exception], None]


class QueueFullError(LanggraftError):
    """Too many requests are waiting."""


@dataclass
class Job:
    """A prompt on its way; `deliver` is called in the worker's thread, last with a finished piece or an error."""

    prompt: list[int]
    sampling: Sampling
    deliver: Deliver
    chat: bool = False
    echo: bool = False  # the prompt's own tokens come first, scored where log-probabilities are wanted
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self.cancelled.set()


@dataclass
class _Active:
    """A job with its slot; `writing` is there from its first turn on."""

    job: Job
    slot: int
    writing: Writing | None = None
    done: bool = False

    def tell(self, said: Piece | Exception) -> None:
        self.done = isinstance(said, Exception) or said.finish is not None
        self.job.deliver(said)


class Worker:
    """Owns a model: no other thread may touch it, except to make prompts."""

    def __init__(self, model: LanguageModel, *, waiting: int = 64) -> None:
        self.model, self.waiting = model, waiting
        self._line: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._active: list[_Active] = []
        self._thread = threading.Thread(target=self._work, name="langgraft-worker", daemon=True)
        self._thread.start()

    def submit(self, jobs: list[Job]) -> None:
        """Put the jobs of one request in line, all or none.

        Raises:
            QueueFullError: the line is full.
        """
        with self._changed:
            if len(self._line) + len(jobs) > self.waiting + self.model.slots - len(self._active):
                raise QueueFullError(f"{len(self._line)} requests are waiting already; try again in a while")
            self._line.extend(jobs)
            self._changed.notify()

    def close(self) -> None:
        """Stop after the current step, and free the model; who still waits is told."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        for job in [*self._line, *(active.job for active in self._active)]:
            job.deliver(LanggraftError("the server is shutting down"))
        self.model.close()

    def _work(self) -> None:
        while self._admit():
            for active in self._active:
                if active.writing is None and not active.job.cancelled.is_set():
                    self._begin(active)
            self._round([active for active in self._active if not (active.done or active.job.cancelled.is_set())])
            with self._changed:
                self._active = [a for a in self._active if not (a.done or a.job.cancelled.is_set())]

    def _begin(self, active: _Active) -> None:
        """A job's first turn: its prompt is checked, and scored where it is to come first."""
        job = active.job
        try:
            if job.echo:
                top = job.sampling.logprobs
                tokens = () if top is None else tuple(scored(self.model, job.prompt, top, slot=active.slot))
                active.tell(Piece(text_of(self.model, job.prompt), tokens))
            active.writing = Writing(self.model, job.prompt, job.sampling, chat=job.chat)
        except Exception as error:  # whatever happens, the one who asked is told, and the others go on
            active.tell(error)
            return
        if active.writing.finish is not None:
            active.tell(Piece("", (), active.writing.finish))

    def _round(self, going: list[_Active]) -> None:
        """A token for every job."""
        writings = {active.slot: active.writing for active in going if active.writing is not None}
        found = self._read({slot: writing.ids for slot, writing in writings.items()})
        for active in going:
            logits = found[active.slot]
            try:
                active.tell(logits if isinstance(logits, Exception) else writings[active.slot].take(logits))
            except Exception as error:
                active.tell(error)

    def _read(self, texts: dict[int, list[int]]) -> "dict[int, np.ndarray | Exception]":
        """What may follow each text. Where the model fails on all together, each is read alone: one may be good."""
        try:
            return dict(self.model.next_logits(texts)) if texts else {}
        except Exception as error:
            if len(texts) == 1:
                return dict.fromkeys(texts, error)
        return {slot: found for one in texts.items() for slot, found in self._read(dict([one])).items()}

    def _admit(self) -> bool:
        """Give free slots to those who wait; sleeps where there is nothing to do; False at the end."""
        with self._changed:
            while not self._closing:
                while self._line and len(self._active) < self.model.slots:
                    self._start(self._line.popleft())
                if self._active:
                    return True
                self._changed.wait()
            return False

    def _start(self, job: Job) -> None:
        """Begin in the free slot that remembers most of the prompt, else in the one that loses least."""
        if job.cancelled.is_set():
            return
        taken = {active.slot for active in self._active}
        free = [slot for slot in range(self.model.slots) if slot not in taken]
        known = {slot: shared(self.model.remembered(slot), job.prompt) for slot in free}
        slot = max(free, key=lambda slot: (known[slot], -len(self.model.remembered(slot))))
        self._active.append(_Active(job, slot))
