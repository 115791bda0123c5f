"""Log-likelihoods from a GGUF file on llama.cpp, a text at a time."""

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from langgraft.errors import InputError
from langgraft.evaluation.likelihood import DocumentBits, Prompt, Written, shared, windows
from langgraft.progress import Log
from langgraft.serving.generate import answer, chat_prompt
from langgraft.serving.gguf import GgufModel
from langgraft.serving.model import cores
from langgraft.serving.sampling import Sampling

ROWS = 16  # places whose loss is taken at once


class GgufScorer:
    """See `langgraft.evaluation.likelihood.Scorer`."""

    kind = "gguf"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self.path, self.model = path, GgufModel(path, threads=cores(threads))

    def documents(
        self,
        texts: Sequence[str],
        *,
        window: int,
        stride: int,
        done: Collection[int] = (),
        log: Log | None = None,
        what: str = "",
    ) -> Iterator[list[DocumentBits]]:
        """Bits of every document but those `done`, one after the other.

        Raises:
            InputError: the window is longer than the model's context.
        """
        if window > self.model.context:
            raise InputError(f"{self.path} reads {self.model.context:,} tokens, fewer than the window of {window:,}")
        encoded = [self.model.encode(text, chat=True) for text in texts]
        sizes = [sum(map(len, encoded)), sum(len(ids) for i, ids in enumerate(encoded) if i in done)]
        progress = log.progress(what, sizes[0], unit="tokens", done=sizes[1]) if log else None
        for i, ids in enumerate(encoded):
            if i in done:
                continue
            parts = windows(i, ids, self.model.first[-1], window, stride)
            yield [DocumentBits(i, sum(self._bits(part.ids, 1 + part.score_from) for part in parts), len(ids))]
            if progress:
                progress.advance(len(ids))

    def continuations(
        self, pairs: Sequence[tuple[str, str]], *, log: Log | None = None, what: str = ""
    ) -> list[tuple[float, int]]:
        """Bits and tokens of each text after its context."""
        progress = log.progress(what, len(pairs), unit="texts") if log and pairs else None
        found = []
        for context, text in pairs:
            whole, before = (self.model.encode(part, chat=True) for part in (context + text, context))
            start = min(shared([before, whole]), len(whole) - 1)
            found.append((self._bits([self.model.first[-1], *whole], start + 1), len(whole) - start))
            if progress:
                progress.advance()
        return found

    @property
    def chats(self) -> bool:
        """Whether the file holds a chat template."""
        return self.model.template is not None

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        line: bool = False,
        log: Log | None = None,
        what: str = "",
    ) -> list[Written]:
        """What the model writes after each prompt, one after the other; beginnings they share are read once."""
        progress = log.progress(what, len(prompts), unit="answers") if log and prompts else None
        sampling = Sampling(max_tokens=max_new_tokens, temperature=0, stop=("\n",) if line else ())
        found = []
        for prompt in prompts:
            plain = isinstance(prompt, str)
            if isinstance(prompt, str):
                ids = [self.model.first[-1], *self.model.encode(prompt, chat=True)]
            else:
                ids = chat_prompt(self.model, prompt)
            said = answer(self.model, ids, sampling, chat=not plain)
            ended = bool(said.tokens) and self.model.ends(said.tokens[-1].id)
            found.append(Written(said.text, "end" if ended else "line" if said.finish == "stop" else "length"))
            if progress:
                progress.advance()
        return found

    def _bits(self, ids: list[int], first: int) -> float:
        """Bits of `ids[first:]`."""
        logits, labels = self.model.all_logits(ids[:-1])[first - 1 :], np.array(ids[first:])
        total = 0.0
        for begin in range(0, len(labels), ROWS):
            part, wanted = logits[begin : begin + ROWS], labels[begin : begin + ROWS]
            highest = part.max(axis=1)
            logsum = highest + np.log(np.exp(part - highest[:, None]).sum(axis=1, dtype=np.float64))
            total += float((logsum - part[np.arange(len(wanted)), wanted]).sum())
        return total / math.log(2)

    def close(self) -> None:
        """Free what llama.cpp holds."""
        self.model.close()
