"""In-context learning in the source language: does the model still take from its context what it was just shown?

Each item lists pairs of words that have nothing to do with one another, and asks for the partner of one of them:

    river: seven
    market: under
    ...
    river:

What the model knows of the words does not help; it has to look the answer up in its context, which is what
induction heads do (Olsson et al. 2022, arXiv 2209.11895). Continued training on another language can lose that
within steps while perplexity looks unchanged (Elhady et al. 2025, arXiv 2506.00288). Words are the user's own.
"""

import collections
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import regex

from langgraft.errors import CorpusError
from langgraft.text import Language

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAIRS = 8
"""Pairs an item shows; repeating a random one of the partners is right once in so many times."""
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_COMMON = 400  # so many of the most frequent words are used


@dataclass(frozen=True)
class Item:
    """A prompt that shows `pairs` pairs, and the answer, which follows it directly."""

    prompt: str
    answer: str
    pairs: int


def words_of(texts: Sequence[str], language: Language) -> list[str]:
    """The most frequent words of 3 to 8 letters in small letters, sorted; two letters where no spaces are written."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        for word in _WORD.findall(text):
            if not language.spaces:
                counts.update(word[at : at + 2] for at in range(0, len(word) - 1, 2))
            elif 3 <= len(word) <= 8 and word == word.lower():
                counts[word] += 1
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_COMMON]
    return sorted(word for word, _ in common)


def recall_items(
    texts: Sequence[str], language: Language, *, count: int = 48, pairs: int = PAIRS, seed: int = 0
) -> list[Item]:
    """Make `count` items from the words of `texts`; the pair asked for is never the last one shown.

    Raises:
        CorpusError: the texts have fewer different words than three times the pairs of an item.
    """
    words = words_of(texts, language)
    if len(words) < 3 * pairs:
        raise CorpusError(
            f"the in-context probe needs {3 * pairs} different {language.name} words, and the held-out text has "
            f"{len(words)}; hold out more of it (corpus.source_dev)"
        )
    drawn, gap, items = random.Random(seed), " " if language.spaces else "", []
    for _ in range(count):
        chosen = drawn.sample(words, 2 * pairs)
        shown = list(zip(chosen[:pairs], chosen[pairs:], strict=True))
        asked, answer = shown[drawn.randrange(pairs - 1)]
        lines = "".join(f"{left}:{gap}{right}\n" for left, right in shown)
        items.append(Item(f"{lines}{asked}:", f"{gap}{answer}", pairs))
    return items


def recalled(
    model: Any, tokenizer: "Tokenizer", separator: int, items: Sequence[Item], *, batch_tokens: int = 4096
) -> np.ndarray:
    """Which items the model answers: shape (items,), 1.0 where every token of the answer is its first choice.

    The model must be in eval mode; it is left as it is.
    """
    import torch

    # Whole texts are cut, not prompt and answer apart: SentencePiece would start the answer like a text.
    cut = tokenizer.encode_batch([i.prompt for i in items], add_special_tokens=False)
    whole = tokenizer.encode_batch([i.prompt + i.answer for i in items], add_special_tokens=False)
    rows = [[separator, *encoding.ids] for encoding in whole]
    starts = [1 + _shared(short.ids, long.ids) for short, long in zip(cut, whole, strict=True)]
    size = max(map(len, rows), default=0)
    found = np.zeros(len(rows))
    step = max(batch_tokens // max(size, 1), 1)
    where = next(model.parameters()).device
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        # Padding stands on the right, where a causal model cannot see it from the left.
        ids = torch.tensor([[*row, *[separator] * (size - len(row))] for row in part], device=where)
        with torch.inference_mode():
            choices = model(input_ids=ids, use_cache=False).logits.argmax(-1).tolist()
        for number, (row, choice) in enumerate(zip(part, choices, strict=True), first):
            begin = starts[number]
            found[number] = choice[begin - 1 : len(row) - 1] == row[begin:]
    return found


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two lists have in common at their beginning, at most all but the last of `other`."""
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return min(same, len(other) - 1)
