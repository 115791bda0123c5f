"""The in-context probe: its items, and how answers are judged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH

from langgraft.base import separator_id
from langgraft.errors import CorpusError
from langgraft.evaluation.icl import Item, recall_items, recalled, words_of
from langgraft.text import language
from langgraft.tokenizer.files import load
from langgraft.training.device import load_model


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(0, 5))
def test_the_answer_is_shown_once_and_is_not_the_last(pairs: int, seed: int) -> None:
    for item in recall_items(ENGLISH, language("en"), count=6, pairs=pairs, seed=seed):
        lines = item.prompt.split("\n")
        shown, asked = [line.split(":") for line in lines[:-1]], lines[-1].removesuffix(":")
        assert len(shown) == item.pairs == pairs
        assert [right for left, right in shown[:-1] if left == asked] == [item.answer]
        words = [word.strip() for pair in shown for word in pair]
        assert len(set(words)) == 2 * pairs  # nothing else helps


def test_items_are_the_same_for_a_seed() -> None:
    first = recall_items(ENGLISH, language("en"), seed=3)
    assert first == recall_items(ENGLISH, language("en"), seed=3)
    assert first != recall_items(ENGLISH, language("en"), seed=4)


def test_languages_without_spaces_have_pairs_of_letters() -> None:
    words = words_of(CANTONESE, language("yue"))
    assert {len(word) for word in words} == {2}
    item = recall_items(CANTONESE, language("yue"), pairs=4)[0]
    assert " " not in item.prompt + item.answer


def test_too_little_text_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"needs 24 different English words, and the held-out text has 8; hold out"):
        recall_items(["the quick brown fox jumps over and under"], language("en"))


def by_hand(folder: Path, item: Item) -> float:
    """Whether greedy generation writes the answer, token by token."""
    model, tokenizer = load_model(folder, torch.device("cpu")), load(folder)
    ids = [separator_id(folder), *tokenizer.encode(item.prompt, add_special_tokens=False).ids]
    for expected in tokenizer.encode(item.answer, add_special_tokens=False).ids:
        with torch.no_grad():
            chosen = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if chosen != expected:
            return 0.0
        ids.append(chosen)
    return 1.0


def test_judged_as_greedy_generation_would_be(pico: Path) -> None:
    """Answers that the model writes, that end otherwise, and that are something else; in batches of any size."""
    model, tokenizer = load_model(pico, torch.device("cpu")), load(pico)
    items = []
    for prompt in ("dog:", "cat: sun\ndog:", "a longer prompt with some words:"):
        ids = [separator_id(pico), *tokenizer.encode(prompt, add_special_tokens=False).ids]
        for _ in range(2):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        items += [Item(prompt, tokenizer.decode(ids[-2:]), 2), Item(prompt, tokenizer.decode(ids[-2:-1]) + "zz", 2)]
        items.append(Item(prompt, " fox", 2))
    expected = [by_hand(pico, item) for item in items]
    for batch_tokens in (1, 64, 4096):
        found = recalled(model, tokenizer, separator_id(pico), items, batch_tokens=batch_tokens)
        np.testing.assert_array_equal(found, expected)
    assert 0 < sum(expected) < len(items)
