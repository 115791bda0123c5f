"""Pieces seen before: the ids are the tokenizer's, whatever was seen, kept or forgotten."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH, pico_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from langgraft.corpus import recall
from langgraft.corpus.recall import Recall, cuts_before_spaces
from langgraft.rebuilt import GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, QWEN35_PATTERN
from langgraft.tokenizer.files import load
from langgraft.tokenizer.pretokenizer import mark_aware

# Merges across a space are learnt where a pattern lets them, so that a cut in the wrong place shows.
TEXT = [
    *ENGLISH,
    "a b a b a b. c? d\n e  f 5 6\t7 \u0301e",
    "x\n  y\n   z\n\n a\r\n  b   c\t  d",
    "नमस्ते दुनिया। नमस्ते!",
    "ไทย ที่ ไทย ที่",
] * 4
PATTERNS = {
    "own": None,
    "gpt2": GPT2_PATTERN,
    "llama3": LLAMA3_PATTERN,
    "qwen2": QWEN2_PATTERN,
    "qwen35": QWEN35_PATTERN,
    "gpt2-marks": mark_aware(GPT2_PATTERN),
    "llama3-marks": mark_aware(LLAMA3_PATTERN),
}


def trained(pattern: str | None, *, nfc: bool = False, digits: bool = False) -> Tokenizer:
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens(["<think>", "ab"])
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    made = {name: trained(pattern) for name, pattern in PATTERNS.items()}
    made |= {"nfc": trained(QWEN2_PATTERN, nfc=True), "digits": trained(None, digits=True)}
    return {**made, "digits-marks": trained(mark_aware(GPT2_PATTERN), digits=True)}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_threads", lambda: 1)


def plainly(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def recalled(encoder: Recall, texts: list[str]) -> list[list[int]]:
    return [memoryview(found).cast("I").tolist() for found in encoder(texts)]


# Everything the patterns treat in a way of its own, close together.
pieces = st.sampled_from(
    [*" ab5?\n\t'", "  ", "\r\n", "\x1c", "\x85", "\xa0", "\u1680", "\u200b", "\u2003", "\u2028", "\u3000", "\u180e",
     "\u0301", "ि", "्", "न", "ไ", "ท", "ี", "。", "'s", "'S", "12", "²", "٣", "🙂", "é", "e\u0301", "\u2000",
     "<|end|>", "<think>", "ab", "ſ", "\x00"]
)  # fmt: skip
words = st.lists(pieces | st.characters(exclude_categories=["Cs"]), max_size=14).map("".join)
texts = st.lists(words | st.text(alphabet=" \n.a5", max_size=14), max_size=6)


@given(st.sampled_from([*PATTERNS, "nfc", "digits", "digits-marks"]), texts, texts)
@example("own", ["a  b\n  c"], [" \n  c", "  ", "a\n"])
@settings(deadline=None, max_examples=400)
def test_ids_are_those_of_the_tokenizer(
    tokenizers: dict[str, Tokenizer], name: str, first: list[str], second: list[str]
) -> None:
    encoder = Recall(tokenizers[name])
    assert encoder.recalls
    for batch in (first, second, first):
        encoder.pause = 0
        assert recalled(encoder, batch) == plainly(tokenizers[name], batch)


def test_what_recurs_is_tokenised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(pico_tokenizer(tmp_path))
    encoder, seen = Recall(tokenizer), []
    original = Recall._encoded
    monkeypatch.setattr(Recall, "_encoded", lambda self, texts: seen.extend(texts) or original(self, texts))  # type: ignore[func-returns-value]
    batch = ["to be or not to be or", "not to be  or\n to be", "to"] * 2
    assert recalled(encoder, batch) == plainly(tokenizer, batch)
    assert seen == ["to", " be", " or", " not", " to", "not", "  or\n to"]
    seen.clear()
    assert recalled(encoder, [*batch, " new"])[-1] == plainly(tokenizer, [" new"])[0]
    assert seen == [" new"]


def test_text_without_words_is_encoded_as_it_is(tmp_path: Path) -> None:
    tokenizer = load(pico_tokenizer(tmp_path))
    encoder = Recall(tokenizer)
    assert recalled(encoder, CANTONESE) == plainly(tokenizer, CANTONESE)
    assert (encoder.pause, encoder.known) == (0, {})


def test_little_that_recurs_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "WORDS", 1000)
    tokenizer = load(pico_tokenizer(tmp_path))
    encoder = Recall(tokenizer)
    for pause in (recall.PAUSE, recall.PAUSE - 1, recall.PAUSE - 2):
        assert recalled(encoder, CANTONESE) == plainly(tokenizer, CANTONESE)
        assert (encoder.pause, encoder.known) == (pause, {})


def test_the_table_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "WORDS", 1000)
    tokenizer = load(pico_tokenizer(tmp_path))
    encoder = Recall(tokenizer)
    long = "x" * (recall.LONGEST + 1)
    batch = [f"so so so {long}"] * 3
    assert recalled(encoder, batch) == plainly(tokenizer, batch)
    assert set(encoder.known) == {"so", " so"}
    monkeypatch.setattr(recall, "KNOWN", 2)
    batch = ["a so so so so"] * 3
    assert recalled(encoder, batch) == plainly(tokenizer, batch)
    assert encoder.known == {}


def bytes_first(tokenizer: Tokenizer) -> None:
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([own, pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated")])


def with_pre(step: Any) -> Callable[[Tokenizer], None]:
    return lambda tokenizer: setattr(tokenizer, "pre_tokenizer", step)


@pytest.mark.parametrize(
    "change",
    [
        bytes_first,
        with_pre(None),
        with_pre(pre_tokenizers.Metaspace()),
        with_pre(pre_tokenizers.Digits()),
        with_pre(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        with_pre(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
        with_pre(pre_tokenizers.Split(Regex(r"\w+ \w+"), "isolated")),
        with_pre(pre_tokenizers.Split(" ", "isolated")),
        with_pre(pre_tokenizers.Split(Regex(GPT2_PATTERN), "removed")),
        with_pre(pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated", invert=True)),
        lambda t: setattr(t, "normalizer", normalizers.Strip()),
        lambda t: setattr(t.model, "dropout", 0.1),
        lambda t: t.add_tokens(["New York"]),
        lambda t: t.add_tokens([AddedToken("<a>", rstrip=True)]),
        lambda t: t.add_tokens([AddedToken("<a>", lstrip=True)]),
        lambda t: t.add_tokens([AddedToken("be", single_word=True)]),
    ],
)  # fmt: skip
def test_others_are_encoded_as_they_are(tmp_path: Path, change: Callable[[Tokenizer], Any]) -> None:
    tokenizer = load(pico_tokenizer(tmp_path))
    assert cuts_before_spaces(tokenizer)
    change(tokenizer)
    assert not cuts_before_spaces(tokenizer)
    encoder = Recall(tokenizer)
    assert not encoder.recalls
    if json.loads(tokenizer.to_str())["model"]["dropout"] is None:
        assert recalled(encoder, ENGLISH) == plainly(tokenizer, ENGLISH)


def test_pieces_are_cut_before_a_space_that_follows_none() -> None:
    text = " \n a  b\n  c\x1c d\u3000 e \nf g "
    pieces = recall._PIECE.findall(text)
    assert pieces == [" \n a", "  b\n  c\x1c d\u3000 e", " \nf", " g", " "]
    assert "".join(pieces) == text


def test_a_wrong_answer_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(pico_tokenizer(tmp_path))
    tokenizer.add_tokens(["to be"])
    monkeypatch.setattr(recall, "cuts_before_spaces", lambda _: True)
    assert recalled(Recall(tokenizer), ["to be or"] * 3) != plainly(tokenizer, ["to be or"] * 3)


def test_a_cut_in_the_wrong_place_would_show(tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_PIECE", re.compile(r" ?[^ ]+(?:(?<=\s) [^ ]*)*| +[^ ]*"))
    batch = ["a  b\n  c"]
    assert recalled(Recall(tokenizers["own"]), batch) != plainly(tokenizers["own"], batch)


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"TOKENIZERS_PARALLELISM": "false"}, 1),
        ({"RAYON_NUM_THREADS": "3"}, 3),
        ({"RAYON_NUM_THREADS": "0"}, 64),
        ({}, 64),
    ],
)
def test_many_threads_do_better_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], threads: int
) -> None:
    monkeypatch.undo()
    for name in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert recall._threads() == threads
    assert Recall(load(pico_tokenizer(tmp_path))).recalls == (threads <= recall.THREADS)
