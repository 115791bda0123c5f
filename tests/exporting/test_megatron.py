"""Checkpoints for Megatron-LM: megatron-core computes the same from them, and what it would not is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import megatron_core
import pytest
import torch
from command import langgraft
from gguf_cases import model_of, with_config
from megatron_core import groups, load, logits_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from langgraft.errors import ModelError, RecipeError
from langgraft.exporting import megatron
from langgraft.exporting.formats import export
from langgraft.exporting.manifest import manifest_gates
from langgraft.exporting.megatron import FILE, TRACKER, export_megatron, joined, layout
from langgraft.exporting.megatron_config import plan_for
from langgraft.training.device import load_model

ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama 3": ("Llama", {"rope_parameters": ROPE, "head_dim": 64}),
    "every head its own": ("Llama", {"num_key_value_heads": 4}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
}
IDS = torch.randint(0, 390, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model of each family; its norms are not all ones."""
    kind, settings = CASES[request.param]
    folder = model_of(tmp_path_factory.mktemp("megatron") / "model", pico, kind, **settings)
    path = folder / "model.safetensors"
    seeded = torch.Generator().manual_seed(3)
    tensors = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=seeded) if "norm" in name else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def ranks(out: Path) -> list[dict[str, Any]]:
    """What Megatron's own loading of the files gives, rank by rank."""
    return [load(path) for path in sorted(out.glob(f"release/mp_rank_*/{FILE}"))]


@pytest.fixture
def one_rank() -> Iterator[None]:
    pytest.importorskip("megatron.core", reason="megatron-core is not installed")
    with groups(0, 1, torch.distributed.HashStore()):
        yield


@pytest.mark.usefixtures("one_rank")
def test_megatron_core_computes_the_same(model: Path, tmp_path: Path) -> None:
    export_megatron(model, tmp_path / "out", transformer_impl="local")
    found = logits_of(ranks(tmp_path / "out")[0], IDS)
    with torch.no_grad():
        wanted = load_model(model, torch.device("cpu")).eval()(input_ids=IDS).logits
    assert wanted.std() > 0.3, "logits that all are nearly zero would agree whatever is computed"
    torch.testing.assert_close(found[..., : wanted.shape[-1]], wanted, atol=1e-4, rtol=1e-4)


