"""Bits per byte: equal to a calculation by hand, every token once, whatever the batches."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH

from langgraft.base import separator_id
from langgraft.errors import CorpusError, RecipeError
from langgraft.evaluation.bpb import Scores, score
from langgraft.evaluation.likelihood import windows
from langgraft.progress import Log
from langgraft.tokenizer.files import load
from langgraft.training.device import load_model

QUICK = {"device": "cpu", "threads": 1}
TEXTS = [*CANTONESE, *ENGLISH, "a"]


def by_hand(folder: Path, text: str) -> float:
    """Bits of a text that fits one window, token by token."""
    model = load_model(folder, torch.device("cpu"))
    ids = [separator_id(folder), *load(folder).encode(text, add_special_tokens=False).ids]
    bits = 0.0
    with torch.no_grad():
        for place in range(1, len(ids)):
            logits = model(input_ids=torch.tensor([ids[:place]]), use_cache=False).logits[0, -1].double()
            bits -= float(logits.log_softmax(-1)[ids[place]]) / math.log(2)
    return bits


def test_equals_a_calculation_by_hand(pico: Path) -> None:
    texts = [CANTONESE[0], "Hi 5"]
    scores = score(pico, texts, **QUICK)
    hand = [by_hand(pico, text) for text in texts]
    np.testing.assert_allclose(scores.bits, hand, rtol=1e-5)
    assert scores.bits_per_byte == pytest.approx(sum(hand) / (len(CANTONESE[0].encode()) + 4), rel=1e-5)


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_windows_score_each_token_once_and_see_what_they_may(tokens: int, length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length))
    ids = list(range(1, tokens + 1))
    scored: list[int] = []
    for number, window in enumerate(windows(7, ids, 0, length, stride)):
        inputs, labels = window.ids[:-1], window.ids[1:]
        assert window.document == 7
        assert 1 <= len(inputs) <= length
        assert labels == [i + 1 for i in inputs]
        scored += labels[window.score_from :]
        if number:  # at least this much context stands before the first token that counts
            assert window.score_from >= length - stride
    assert scored == ids


def test_batches_and_padding_change_nothing(pico: Path) -> None:
    alone = score(pico, TEXTS, batch_tokens=1, **QUICK)
    for batch_tokens in (64, 100_000):
        together = score(pico, TEXTS, batch_tokens=batch_tokens, **QUICK)
        np.testing.assert_allclose(together.bits, alone.bits, rtol=1e-5)
    reverse = score(pico, TEXTS[::-1], **QUICK)
    np.testing.assert_allclose(reverse.bits[::-1], alone.bits, rtol=1e-5)
    np.testing.assert_array_equal(reverse.tokens[::-1], alone.tokens)


def test_long_documents_go_through_windows(pico: Path) -> None:
    text = " ".join(ENGLISH)
    whole = score(pico, [text], length=250, stride=100, **QUICK)
    assert whole.tokens[0] < 250
    short = score(pico, [text], length=32, stride=16, **QUICK)
    assert short.tokens[0] == whole.tokens[0]
    assert short.bits[0] == pytest.approx(whole.bits[0], rel=0.05)
    assert short.bits[0] != whole.bits[0]
    one = score(pico, [text], length=32, stride=1, **QUICK)
    assert one.bits[0] == pytest.approx(whole.bits[0], rel=0.05)


def test_bytes_are_those_of_the_text(pico: Path) -> None:
    texts = ["é", "好", "👍🏽", "e\u0301", " a\n"]
    scores = score(pico, texts, **QUICK)
    assert scores.bytes.tolist() == [2, 3, 8, 3, 3]
    assert scores.tokens.tolist() == [len(e.ids) for e in load(pico).encode_batch(texts)]


def test_a_model_in_memory_is_used_and_left_as_it_was(pico: Path, tmp_path: Path) -> None:
    model = load_model(pico, torch.device("cpu"))
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()  # tied: every logit is zero, every token equally likely
    model.train()
    log = Log(tmp_path / "log.txt", quiet=True)
    scores = score(pico, TEXTS, model=model, log=log, what="English", **QUICK)
    np.testing.assert_allclose(scores.bits, scores.tokens * math.log2(model.config.vocab_size), rtol=1e-6)
    assert model.training
    assert "English: " in (tmp_path / "log.txt").read_text()
    assert "(100%)" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("texts", [[], [""], ["good", ""]])
def test_empty_text_is_an_error(pico: Path, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="at least one document, and none may be empty; check the held-out split"):
        score(pico, texts, **QUICK)


@pytest.mark.parametrize("stride", [0, 65])
def test_a_stride_that_would_pass_over_tokens_is_refused(pico: Path, stride: int) -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.stride .* must be between 1 and evaluate\.window \(64\)"):
        score(pico, ENGLISH, length=64, stride=stride, **QUICK)


def test_documents_weigh_by_their_bytes() -> None:
    scores = Scores(np.array([10.0, 2.0]), np.array([5, 1]), np.array([3, 1]))
    assert scores.bits_per_byte == 2.0
