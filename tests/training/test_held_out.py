"""What `langgraft train --retention-every` does not learn from: the same documents in any order, no copy of them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import sentences

from langgraft.errors import CorpusError
from langgraft.training.held_out import hold_out, without

TEXTS = sentences(200)


@given(st.integers(2, 30), st.integers(20, 200), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_which_are_held_out_hangs_on_the_texts_alone(count: int, number: int, rng: random.Random) -> None:
    texts = TEXTS[:number]
    held = hold_out(texts, count, "x")
    shuffled = rng.sample(texts, len(texts))
    assert hold_out(shuffled, count, "x") == held
    assert len(held) == len(set(held)) == min(count, number // 10)
    assert list(without(texts, held)) == [text for text in texts if text not in held]


def test_copies_are_held_out_with_the_text() -> None:
    held = hold_out(TEXTS, 5, "x")
    copies = [text.removesuffix("。") + " ！" for text in held]  # the same words, other spaces and punctuation
    assert set(hold_out([*TEXTS, *copies], 5, "x")) <= {*held, *copies}
    assert list(without(copies, held)) == []


@pytest.mark.parametrize("texts", [TEXTS[:19], TEXTS[:1] * 50])
def test_too_few_are_refused(texts: list[str]) -> None:
    with pytest.raises(CorpusError, match=r"and some\.txt has \d+; give at least 20 different ones"):
        hold_out(texts, 40, "some.txt")
