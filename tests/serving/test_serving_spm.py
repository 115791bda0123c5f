"""SentencePiece models: spaces, byte tokens, and the space before the first word of an answer."""

import sys
from pathlib import Path

import pytest
import regex

sys.path.insert(0, str(Path(__file__).parent.parent / "tokenizer"))
from families import llama2

from langgraft.serving.generate import answer, text_of, text_prompt
from langgraft.serving.model import LanguageModel
from langgraft.serving.models import open_model
from langgraft.serving.sampling import Sampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-2-like tokenizer with a random model."""
    import json

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = llama2(tmp_path_factory.mktemp("spm") / "llama2")
    data = json.loads((made / "tokenizer.json").read_text("utf-8"))
    rows = 64 * (len(data["model"]["vocab"]) // 64 + 1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=rows, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(made)
    return made


@pytest.fixture(scope="module", params=["hub", "gguf"])
def spm(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """It on both backends."""
    if request.param == "hub":
        return open_model(str(folder), threads=1)
    pytest.importorskip("llama_cpp")
    from langgraft.exporting.gguf_writer import write_gguf

    path = tmp_path_factory.mktemp("spm-gguf") / "llama2.gguf"
    write_gguf(folder, path, quant="f32", name="llama2")
    return open_model(str(path), threads=1)


def test_tokens_are_the_bytes_of_their_text(spm: LanguageModel) -> None:
    for text in ("The quick brown", "नमस्ते दुनिया", "我哋 👍🏽"):
        ids = [i for i in text_prompt(spm, text) if spm.bytes_of(i)]
        assert text_of(spm, ids).removeprefix(" ") == text


def test_an_answer_does_not_begin_with_sentencepieces_space(spm: LanguageModel) -> None:
    prompt, spaces = text_prompt(spm, "The"), 0
    for seed in range(30):
        hot = Sampling(max_tokens=5, temperature=4, seed=seed)
        text = answer(spm, prompt, hot).text
        assert answer(spm, prompt, hot, chat=True).text == text.removeprefix(" ")
        spaces += text.startswith(" ")
    assert spaces, "no sample began with a space, so nothing was tried"


def test_byte_tokens_are_streamed_whole(spm: LanguageModel) -> None:
    from langgraft.serving.generate import generate

    for seed in range(20):
        hot = Sampling(max_tokens=30, temperature=20, seed=seed)
        parts = [piece.text for piece in generate(spm, text_prompt(spm, "The"), hot)]
        assert [g for part in parts for g in regex.findall(r"\X", part)] == regex.findall(r"\X", "".join(parts))
