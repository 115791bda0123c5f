"""What is measured while a model trains: what it gains in the new language, and what it keeps of the old one.

Bits per byte and next-token accuracy in both languages, in-context recall in the source language (`icl`), whether
it goes on in the language of the prompt, and whether it uses the new tokens. Everything is judged against the base
on the same texts, items and prompts.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.base import separator_id
from langgraft.corpus.langid import Identifier
from langgraft.errors import CorpusError, RecipeError
from langgraft.evaluation.bpb import Scores, score
from langgraft.evaluation.icl import PAIRS, recall_items, recalled
from langgraft.evaluation.stats import Interval, bootstrap_change, wilson
from langgraft.progress import Log
from langgraft.text import Language, language
from langgraft.tokenizer.files import load
from langgraft.training.retention import Measurement

LONGEST = 2000
"""Characters of a text that are read; retention is measured often, so it must be quick."""
_START = 24  # letters of a text that make a prompt, about; Han and kana count as three


@dataclass(frozen=True)
class Bounds:
    """What may be lost before training is stopped or turned back; None sets no bound.

    `source_bits_per_byte` and `in_context` are relative to the base (a rise, a drop), `right_language` is the
    smallest share of continuations of source-language prompts in the source language.
    """

    source_bits_per_byte: float | None = None
    in_context: float | None = None
    right_language: float | None = None


@dataclass(frozen=True)
class Held:
    """Held-out text of one language, and prompts in it; without prompts, the beginnings of some texts are."""

    language: Language
    texts: Sequence[str]
    prompts: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check that there is text.

        Raises:
            CorpusError: there is none.
        """
        if not self.texts:
            raise CorpusError(
                f"retention is measured on held-out {self.language.name} text, and there is none; hold some out "
                "(corpus.dev, corpus.source_dev)"
            )


@dataclass(frozen=True)
class _Found:
    """What one model does."""

    scores: dict[str, Scores]
    recall: np.ndarray
    written: dict[str, list[str]]
    right: dict[str, np.ndarray]
    new_written: float


