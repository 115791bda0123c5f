"""Greedy answers from a model on transformers, in batches: what `TorchScorer.write` does."""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig

from langgraft.errors import InputError
from langgraft.evaluation.likelihood import Prompt, Written, shared
from langgraft.tokenizer.template import render, special_of, template_of

ROWS = 16  # answers written side by side; a step costs little more for all of them than for one
SHARED_PREFIX = 8  # tokens of common beginning from which on it is worth being read apart


class Stops:
    """The tokens an answer ends with: ends of text and turn, and with `line` every token with a line break in it."""

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int], *, line: bool) -> None:
        self.tokenizer, self.ends = tokenizer, frozenset(ends)
        ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values()) if line else []
        texts = tokenizer.decode_batch([[i] for i in ids])
        self.lines = frozenset(i for i, text in zip(ids, texts, strict=True) if "\n" in text) - self.ends

    @property
    def ids(self) -> list[int]:
        """All of them."""
        return sorted(self.ends | self.lines)

    def answer(self, row: Sequence[int]) -> Written:
        """The ids that were generated as a text, up to where they stop."""
        at = next((place for place, one in enumerate(row) if one in self.ends or one in self.lines), None)
        if at is None:
            return Written(self.tokenizer.decode(row), "length")
        if row[at] in self.ends:
            return Written(self.tokenizer.decode(row[:at]), "end")
        return Written(self.tokenizer.decode(row[: at + 1]).partition("\n")[0], "line")


def prompt_ids(prompt: Prompt, folder: Path, tokenizer: Tokenizer, separator: int) -> list[int]:
    """A prompt as the model reads it: a text after the separator, a conversation through the folder's template.

    Raises:
        InputError: there is no template, or it refuses the conversation.
    """
    if isinstance(prompt, str):
        return [separator, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    text = render(template_of(folder), prompt, special_of(folder))
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def written(
    model: Any,
    rows: Sequence[list[int]],
    stops: Stops,
    read: Callable[[list[int], Any], Any],
    separator: int,
    max_new_tokens: int,
) -> Iterator[tuple[int, Written]]:
    """(place, answer) for every prompt, batch by batch; batches depend on nothing but the prompts.

    Args:
        read: gives a cache with some ids read, or None where a model's state cannot be shared by rows.

    Raises:
        InputError: a prompt leaves no room for an answer.
    """
    if not rows:
        return
    longest = max(map(len, rows))
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context and longest + max_new_tokens > context:
        raise InputError(
            f"a prompt has {longest:,} tokens, and the model reads at most {context:,} with an answer of "
            f"{max_new_tokens:,}; give fewer shots, shorter texts or fewer max_new_tokens"
        )
    common = min(shared(rows), min(map(len, rows)) - 1) if len(rows) > 1 else 0
    begun = read(rows[0][:common], None) if common >= SHARED_PREFIX else None
    common = common if begun is not None else 0
    in_order = sorted(range(len(rows)), key=lambda place: (len(rows[place]), place))
    for start in range(0, len(rows), ROWS):
        places = in_order[start : start + ROWS]
        batch = [rows[place] for place in places]
        new = _continued(model, batch, common, begun, stops.ids, separator, max_new_tokens)
        yield from zip(places, map(stops.answer, new), strict=True)


def _continued(
    model: Any,
    rows: Sequence[list[int]],
    common: int,
    begun: Any,
    stops: list[int],
    separator: int,
    max_new_tokens: int,
) -> list[list[int]]:
    """New ids after each row; `begun` holds the first `common` ids of all of them."""
    size = max(map(len, rows))
    where = next(model.parameters()).device
    # Rows end together; what shorter ones lack is masked, behind the beginning that all share.
    padded = [[*row[:common], *([separator] * (size - len(row))), *row[common:]] for row in rows]
    seen = [[*([1] * common), *([0] * (size - len(row))), *([1] * (len(row) - common))] for row in rows]
    options: dict[str, Any] = {}
    if begun is not None:
        options["past_key_values"] = copy.deepcopy(begun)
        options["past_key_values"].batch_repeat_interleave(len(rows))
    own, model.generation_config = model.generation_config, GenerationConfig()  # penalties of its own would bend it
    try:
        with torch.inference_mode():
            out = model.generate(
                torch.tensor(padded, device=where),
                attention_mask=torch.tensor(seen, device=where),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=stops,
                pad_token_id=separator,
                **options,
            )
    finally:
        model.generation_config = own
    return [[int(i) for i in row] for row in out[:, size:].tolist()]
