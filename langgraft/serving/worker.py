"""One thread per model: requests wait in a bounded line, a few are answered side by side, token by token."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from langgraft.errors import LanggraftError
from langgraft.serving.generate import Piece, generate, scored, text_of
from langgraft.serving.model import LanguageModel, shared
from langgraft.serving.sampling import Sampling

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


class Worker:
    """Owns a model: no other thread may touch it, except to make prompts."""

    def __init__(self, model: LanguageModel, *, waiting: int = 64) -> None:
        self.model, self.waiting = model, waiting
        self._line: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._active: deque[tuple[Job, int, Iterator[Piece]]] = deque()
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
        for job in [*self._line, *(job for job, _, _ in self._active)]:
            job.deliver(LanggraftError("the server is shutting down"))
        self.model.close()

    def _work(self) -> None:
        while self._admit():
            job, slot, pieces = self._active[0]
            done = job.cancelled.is_set() or self._step(job, pieces)
            with self._changed:
                self._active.popleft()
                if not done:
                    self._active.append((job, slot, pieces))

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
        taken = {slot for _, slot, _ in self._active}
        free = [slot for slot in range(self.model.slots) if slot not in taken]
        known = {slot: shared(self.model.remembered(slot), job.prompt) for slot in free}
        slot = max(free, key=lambda slot: (known[slot], -len(self.model.remembered(slot))))
        self._active.append((job, slot, _pieces(self.model, job, slot)))

    def _step(self, job: Job, pieces: Iterator[Piece]) -> bool:
        """One token of one job; True when it is done."""
        try:
            piece = next(pieces)
        except Exception as error:  # whatever happens, the one who asked is told, and the others go on
            job.deliver(error)
            return True
        job.deliver(piece)
        return piece.finish is not None


def _pieces(model: LanguageModel, job: Job, slot: int) -> Iterator[Piece]:
    if job.echo:
        top = job.sampling.logprobs
        tokens = () if top is None else tuple(scored(model, job.prompt, top, slot=slot))
        yield Piece(text_of(model, job.prompt), tokens)
    yield from generate(model, job.prompt, job.sampling, slot=slot, chat=job.chat)