def test_two_ranks_of_megatron_core_compute_the_same(pico: Path, tmp_path: Path) -> None:
    """Queries with a bias and a head of its own, so that every way of cutting a tensor is in it."""
    pytest.importorskip("megatron.core", reason="megatron-core is not installed")
    folder = model_of(tmp_path / "model", pico, "Qwen2")
    export_megatron(folder, tmp_path / "out", tensor_parallel=2, transformer_impl="local")
    torch.save(IDS, tmp_path / "ids")
    line = [sys.executable, megatron_core.__file__, tmp_path / "out"]
    ranks = [subprocess.Popen([*line, str(rank), "2", tmp_path / "ids", tmp_path / "said"]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    found = torch.load(tmp_path / "said")
    with torch.no_grad():
        wanted = load_model(folder, torch.device("cpu")).eval()(input_ids=IDS).logits
    torch.testing.assert_close(found[..., : wanted.shape[-1]], wanted, atol=1e-4, rtol=1e-4)


def test_ranks_together_hold_the_model(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = export_megatron(model, out, tensor_parallel=2)
    assert (out / TRACKER).read_text() == "release\n"
    both, plan = ranks(out), plan_for(model, tensor_parallel=2, pad_to=128, transformer_impl="transformer_engine")
    assert len(both) == 2
    weights = load_file(model / "model.safetensors")
    rows = {name: len(tensor) for name, tensor in weights.items()}
    found = {name: tensor[: rows[name]] for name, tensor in joined(out, list(layout(plan)), plan)}
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    # Each rank has a model of half the heads and half the width: gate and up both, not one of them.
    state = both[1]["model"]
    assert torch.equal(
        state["decoder.layers.1.mlp.linear_fc1.weight"],
        torch.cat([weights[f"model.layers.1.mlp.{part}_proj.weight"][32:] for part in ("gate", "up")]),
    )
    assert state["embedding.word_embeddings.weight"].shape == (plan.rows // 2, 32)
    assert plan.rows % 256 == 0
    assert {gate["name"]: gate["passed"] for gate in summary["gates"]}["the checkpoint gives every weight back"]


def test_padding_is_the_mean_row(pico: Path, tmp_path: Path) -> None:
    export_megatron(pico, tmp_path / "out", tensor_parallel=2)
    both = [found["model"]["embedding.word_embeddings.weight"] for found in ranks(tmp_path / "out")]
    whole, base = torch.cat(both), load_file(pico / "model.safetensors")["model.embed_tokens.weight"]
    torch.testing.assert_close(whole[len(base) :], base.mean(0).expand(len(whole) - len(base), -1))
    assert len(whole) > len(base)


@pytest.mark.usefixtures("one_rank")
def test_names_for_transformer_engine_are_those_megatron_maps_to(pico: Path) -> None:
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    renamed = get_gpt_layer_local_spec(normalization="RMSNorm").submodules.sharded_state_dict_keys_map
    plans = [
        plan_for(pico, tensor_parallel=1, pad_to=1, transformer_impl=name) for name in ("local", "transformer_engine")
    ]
    local, fused = ([slot.name for slot in layout(plan)] for plan in plans)
    for old, new in renamed.items():
        local = [name.replace(f".{old}", f".{new}") for name in local]
    assert local == fused


def test_the_command_prints_the_arguments(pico: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = langgraft("export", "--model", pico, "--to", "megatron", "--tensor-parallel", 2, "-o", out, "--json")
    assert done.code == 0, done.err
    lines = (out / "arguments.txt").read_text(encoding="utf-8").splitlines()
    assert json.loads(done.out)["arguments"] == lines
    assert all(line in done.err for line in lines)
    given = dict(line.split(" ", 1) for line in lines if " " in line)
    rows = ranks(out)[0]["args"].padded_vocab_size
    tokens = len(json.loads((pico / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    step = int(given["--make-vocab-size-divisible-by"]) * int(given["--tensor-model-parallel-size"])
    assert -(-tokens // step) * step == rows, "as Megatron pads"
    assert {"--group-query-attention", "--swiglu", "--disable-bias-linear"} <= set(lines)
    assert "--untie-embeddings-and-output-weights" not in lines
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() == (pico / "tokenizer.json").read_bytes()
    assert manifest_gates(out)[0]["passed"]
    again = langgraft("export", "--model", pico, "--to", "megatron", "--tensor-parallel", 2, "-o", tmp_path / "again")
    assert again.code == 0
    name = os.path.join("release", "mp_rank_01", FILE)
    assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("Gemma2", {"head_dim": 8}, "a Megatron checkpoint can be written of LlamaForCausalLM"),
        ("Llama", {"attention_bias": True}, "attention_bias = True"),
        ("Llama", {"mlp_bias": True}, "mlp_bias = True"),
        ("Llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("Mistral", {"sliding_window": 64}, "sliding_window = 64"),
        (
            "Llama",
            {"rope_parameters": {**LINEAR, "factor": 2.0}},
            "rope scaling `linear`",
        ),
        ("Llama", {"rope_parameters": {**ROPE, "low_freq_factor": 2.0}}, "`llama3` with low_freq_factor = 2.0"),
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1234.5}}, "rope_theta is 1234.5"),
    ],
)
def test_what_megatron_computes_otherwise_is_refused(
    kind: str, settings: dict[str, Any], reason: str, pico: Path, tmp_path: Path
) -> None:
    folder = model_of(tmp_path / "model", pico, kind, **settings)
    with pytest.raises(ModelError, match="(?i)" + "".join(c if c.isalnum() or c == " " else "." for c in reason)):
        export(folder, tmp_path / "out", to="megatron")
    assert not (tmp_path / "out").exists()


def test_other_refusals(pico: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"key-value heads \(2\) cannot be split among 4 ranks"):
        export_megatron(pico, out, tensor_parallel=4)
    with pytest.raises(RecipeError, match="both must be at least 1"):
        export_megatron(pico, out, tensor_parallel=0)
    with pytest.raises(RecipeError, match="did you mean `local`"):
        export_megatron(pico, out, transformer_impl="locale")
    with pytest.raises(ModelError, match="quantised weights"):
        export_megatron(with_config(pico, tmp_path / "q", quantization_config={"bits": 4}), out)
    spare = with_config(pico, tmp_path / "spare")
    weights = load_file(spare / "model.safetensors")
    save_file({**weights, "model.layers.0.extra": torch.ones(2)}, spare / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"have no place for model\.layers\.0\.extra|has no place for"):
        export_megatron(spare, out)
    del weights["model.norm.weight"]
    save_file(weights, spare / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.norm\.weight"):
        export_megatron(spare, out)
    assert not out.exists()


def test_a_mistake_in_fusing_is_found(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = megatron.part_of

    def swapped(slot: Any, *rest: Any) -> Tensor:
        if slot.kind == "qkv":
            query, key, value = slot.sources
            slot = megatron.Slot(slot.name, slot.kind, (query, value, key))
        return real(slot, *rest)

    monkeypatch.setattr(megatron, "part_of", swapped)
    with pytest.raises(ModelError, match=r"every weight back: \d+ tensors; other: model\.layers\.0\.self_attn\.k"):
        export_megatron(pico, tmp_path / "out")
    assert not (tmp_path / "out").exists()
