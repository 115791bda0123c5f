"""Log-likelihoods from a hub folder on transformers: batched by length, contexts read once."""

import copy
import inspect
import math
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from langgraft.base import end_ids, separator_id
from langgraft.evaluation.likelihood import DocumentBits, Prompt, Window, Written, batches, shared, windows
from langgraft.evaluation.torch_writer import SHARED_PREFIX, Stops, prompt_ids, written
from langgraft.progress import Log, Progress
from langgraft.tokenizer.files import load
from langgraft.tokenizer.template import template_of
from langgraft.training.device import choose_device, keep_freed_memory, load_model, set_threads

BATCH_TOKENS = {"cpu": 2048}
"""Padded tokens of a batch, by device; more only costs memory on a CPU."""
OTHER_BATCH_TOKENS = 16_384
CPU_ROWS = 16
"""Places whose loss is taken at once on a CPU: their logits still lie in its cache."""


@dataclass(frozen=True)
class _Job:
    """A text after a context: `ids[start:]` is scored."""

    place: int
    context: str
    ids: list[int]
    start: int


class TorchScorer:
    """See `langgraft.evaluation.likelihood.Scorer`. A model in memory is used as it is, and left as it was."""

    def __init__(
        self,
        folder: Path,
        *,
        kind: str = "folder",
        device: str = "auto",
        threads: int = 0,
        model: Any = None,
        batch_tokens: int = 0,
        count_right: bool = False,
        new_from: int | None = None,
    ) -> None:
        set_threads(threads)
        keep_freed_memory()
        self.kind, self.folder = kind, folder
        self.tokenizer, self.separator = load(folder), separator_id(folder)
        self.model = load_model(folder, choose_device(device)) if model is None else model
        self.where = next(self.model.parameters()).device
        self._forward = inspect.signature(self.model.forward).parameters
        self._rows = CPU_ROWS if self.where.type == "cpu" else OTHER_BATCH_TOKENS
        self._count_right, self._new_from = count_right, sys.maxsize if new_from is None else new_from
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self.where.type, OTHER_BATCH_TOKENS)

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
        """Bits of every document but those `done`, as they are finished."""
        encoded = [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        every = batches(
            [w for i, ids in enumerate(encoded) for w in windows(i, ids, self.separator, window, stride)],
            self.batch_tokens,
        )
        # A batch is left out only whole: its other rows must be computed with the same neighbours as ever.
        todo = [batch for batch in every if not all(w.document in done for w in batch)]
        total, left = (sum(len(w.ids) for batch in part for w in batch) for part in (every, todo))
        progress = log.progress(what, total, unit="tokens", done=total - left) if log else None
        last = {w.document: number for number, batch in enumerate(todo) for w in batch}
        found_of: dict[int, np.ndarray] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            for number, batch in enumerate(todo):
                found = self._score([w.ids for w in batch], [1 + w.score_from for w in batch])
                for w, values in zip(batch, found, strict=True):
                    found_of[w.document] = found_of.get(w.document, 0.0) + values
                finished = sorted({w.document for w in batch if last[w.document] == number and w.document not in done})
                if finished:
                    yield [_document(i, len(encoded[i]), found_of[i]) for i in finished]
                if progress:
                    progress.advance(sum(len(w.ids) for w in batch))
        finally:
            self.model.train(was_training)

    def continuations(
        self, pairs: Sequence[tuple[str, str]], *, log: Log | None = None, what: str = ""
    ) -> list[tuple[float, int]]:
        """Bits and tokens of each text after its context; what contexts share is read once."""
        jobs = self._jobs(pairs)
        progress = log.progress(what, len(jobs), unit="texts") if log and jobs else None
        bits = [0.0] * len(jobs)
        was_training = self.model.training
        self.model.eval()
        try:
            for place, value in self._with_shared_contexts(jobs, progress):
                bits[place] = value
        finally:
            self.model.train(was_training)
        return [(bits[job.place], len(job.ids) - job.start) for job in jobs]

    @property
    def chats(self) -> bool:
        """Whether the folder has a chat template."""
        return template_of(self.folder) is not None

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        line: bool = False,
        log: Log | None = None,
        what: str = "",
    ) -> list[Written]:
        """What the model writes after each prompt, in batches of similar length; what all share is read once."""
        stops = Stops(self.tokenizer, end_ids(self.folder), line=line)
        rows = [prompt_ids(prompt, self.folder, self.tokenizer, self.separator) for prompt in prompts]
        progress = log.progress(what, len(rows), unit="answers") if log and rows else None
        was_training = self.model.training
        self.model.eval()
        try:
            found = {}
            for place, answer in written(self.model, rows, stops, self._read, self.separator, max_new_tokens):
                found[place] = answer
                if progress:
                    progress.advance()
        finally:
            self.model.train(was_training)
        return [found[place] for place in range(len(rows))]

    def _jobs(self, pairs: Sequence[tuple[str, str]]) -> list[_Job]:
        contexts = {context: self.tokenizer.encode(context, add_special_tokens=False).ids for context, _ in pairs}
        wholes = self.tokenizer.encode_batch([context + text for context, text in pairs], add_special_tokens=False)
        found = []
        for place, ((context, _), whole) in enumerate(zip(pairs, wholes, strict=True)):
            # Where a token reaches over the boundary, it is scored whole: text stays cut as the model knows it.
            start = min(shared([contexts[context], whole.ids]), len(whole.ids) - 1)
            found.append(_Job(place, context, [self.separator, *whole.ids], start + 1))
        return found

    def _with_shared_contexts(self, jobs: Sequence[_Job], progress: Progress | None) -> Iterator[tuple[int, float]]:
        """(place, bits) of every job, context by context; a beginning that all share is read once for all."""
        if not jobs:
            return
        common = min(shared([job.ids for job in jobs]), min(job.start for job in jobs) - 1)
        begun = self._read(jobs[0].ids[:common], None) if common >= SHARED_PREFIX else None
        before = common if begun is not None else 0
        in_order = sorted(jobs, key=lambda job: job.context)
        for _, of_context in groupby(in_order, key=lambda job: job.context):
            group = list(of_context)
            reach = min(shared([job.ids for job in group]), min(job.start for job in group) - 1)
            cache, past = begun, before
            if len(group) > 1 and reach - before >= SHARED_PREFIX:
                longer = self._read(group[0].ids[before:reach], copy.deepcopy(begun))
                cache, past = (longer, reach) if longer is not None else (begun, before)
            start = {job.place: job.start - past for job in group}
            for batch in batches([Window(job.place, job.ids[past:], 0) for job in group], self.batch_tokens):
                found = self._score([w.ids for w in batch], [start[w.document] for w in batch], cache)
                yield from ((w.document, float(values[0])) for w, values in zip(batch, found, strict=True))
                if progress:
                    progress.advance(len(batch))

    def _read(self, ids: list[int], cache: Any) -> Any:
        """A cache with `ids` read after what it holds; None for models whose state cannot be shared by rows."""
        from transformers.cache_utils import DynamicCache, DynamicLayer

        with torch.inference_mode():
            keep: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in self._forward else {}
            out = self.model(
                input_ids=torch.tensor([ids], device=self.where), past_key_values=cache, use_cache=True, **keep
            )
        found = getattr(out, "past_key_values", None)
        plain = isinstance(found, DynamicCache) and all(type(layer) is DynamicLayer for layer in found.layers)
        return found if plain else None

    def _score(self, rows: Sequence[list[int]], first: Sequence[int], cache: Any = None) -> list[np.ndarray]:
        """`row[first:]` of each row, in one padded batch; `cache` holds what stands before the rows.

        Returns bits, right, new and new right ones for each row; the last three are 0 unless they are counted.
        """
        size = max(map(len, rows)) - 1
        # Padding stands on the right, where a causal model cannot see it from the left.
        ids = torch.full((len(rows), size + 1), self.separator)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
        ids = ids.to(self.where)
        begin = min(first) - 1  # logits before it are asked of nobody
        options: dict[str, Any] = {"use_cache": False}
        if begin and "logits_to_keep" in self._forward:
            options["logits_to_keep"] = size - begin
        if cache is not None:
            copied = copy.deepcopy(cache)
            copied.batch_repeat_interleave(len(rows))
            options |= {"past_key_values": copied, "use_cache": True}
        with torch.inference_mode():
            logits = self.model(input_ids=ids[:, :-1], **options).logits
            logits = logits[:, begin - size :] if logits.shape[1] > size - begin else logits
            labels = ids[:, begin + 1 :]
            table = self._losses(logits, labels).double().cpu().numpy() / math.log(2)
            right = (logits.argmax(-1) == labels).cpu().numpy() if self._count_right else np.zeros(table.shape, bool)
        found = []
        for number, (row, start) in enumerate(zip(rows, first, strict=True)):
            part = slice(start - 1 - begin, len(row) - 1 - begin)
            hits, new = right[number, part], np.array(row[start:]) >= self._new_from
            found.append(np.array([table[number, part].sum(), hits.sum(), new.sum(), hits[new].sum()]))
        return found

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses in nats, shape of `labels`; a few rows at a time, so that no copy of all logits is made."""
        flat, wanted = logits.flatten(0, 1), labels.flatten()
        parts = [
            F.cross_entropy(part.float(), label, reduction="none")
            for part, label in zip(flat.split(self._rows), wanted.split(self._rows), strict=True)
        ]
        return torch.cat(parts).view(labels.shape)

    def close(self) -> None:
        """Let the model go."""
        self.model = None


def _document(number: int, tokens: int, found: np.ndarray) -> DocumentBits:
    bits, *counts = found.tolist()
    return DocumentBits(number, bits, tokens, *map(int, counts))
