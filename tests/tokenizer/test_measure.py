from pathlib import Path

import pytest
from languages import extended
from pico import CANTONESE, pico_tokenizer

from langgraft.text import language
from langgraft.tokenizer.files import byte_spelling, load, token_bytes
from langgraft.tokenizer.measure import fertility, pieces


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_tokenizer(tmp_path_factory.mktemp("measure") / "base")


def test_fertility_counts(base: Path) -> None:
    found = fertility(base, ["Water boils", "at 100"], language("en"))
    tokens = sum(len(load(base).encode(text).ids) for text in ("Water boils", "at 100"))
    assert (found.tokens, found.characters, found.bytes) == (tokens, 17, 17)
    assert found.tokens_per_word == tokens / 4
    assert found.bytes_per_token == 17 / tokens
    assert found.as_dict()["tokens_per_character"] == tokens / 17


def test_no_words_where_no_spaces_are_written(base: Path, tmp_path: Path) -> None:
    before = fertility(base, CANTONESE, language("yue"))
    assert before.tokens_per_word is None
    extended(base, tmp_path / "x")
    assert fertility(tmp_path / "x", CANTONESE, language("yue")).tokens < before.tokens


def test_nothing_costs_nothing(base: Path) -> None:
    found = fertility(base, [""], language("en"))
    assert (found.tokens, found.tokens_per_character, found.bytes_per_token, found.tokens_per_word) == (0, 0, 0, None)


def test_pieces_show_half_characters_and_special_tokens(base: Path) -> None:
    assert pieces(base, "我") == ["<E6>", "<88>", "<91>"]
    assert "".join(pieces(base, "The quick fox")) == "The quick fox"
    assert pieces(base, "<|im_end|>") == ["<|im_end|>"]


def test_the_byte_alphabet_is_that_of_the_library() -> None:
    from tokenizers import pre_tokenizers

    every = "".join(map(chr, range(256)))
    assert set(byte_spelling(every)) <= set(pre_tokenizers.ByteLevel.alphabet())
    assert token_bytes(byte_spelling(every)) == every.encode()
    assert byte_spelling(" a\n") == "ĠaĊ"
