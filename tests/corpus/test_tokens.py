"""Encoding in the background: every id, in order, whatever the batches and the number of workers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH, pico_tokenizer
from tokenizers import AddedToken, Tokenizer

from langgraft.corpus import tokens
from langgraft.corpus.tokens import encode, id_bound, token_dtype
from langgraft.errors import CorpusError
from langgraft.tokenizer.files import load


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(pico_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def plainly(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def split(found: list[tokens.Batch]) -> list[list[int]]:
    return [part.tolist() for batch in found for part in np.split(batch.ids, np.cumsum(batch.sizes)[:-1])]


@given(
    st.lists(st.text(max_size=30) | st.sampled_from([*ENGLISH, *CANTONESE, "<|im_start|> x"]), max_size=20), st.data()
)
@settings(deadline=None, max_examples=60)
def test_ids_are_those_of_the_tokenizer(tokenizer: Tokenizer, texts: list[str], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "BATCH_DOCUMENTS", data.draw(st.integers(1, 5)))
        patch.setattr(tokens, "BATCH_CHARACTERS", data.draw(st.integers(1, 200)))
        found = list(encode(tokenizer, texts))
    assert split([batch for batch in found if len(batch.sizes)]) == [ids for ids in plainly(tokenizer, texts) if ids]
    assert sum(batch.texts for batch in found) == len(texts)
    assert sum(batch.bytes for batch in found) == sum(len(text.encode()) for text in texts)


def test_processes_give_the_same(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "BATCH_DOCUMENTS", 3)
    texts = [*ENGLISH, "", *CANTONESE]
    assert split(list(encode(tokenizer, texts, workers=2))) == [ids for ids in plainly(tokenizer, texts) if ids]


def test_a_tokenizer_that_cuts_and_pads_does_neither_and_stays_as_it_is(tokenizer: Tokenizer) -> None:
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(4)
    cutting.enable_padding()
    assert split(list(encode(cutting, ENGLISH))) == plainly(tokenizer, ENGLISH)
    assert cutting.truncation is not None
    assert cutting.padding is not None


def test_lone_surrogates_are_replaced(tokenizer: Tokenizer) -> None:
    (batch,) = encode(tokenizer, ["a\ud800b", "🙂 ok"])
    assert split([batch]) == plainly(tokenizer, ["a\ufffdb", "🙂 ok"])


def test_an_error_in_the_texts_comes_through(tokenizer: Tokenizer) -> None:
    def texts() -> Iterator[str]:
        yield from ENGLISH
        raise CorpusError("the file is damaged")

    with pytest.raises(CorpusError, match="the file is damaged"):
        list(encode(tokenizer, texts()))


def test_reading_stays_a_few_batches_ahead(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "BATCH_DOCUMENTS", 1)
    taken: list[int] = []
    found = encode(tokenizer, (taken.append(i) or "text" for i in range(1000)))  # type: ignore[func-returns-value]
    next(found)
    assert len(taken) < 10
    found.close()


@pytest.mark.parametrize(("size", "name"), [(400, "uint16"), (65499, "uint16"), (65500, "int32"), (200_000, "int32")])
def test_number_type_follows_megatrons_rule(size: int, name: str) -> None:
    assert token_dtype(size).name == name


def test_the_bound_counts_added_tokens_and_holes(tmp_path: Path) -> None:
    tokenizer = load(pico_tokenizer(tmp_path))
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken("<new>")])
    assert id_bound(tokenizer) == size + 1


def test_a_killed_worker_is_one_sentence(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    from langgraft.errors import LanggraftError

    monkeypatch.setattr(tokens, "_encode_here", _die)
    with pytest.raises(LanggraftError, match="a worker process was killed"):
        list(encode(tokenizer, ENGLISH, workers=2))


def _die(texts: list[str]) -> None:
    import os
    import signal

    del texts
    os.kill(os.getpid(), signal.SIGKILL)