class Gauge:
    """Measures models of one tokenizer against their base."""

    def __init__(
        self,
        folder: Path,
        base: Path,
        *,
        target: Held,
        source: Held,
        bounds: Bounds | None = None,
        first_new: int,
        items: int = 48,
        window: int = 512,
        max_new_tokens: int = 24,
        resamples: int = 1000,
        device: str = "auto",
        dtype: str = "float32",
        threads: int = 0,
        seed: int = 0,
        log: Log | None = None,
    ) -> None:
        """Measure the base, so that models can be judged by it.

        Args:
            folder: the model whose tokenizer training uses; only its tokenizer is read.
            base: the base model's folder.
            target: text and prompts in the new language.
            source: text and prompts in the source language.
            bounds: what may be lost.
            first_new: ids from this one on are new tokens.
            items: items of the in-context probe.
            window: longest context in tokens.
            max_new_tokens: length of the continuations; 0 writes none.
            resamples: bootstrap resamples of the intervals.
            device: where the base is measured.
            dtype: the format its matrix products run in, as in training: auto, float32 or bfloat16.
            threads: CPU threads; 0 takes every core.
            seed: of the items and the bootstrap.
            log: where it is said what the base does.

        Raises:
            CorpusError: the source texts have too few different words for the in-context probe.
            RecipeError: the base itself breaks a bound.
        """
        from langgraft.training.device import autocast, choose_device, choose_dtype, load_model, set_threads

        set_threads(threads)
        self.folder, self.bounds, self.first_new = folder, bounds or Bounds(), first_new
        self.window, self.max_new_tokens, self.resamples, self.seed = window, max_new_tokens, resamples, seed
        self.threads = threads
        self.sides = {"target": target, "source": source}
        self.texts = {side: [text[:LONGEST] for text in held.texts] for side, held in self.sides.items()}
        self.prompts = {
            side: list(held.prompts or [beginning(text) for text in held.texts[:8]])
            for side, held in self.sides.items()
        }
        self.identifiers = {side: Identifier(held.language.code) for side, held in self.sides.items()}
        self.items = recall_items(self.texts["source"], source.language, count=items, seed=seed)
        where = choose_device(device)
        with autocast(where, choose_dtype(dtype, where)):
            self.base = self._found(load_model(base, where), base)
        recall = self.base.recall
        self.can_recall = bool(recall.mean() - 1.96 * recall.std(ddof=1) / math.sqrt(items) > 1 / PAIRS)
        self._check_base()
        if log is not None:
            log.say(f"retention, the base: {self._said_of_base()}")

    def _said_of_base(self) -> str:
        values = self._values(self.base)
        parts = [
            f"{held.language.name} {values[f'{side}_bits_per_byte']:.3f} bits per byte"
            for side, held in self.sides.items()
        ]
        chance = "" if self.can_recall else f", not clearly above chance ({1 / PAIRS:.1%}), so that no bound holds"
        return "; ".join([*parts, f"in-context recall {values['in_context']:.0%}{chance}"])

    def _check_base(self) -> None:
        right, bound = self.base.right["source"], self.bounds.right_language
        if bound is not None and len(right) and right.mean() < bound:
            raise RecipeError(
                f"pretrain.retention.right_language is {bound:g}, but the base itself goes on in "
                f"{self.sides['source'].language.name} only {right.mean():.0%} of the time; lower it, or give prompts "
                "that are clearer"
            )

    def __call__(self, model: Any) -> Measurement:
        """Measure a model in eval mode; it is left as it is."""
        started = time.perf_counter()
        found = self._found(model, self.folder)
        change = {side: self._change(side, found) for side in self.sides}
        recall = self._recall_change(found)
        values = {**self._values(found), **{f"{side}_change": change[side].mean for side in change}}
        details = {
            "base": self._values(self.base),
            "change": {side: interval.as_dict() for side, interval in change.items()},
            "in_context_change": recall.as_dict() if recall else None,
            "generations": [
                {"language": self.sides[side].language.code, "prompt": prompt, "text": text}
                for side in self.sides
                for prompt, text in zip(self.prompts[side], found.written[side], strict=False)
            ],
            "seconds": round(time.perf_counter() - started, 2),
        }
        breaches = self._breaches(found, change["source"], recall)
        return Measurement(values, breaches, self._line(values, change, recall), details)

    def _found(self, model: Any, folder: Path) -> _Found:
        scores = {
            side: score(
                folder, texts, length=self.window, stride=self.window, threads=self.threads, model=model,
                count_right=True, new_from=self.first_new,
            )
            for side, texts in self.texts.items()
        }  # fmt: skip
        tokenizer, separator = load(folder), separator_id(folder)
        recall = recalled(model, tokenizer, separator, self.items)
        ids = {side: write(model, tokenizer, separator, self.prompts[side], self.max_new_tokens) for side in self.sides}
        written = {side: [tokenizer.decode(row, skip_special_tokens=True) for row in ids[side]] for side in self.sides}
        right = {
            side: np.array([float(self.identifiers[side].check(text).keep) for text in written[side]])
            for side in self.sides
        }
        target = [token for row in ids["target"] for token in row]
        new = sum(token >= self.first_new for token in target) / max(len(target), 1)
        return _Found(scores, recall, written, right, new)

    def _values(self, found: _Found) -> dict[str, float]:
        values: dict[str, float] = {}
        for side, scores in found.scores.items():
            values[f"{side}_bits_per_byte"] = scores.bits_per_byte
            values[f"{side}_accuracy"] = scores.accuracy
            if len(found.right[side]):
                values[f"{side}_right_language"] = float(found.right[side].mean())
        values["in_context"] = float(found.recall.mean())
        target = found.scores["target"]
        if target.new.sum():
            values["new_tokens_in_text"] = float(target.new.sum() / target.tokens.sum())
            values["new_tokens_predicted"] = float(target.new_right.sum() / target.new.sum())
        if self.max_new_tokens:
            values["new_tokens_written"] = found.new_written
        return values

    def _change(self, side: str, found: _Found) -> Interval:
        """Relative change of bits per byte against the base, paired over documents."""
        before, after = self.base.scores[side], found.scores[side]
        return bootstrap_change(before.bits, after.bits, before.bytes, resamples=self.resamples, seed=self.seed)

    def _recall_change(self, found: _Found) -> Interval | None:
        """Relative change of in-context recall, paired over items; None where the base is not above chance."""
        if not self.can_recall:
            return None
        ones = np.ones(len(self.items))
        return bootstrap_change(self.base.recall, found.recall, ones, resamples=self.resamples, seed=self.seed)

    def _breaches(self, found: _Found, change: Interval, recall: Interval | None) -> tuple[str, ...]:
        """A bound is broken when the whole 95% interval lies beyond it, so that it is more than noise."""
        broken, name, bounds = [], self.sides["source"].language.name, self.bounds
        if bounds.source_bits_per_byte is not None and change.low > bounds.source_bits_per_byte:
            broken.append(
                f"{name} bits per byte rose by {change.mean:.1%} ({change.low:.1%} to {change.high:.1%}), more than "
                f"the {bounds.source_bits_per_byte:.1%} that are allowed"
            )
        if bounds.in_context is not None and recall is not None and recall.high < -bounds.in_context:
            broken.append(
                f"in-context recall fell by {-recall.mean:.0%} ({-recall.high:.0%} to {-recall.low:.0%}), more than "
                f"the {bounds.in_context:.0%} that are allowed"
            )
        right = found.right["source"]
        if bounds.right_language is not None and len(right):
            high = wilson(int(right.sum()), len(right))[1]
            if high < bounds.right_language:
                broken.append(
                    f"{int(right.sum())} of {len(right)} continuations of {name} prompts are in {name}, fewer than the "
                    f"{bounds.right_language:.0%} that are asked for"
                )
        return tuple(broken)

    def _line(self, values: dict[str, float], change: dict[str, Interval], recall: Interval | None) -> str:
        parts = [
            f"{self.sides[side].language.name} {values[f'{side}_bits_per_byte']:.3f} bits per byte "
            f"({change[side].mean:+.1%}, 95% {change[side].low:+.1%} to {change[side].high:+.1%})"
            for side in self.sides
        ]
        bound, source = self.bounds.source_bits_per_byte, change["source"]
        if bound is not None and source.low <= bound < source.mean:
            parts.append(f"above the bound of {bound:+.1%}, but within noise: more development documents would tell")
        tail = f" ({recall.mean:+.0%})" if recall else ""
        parts.append(f"in-context recall {values['in_context']:.0%}{tail}")
        for side, held in self.sides.items():
            if (rate := values.get(f"{side}_right_language")) is not None:
                parts.append(f"{held.language.name} prompts go on in {held.language.name} {rate:.0%}")
        if (share := values.get("new_tokens_predicted")) is not None:
            parts.append(f"new tokens predicted {share:.0%}")
        return "; ".join(parts)


