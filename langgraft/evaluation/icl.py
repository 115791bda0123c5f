"""In-context learning in the source language: does the model still take from its context what it was just shown?

Each item lists pairs of words that have nothing to do with one another, and asks for the partner of one of them:

    river: seven
    market: under
    ...
    river:

What the model knows of the words does not help; it has to look the answer up in its context, which is what
induction heads do (Olsson et al. 2022, arXiv 2209.11895). Continued training on another language can lose that
within steps while perplexity looks unchanged (Elhady et al. 2025, arXiv 2506.00288). Words are the user's own.

An item is worth the probability of its answer among the partners it shows, not whether generation writes it: that
depends on how readily the model writes any word there, and moves by chance far more than recall does.
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
"""Pairs an item shows; by chance, an item is worth one part in so many."""
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_COMMON = 400  # so many of the most frequent words are used


@dataclass(frozen=True)
class Item:
    """A prompt that shows pairs of words and asks for a partner; each of `shown` could follow it directly."""

    prompt: str
    shown: tuple[str, ...]
    answer: int  # which of them is right


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

    Partners begin with different letters, so that their first tokens differ.

    Raises:
        CorpusError: the texts have fewer different words than three times the pairs of an item, or their words
            begin with fewer different letters than it has pairs.
    """
    words = words_of(texts, language)
    initials = len({word[0] for word in words})
    if len(words) < 3 * pairs or initials < pairs:
        raise CorpusError(
            f"the in-context probe needs {3 * pairs} different {language.name} words that begin with {pairs} different "
            f"letters, and the held-out text has {len(words)} with {initials}; hold out more of it (corpus.source_dev)"
        )
    drawn, gap, items = random.Random(seed), " " if language.spaces else "", []
    for _ in range(count):
        shuffled = drawn.sample(words, len(words))
        partners = list({word[0]: word for word in shuffled}.values())[:pairs]
        asked = [word for word in shuffled if word not in partners][:pairs]
        answer = drawn.randrange(pairs - 1)
        lines = "".join(f"{left}:{gap}{right}\n" for left, right in zip(asked, partners, strict=True))
        items.append(Item(f"{lines}{asked[answer]}:", tuple(gap + word for word in partners), answer))
    return items


def recalled(
    model: Any, tokenizer: "Tokenizer", separator: int, items: Sequence[Item], *, batch_tokens: int = 4096
) -> np.ndarray:
    """What each item is worth: shape (items,), the share of the answer in the probability of all words shown.

    Words are told apart by their first tokens; those that share one share its probability. The model must be in eval
    mode; it is left as it is.
    """
    import torch

    rows, firsts = zip(*(_cut(tokenizer, separator, item) for item in items), strict=True)
    size = max(map(len, rows))
    found = np.zeros(len(rows))
    step = max(batch_tokens // size, 1)
    where = next(model.parameters()).device
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        # Padding stands on the right, where a causal model cannot see it from the left.
        ids = torch.tensor([[*row, *[separator] * (size - len(row))] for row in part], device=where)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits
            last = logits[range(len(part)), [len(row) - 1 for row in part]].double().softmax(-1).cpu().numpy()
        for number, chances in enumerate(last, begin):
            tokens, answer = firsts[number], firsts[number][items[number].answer]
            found[number] = chances[answer] / tokens.count(answer) / chances[sorted(set(tokens))].sum()
    return found


def _cut(tokenizer: "Tokenizer", separator: int, item: Item) -> tuple[list[int], list[int]]:
    """The ids to read, and the token that would follow for each word shown.

    Whole texts are cut, not prompt and word apart: SentencePiece would start the word like a text.
    """
    prompt = tokenizer.encode(item.prompt, add_special_tokens=False).ids
    texts = [item.prompt + word for word in item.shown]
    whole = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    same = min(_shared(prompt, ids) for ids in whole)
    return [separator, *prompt[:same]], [ids[same] for ids in whole]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two lists have in common at their beginning, at most all but the last of `other`."""
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return min(same, len(other) - 1)
