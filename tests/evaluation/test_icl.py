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
        assert [right for _, right in shown] == list(item.shown)
        assert [right for left, right in shown[:-1] if left == asked] == [item.shown[item.answer]]
        words = [word.strip() for pair in shown for word in pair]
        assert len(set(words)) == 2 * pairs  # nothing else helps
        assert len({word.strip()[0] for word in item.shown}) == pairs


def test_items_are_the_same_for_a_seed() -> None:
    first = recall_items(ENGLISH, language("en"), seed=3)
    assert first == recall_items(ENGLISH, language("en"), seed=3)
    assert first != recall_items(ENGLISH, language("en"), seed=4)


def test_languages_without_spaces_have_pairs_of_letters() -> None:
    words = words_of(CANTONESE, language("yue"))
    assert {len(word) for word in words} == {2}
    item = recall_items(CANTONESE, language("yue"), pairs=4)[0]
    assert " " not in item.prompt + "".join(item.shown)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("the quick brown fox jumps over and under", "has 8 with 8"),
        (" ".join(f"a{c}x" for c in "bcdefg" * 9), "with 1"),
    ],
)
def test_too_little_text_is_refused(text: str, has: str) -> None:
    with pytest.raises(CorpusError, match=rf"needs 24 different English words .* 8 different letters.*{has}; hold out"):
        recall_items([text], language("en"))


def by_hand(folder: Path, item: Item) -> float:
    """The share of the answer's first token among those of all words, each text cut as a whole."""
    model, tokenizer = load_model(folder, torch.device("cpu")), load(folder)
    prompt = tokenizer.encode(item.prompt, add_special_tokens=False).ids
    whole = [tokenizer.encode(item.prompt + word, add_special_tokens=False).ids for word in item.shown]
    assert all(ids[: len(prompt)] == prompt for ids in whole)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[separator_id(folder), *prompt]]), use_cache=False).logits[0, -1]
    chances = [float(logits.double().softmax(-1)[ids[len(prompt)]]) for ids in whole]
    return chances[item.answer] / sum(chances)


def test_worth_the_share_of_the_answer_whatever_the_batches(pico: Path) -> None:
    model, tokenizer = load_model(pico, torch.device("cpu")), load(pico)
    items = recall_items(ENGLISH, language("en"), count=6, pairs=5)
    expected = [by_hand(pico, item) for item in items]
    for batch_tokens in (1, 256, 4096):
        found = recalled(model, tokenizer, separator_id(pico), items, batch_tokens=batch_tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(np.mean(expected) - 1 / 5) < 0.1  # an untrained model guesses


def test_words_that_cannot_be_told_apart_share_what_they_get(pico: Path) -> None:
    model, tokenizer = load_model(pico, torch.device("cpu")), load(pico)
    items = [Item("dog: cat\ndog:", (" cat", " cat", " sun"), answer) for answer in range(3)]
    found = recalled(model, tokenizer, separator_id(pico), items)
    assert found[0] == found[1]
    np.testing.assert_allclose(found.sum(), 1)
