"""The GGUF file itself: names, types, settings, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf_cases import model_of, with_config
from hypothesis import given
from hypothesis import strategies as st
from pico import pico_model
from safetensors.torch import load_file, save_file

from langgraft.errors import ModelError
from langgraft.exporting import gguf_writer
from langgraft.exporting.gguf_families import interleave
from langgraft.exporting.gguf_settings import rope_settings
from langgraft.exporting.gguf_writer import write_gguf
from langgraft.store import sha256_file


def fields(path: Path) -> dict[str, object]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def edit_weights(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **change}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, metadata={"format": "pt"})


def test_settings_and_types(pico_untied: Path, tmp_path: Path) -> None:
    write_gguf(pico_untied, tmp_path / "m.gguf", name="title")
    found = fields(tmp_path / "m.gguf")
    expected = {
        "general.architecture": "llama",
        "general.name": "title",
        "general.file_type": 1,
        "llama.vocab_size": 400,
        "llama.context_length": 256,
        "llama.embedding_length": 32,
        "llama.block_count": 2,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: found[key] for key in expected} == expected
    assert "<|im_start|>" in str(found["tokenizer.chat_template"])
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert tensors["output.weight"].tensor_type.name == "F16"
    assert tensors["output_norm.weight"].tensor_type.name == "F32"
    weights = load_file(pico_untied / "model.safetensors")
    stored = np.array(tensors["token_embd.weight"].data)
    assert np.array_equal(stored, weights["model.embed_tokens.weight"].half().numpy())
    names = list(tensors)
    assert names.index("blk.0.ffn_up.weight") < names.index("blk.1.attn_q.weight")


def test_same_input_same_bytes(pico: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_gguf(pico, tmp_path / f"{name}.gguf", quant="q8_0", name="m")
    assert sha256_file(tmp_path / "a.gguf") == sha256_file(tmp_path / "b.gguf")


def test_rows_that_do_not_fit_the_blocks_stay_f16(tmp_path: Path) -> None:
    folder = pico_model(tmp_path / "m", hidden=48)
    facts = write_gguf(folder, tmp_path / "m.gguf", quant="q8_0")
    assert "token_embd.weight" in facts["fallback"]
    assert "blk.0.ffn_down.weight" not in facts["fallback"]
    assert "output_norm.weight" not in facts["fallback"]


def test_nothing_half_written(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "m.gguf"
    target.write_bytes(b"older file")
    calls = iter(range(100))

    def fail(tensor: gguf_writer.Tensor, block: torch.Tensor) -> np.ndarray:
        if next(calls) == 5:
            raise RuntimeError("power cut")
        return block.float().numpy().astype(np.float16 if tensor.quant.name == "F16" else np.float32)

    monkeypatch.setattr(gguf_writer, "_encode", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        write_gguf(pico, target)
    assert [path.name for path in target.parent.iterdir()] == ["m.gguf"]
    assert target.read_bytes() == b"older file"


def test_values_beyond_f16(tmp_path: Path) -> None:
    folder = pico_model(tmp_path / "m")
    rows = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    rows[0, 0] = 1e6
    edit_weights(folder, {"model.embed_tokens.weight": rows})
    with pytest.raises(ModelError, match="f16 cannot hold"):
        write_gguf(folder, tmp_path / "m.gguf")
    write_gguf(folder, tmp_path / "m.gguf", quant="bf16")


def test_a_stored_copy_of_a_tied_head_is_left_out(tmp_path: Path) -> None:
    folder = pico_model(tmp_path / "m")
    rows = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    edit_weights(folder, {"lm_head.weight": rows.clone(), "model.layers.0.self_attn.rotary_emb.inv_freq": rows[0]})
    write_gguf(folder, tmp_path / "m.gguf")
    names = {tensor.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert "output.weight" not in names


def test_refused_weights(pico_untied: Path, tmp_path: Path) -> None:
    import shutil

    for name, change, message in (
        ("a", {"lm_head.weight": None}, "head is not tied"),
        ("b", {"model.layers.0.extra.weight": torch.zeros(2)}, "has no place"),
        ("c", {"model.embed_tokens.weight": torch.zeros(399, 32)}, "only 399 rows"),
        ("d", {"model.embed_tokens.weight": None}, "has no tensor model.embed_tokens"),
    ):
        folder = tmp_path / name
        shutil.copytree(pico_untied, folder)
        edit_weights(folder, change)
        with pytest.raises(ModelError, match=message):
            write_gguf(folder, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BloomForCausalLM"]}, "supports LlamaForCausalLM, .* BloomForCausalLM"),
        ({"architectures": None}, "none named"),
        ({"hidden_act": "gelu"}, "activation `gelu`"),
        ({"quantization_config": {"quant_method": "gguf"}}, "quantised weights"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "rope scaling `dynamic`",
        ),
    ],
)
def test_refused_settings(changes: dict, message: str, pico: Path, tmp_path: Path) -> None:
    folder = with_config(pico, tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=message):
        write_gguf(folder, tmp_path / "m.gguf")


def test_sliding_attention(pico: Path, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "m", pico, "Mistral", sliding_window=64)
    with pytest.raises(ModelError, match="sliding attention over 64"):
        write_gguf(folder, tmp_path / "m.gguf")
    harmless = model_of(tmp_path / "n", pico, "Mistral", sliding_window=4096)
    write_gguf(harmless, tmp_path / "n.gguf")


def test_unknown_quant(pico: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown GGUF type `q3`"):
        write_gguf(pico, tmp_path / "m.gguf", quant="q3")


def test_rope_in_both_forms() -> None:
    class Old:
        rope_theta = 500.0
        rope_scaling = {"type": "linear", "factor": 2.0}  # noqa: RUF012

    assert rope_settings(Old()) == {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}

    class Odd:
        rope_parameters = {"rope_type": "yarn", "rope_theta": 1.0, "mscale": 0.7}  # noqa: RUF012

    with pytest.raises(ModelError, match="rope option mscale"):
        rope_settings(Odd())


@given(heads=st.integers(1, 5), half=st.integers(1, 6), columns=st.integers(0, 4))
def test_interleave_pairs_the_halves(heads: int, half: int, columns: int) -> None:
    rows = heads * 2 * half
    shape = (rows, columns) if columns else (rows,)
    tensor = torch.arange(rows * max(columns, 1)).reshape(shape)
    result = interleave(tensor, heads)
    assert result.shape == tensor.shape
    for head in range(heads):
        start = head * 2 * half
        for i in range(half):
            assert result[start + 2 * i].equal(tensor[start + i])
            assert result[start + 2 * i + 1].equal(tensor[start + half + i])
