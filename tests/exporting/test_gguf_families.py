"""Every family of GGUF export: llama.cpp predicts what transformers predicts, and odd settings are refused."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import with_config
from pico import CANTONESE, ENGLISH

sys.path.insert(0, str(Path(__file__).parents[1] / "tokenizer"))

from families import FAMILIES as TOKENIZERS

from langgraft.errors import ModelError
from langgraft.exporting.gguf_families import FAMILIES, read_config
from langgraft.exporting.gguf_vocab import load_tokenizer
from langgraft.exporting.gguf_writer import write_gguf
from langgraft.exporting.llamacpp import open_gguf
from langgraft.exporting.parity import kl_divergence, parity_lines, token_parity

needs_llamacpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24, "tie_word_embeddings": True}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.5, 1.7, 1.9],
    "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "original_max_position_embeddings": 128,
    "partial_rotary_factor": 0.75,
}
# name -> (transformers' prefix, tokenizer, settings)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "llama2", {}),
    "mistral": ("Mistral", "llama2", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("Qwen2", "qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", "qwen2", {"head_dim": 32}),
    "gemma": ("Gemma", "gemma", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", "gemma", {**_GEMMA, "num_hidden_layers": 3}),
    "gemma3": ("Gemma3", "gemma", {**_GEMMA, "num_hidden_layers": 7}),
    "gemma3-scaled": (
        "Gemma3",
        "gemma",
        {
            **_GEMMA,
            "num_hidden_layers": 6,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    "gpt2": (
        "GPT2",
        "gpt2",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "tie_word_embeddings": True},
    ),
    "gpt2-own-head": ("GPT2", "gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False}),
    "phi3": ("Phi3", "llama2", {"sliding_window": None}),
    "phi3-long": ("Phi3", "llama2", {"sliding_window": None, "rope_parameters": _LONG}),
}


def build(name: str, folder: Path) -> Path:
    """A model of random weights, large enough that every part of it matters, with the family's tokenizer."""
    import torch
    import transformers

    kind, tokenizer, settings = CASES[name]
    folder.mkdir(parents=True)
    TOKENIZERS[tokenizer](folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    sizes = {} if kind == "GPT2" else SIZES
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = getattr(transformers, f"{kind}{'Text' if kind == 'Gemma3' else ''}Config")(
        **{"vocab_size": rows, "tie_word_embeddings": False, **ids, **sizes, **settings}
    )
    torch.manual_seed(1)
    model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif "embed" not in parameter_name and "wte" not in parameter_name:
                parameter.mul_(16 if any(part in parameter_name for part in ("q_proj", "k_proj")) else 4)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: build(name, root / name) for name in CASES}


@needs_llamacpp
@pytest.mark.parametrize("name", CASES)
def test_llamacpp_computes_the_same(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    folder = models[name]
    facts = write_gguf(folder, tmp_path / "m.gguf", quant="f16")
    tokens = token_parity(folder, tmp_path / "m.gguf", parity_lines(400))
    assert tokens["mismatches"] == tokens["only_normalisation"]
    assert tokens["special"] == []
    # Longer than the windows and, for the long rotary factors, both below and above the original context.
    text = [" ".join(ENGLISH + CANTONESE)]
    for length in (100, 240):
        found = kl_divergence(folder, tmp_path / "m.gguf", text, max_tokens=length, threads=1)
        assert found["positions"] == length
        assert found["mean"] < 1e-3, facts
        assert found["top1_agreement"] >= 0.95


@needs_llamacpp
def test_the_small_divergence_means_something(models: dict[str, Path], tmp_path: Path) -> None:
    for name, change in (
        ("gemma2", {"attn_logit_softcapping": 1.0}),
        ("gemma3", {"sliding_window": 400}),
        ("gpt2", {"layer_norm_epsilon": 1.0}),
        ("phi3-long", {"rope_parameters": {**_LONG, "short_factor": [9.0] * 6}}),
    ):
        other = with_config(models[name], tmp_path / name, **change)
        write_gguf(other, tmp_path / f"{name}.gguf", quant="f16")
        found = kl_divergence(models[name], tmp_path / f"{name}.gguf", [" ".join(ENGLISH)], max_tokens=100, threads=1)
        assert found["mean"] > 5e-3, name


@needs_llamacpp
@pytest.mark.parametrize("strips", [True, False])
def test_the_name_decides_how_llamacpp_reads_special_tokens(
    strips: bool, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(models["phi3"], folder)
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first = max(token["id"] for token in document["added_tokens"]) + 1
    for i, text in enumerate(("<|endoftext|>", "<|user|>", "<|end|>")):
        entry = {"id": first + i, "content": text, "single_word": False, "lstrip": False, "normalized": False}
        document["added_tokens"].append({**entry, "rstrip": strips and i > 0, "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    for name in ("Phi-3-mini", "Hindi"):
        write_gguf(folder, tmp_path / "m.gguf", name=name)
        with open_gguf(tmp_path / "m.gguf", vocab_only=True) as opened:
            text = "<|user|>\n  The dog<|end|>\n"
            ours = tokenizer.encode(text, add_special_tokens=False).ids
            theirs = opened.tokenize(text, special=True)
        if strips:
            assert theirs[0] == ours[0] == first + 1
            assert theirs[-1] == ours[-1] == first + 2
            assert len(theirs) == len(ours)
        else:
            assert len(theirs) > 4


def test_old_names_of_gpt2(models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(models["gpt2"], folder)
    tensors = load_file(folder / "model.safetensors")
    import torch

    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(
        {**tensors, "h.0.attn.bias": torch.ones(1, 1, 4, 4)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    old = write_gguf(folder, tmp_path / "old.gguf", name="m")
    new = write_gguf(models["gpt2"], tmp_path / "new.gguf", name="m")
    assert old["tensors"] == new["tensors"]
    assert (tmp_path / "old.gguf").read_bytes() == (tmp_path / "new.gguf").read_bytes()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma2", {"attention_bias": True}, "attention_bias is True"),
        ("gemma2", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar is 64"),
        ("gemma2", {"final_logit_softcapping": None}, "always caps"),
        ("gemma2", {"layer_types": ["full_attention"] * 3}, "layer_types names other layers"),
        ("gemma2", {"tie_word_embeddings": False}, "has no head of its own"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30"),
        ("gemma3", {"hidden_activation": "relu"}, "activation `relu`"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", {"activation_function": "gelu"}, "activation `gelu`"),
        ("phi3", {"sliding_window": 64}, "sliding attention over 64"),
        ("llama", {"rope_parameters": _LONG}, "rope scaling `longrope`"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
    ],
)
def test_refused(name: str, changes: dict, message: str, models: dict[str, Path], tmp_path: Path) -> None:
    folder = with_config(models[name], tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=message):
        write_gguf(folder, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_local_rope_that_is_scaled(models: dict[str, Path], tmp_path: Path) -> None:
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    }
    folder = with_config(models["gemma3"], tmp_path / "m", rope_parameters=rope)
    with pytest.raises(ModelError, match="of sliding layers"):
        write_gguf(folder, tmp_path / "m.gguf")


def test_every_family_has_a_case() -> None:
    kinds = {kind for kind, _, _ in CASES.values()}
    assert {name.removesuffix("ForCausalLM").removesuffix("LMHeadModel") for name in FAMILIES} == kinds


def test_config_is_read(models: dict[str, Path]) -> None:
    assert read_config(models["phi3"]).architectures == ["Phi3ForCausalLM"]