def held_out_gauge(
    model: Path, base: Path, sides: Mapping[str, tuple[str, Sequence[str]]],
    bounds: tuple[float | None, float | None, float | None], **options: Any,
) -> Gauge:  # fmt: skip
    """A gauge on held-out text: `sides` are code and texts of target and source, `bounds` the fields of `Bounds`."""
    held = {side: Held(language(code), texts) for side, (code, texts) in sides.items()}
    return Gauge(model, base, target=held["target"], source=held["source"], bounds=Bounds(*bounds), **options)


def beginning(text: str) -> str:
    """The first words of a text, or its first characters where it has few spaces: a prompt."""
    words, taken = text.split(), ""
    for word in words[:6]:
        taken = f"{taken} {word}".strip()
        if len(taken) >= _START:
            break
    return taken[:_START] if len(taken) > 2 * _START else taken


def write(model: Any, tokenizer: Any, separator: int, prompts: Sequence[str], max_new_tokens: int) -> list[list[int]]:
    """Continue prompts greedily, together; returns the ids of the new text, without the separator.

    Repeating a three-token sequence is forbidden, as small models otherwise loop in any language.
    """
    import torch
    from transformers import GenerationConfig

    if not prompts or not max_new_tokens:
        return []
    rows = [[separator, *e.ids] for e in tokenizer.encode_batch(list(prompts), add_special_tokens=False)]
    size = max(map(len, rows))
    where = next(model.parameters()).device
    ids = torch.tensor([[separator] * (size - len(row)) + row for row in rows], device=where)
    mask = torch.tensor([[0] * (size - len(row)) + [1] * len(row) for row in rows], device=where)
    own, model.generation_config = model.generation_config, GenerationConfig()  # penalties of its own would bend it
    try:
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens, no_repeat_ngram_size=3,
                pad_token_id=separator, eos_token_id=separator,
            )  # fmt: skip
    finally:
        model.generation_config = own
    found: list[list[int]] = out[:, size:].tolist()
    return [row[: row.index(separator)] if separator in row else row for row in found]
