"""HF = llama.cpp, token for token and in probabilities."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import REPAIRED, SMOLLM, STRUCTURES, greedy_tokenizer, model_of, with_config
from pico import CANTONESE, ENGLISH

from langgraft.errors import InputError, LanggraftError, ModelError
from langgraft.exporting import llamacpp
from langgraft.exporting.gguf_vocab import load_tokenizer
from langgraft.exporting.gguf_writer import write_gguf
from langgraft.exporting.parity import kl_divergence, parity_lines, token_parity

needs_llamacpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)


@pytest.fixture(scope="module")
def greedy() -> dict[str, Any]:
    return greedy_tokenizer(parity_lines(633))


@pytest.fixture(scope="module")
def greedy_model(tmp_path_factory: pytest.TempPathFactory, pico: Path, greedy: dict[str, Any]) -> Path:
    """A model with the greedy tokenizer, one hole in its ids and three rows too many."""
    from tokenizers import Tokenizer

    document = json.loads(json.dumps(greedy))
    tool = document["added_tokens"][-1]
    tool["id"] += 1  # <tool> moves up, its old id becomes a hole
    document["model"]["vocab"][tool["content"]] = tool["id"]
    document["pre_tokenizer"] = SMOLLM
    size = Tokenizer.from_str(json.dumps(greedy)).get_vocab_size() + 1
    folder = model_of(tmp_path_factory.mktemp("greedy") / "m", pico, "Llama", vocab_size=size + 3)
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return folder


def retokenized(folder: Path, target: Path, pre: dict[str, Any], *, ignore_merges: bool) -> Path:
    shutil.copytree(folder, target)
    document = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    document["pre_tokenizer"] = pre
    document["model"]["ignore_merges"] = ignore_merges
    (target / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return target


@needs_llamacpp
@pytest.mark.parametrize("value", STRUCTURES)
def test_llamacpp_splits_as_every_emitted_pre_says(value: str, greedy_model: Path, tmp_path: Path) -> None:
    pre, ignore_merges = STRUCTURES[value]
    folder = retokenized(greedy_model, tmp_path / "m", pre, ignore_merges=ignore_merges)
    facts = write_gguf(folder, tmp_path / "m.gguf")
    assert facts["pre"] == value
    lines = [*parity_lines(633), "call <tool>now <|im_end|>[PAD4000]"]
    result = token_parity(folder, tmp_path / "m.gguf", lines)
    assert result["examples"] == []
    assert result["equal"]
    assert result["lines"] == 634


@needs_llamacpp
def test_a_wrong_pre_is_found_and_shown(greedy_model: Path, tmp_path: Path) -> None:
    write_gguf(greedy_model, tmp_path / "m.gguf", pre="gpt-2")
    result = token_parity(greedy_model, tmp_path / "m.gguf", parity_lines())
    assert not result["equal"]
    assert result["mismatches"] > 20
    assert len(result["examples"]) == 5
    example = result["examples"][0]
    at = example["at"]
    assert example["hf"][:at] == example["gguf"][:at]
    assert example["hf"][at:] != example["gguf"][at:]


@needs_llamacpp
def test_repaired_pattern_needs_a_choice_and_parity_shows_its_price(greedy_model: Path, tmp_path: Path) -> None:
    folder = retokenized(greedy_model, tmp_path / "m", REPAIRED, ignore_merges=False)
    with pytest.raises(ModelError, match="no pre type"):
        write_gguf(folder, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
    facts = write_gguf(folder, tmp_path / "m.gguf", pre="qwen35")
    assert facts["pre_reason"] == "chosen by the caller"
    assert token_parity(folder, tmp_path / "m.gguf", parity_lines())["mismatches"] > 0


@needs_llamacpp
def test_normalisation_is_told_apart(greedy_model: Path, tmp_path: Path) -> None:
    folder = retokenized(greedy_model, tmp_path / "m", SMOLLM, ignore_merges=False)
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    document["normalizer"] = {"type": "NFC"}
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    facts = write_gguf(folder, tmp_path / "m.gguf")
    assert "NFC" in facts["notes"][0]
    result = token_parity(folder, tmp_path / "m.gguf", ["plain", "cafe\u0301"])
    assert (result["mismatches"], result["only_normalisation"]) == (1, 1)


@needs_llamacpp
@pytest.mark.parametrize(("quant", "bound"), [("f32", 1e-4), ("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 0.05)])
def test_divergence_of_every_type(quant: str, bound: float, greedy_model: Path, tmp_path: Path) -> None:
    facts = write_gguf(greedy_model, tmp_path / "m.gguf", quant=quant)
    result = kl_divergence(greedy_model, tmp_path / "m.gguf", ENGLISH + CANTONESE, threads=1)
    assert 0 <= result["mean"] <= result["max"]
    assert result["mean"] < bound
    assert result["texts"] == 12
    assert facts["dropped_rows"] == 3
    assert 0 < result["dropped_probability"] < 0.1


@needs_llamacpp
def test_tied_pico(pico: Path, tmp_path: Path) -> None:
    facts = write_gguf(pico, tmp_path / "m.gguf")
    result = kl_divergence(pico, tmp_path / "m.gguf", ENGLISH, max_tokens=40, threads=1)
    assert result["mean"] < 1e-4
    assert result["dropped_probability"] == 0
    assert facts["tensors"] == 2 + 2 * 9


ROPES = [
    {"rope_type": "default", "rope_theta": 100.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {
        "rope_type": "yarn",
        "rope_theta": 1000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 16.0,
        "beta_slow": 1.0,
    },
]


@needs_llamacpp
@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope["rope_type"])
def test_rotary_settings_arrive(rope: dict[str, Any], pico: Path, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "m", pico, "Llama", rope_parameters=rope, hidden_size=64)
    write_gguf(folder, tmp_path / "m.gguf", quant="f32")
    text = [" ".join(ENGLISH + CANTONESE)]
    result = kl_divergence(folder, tmp_path / "m.gguf", text, max_tokens=200, threads=1)
    assert result["positions"] == 200
    assert result["mean"] < 1e-3
    # The same weights under other rotary settings are another model: the small figure above means something.
    other = {"rope_type": "default", "rope_theta": 9.0}
    write_gguf(with_config(folder, tmp_path / "o", rope_parameters=other), tmp_path / "o.gguf", quant="f32")
    wrong = kl_divergence(folder, tmp_path / "o.gguf", text, max_tokens=200, threads=1)
    assert wrong["mean"] > 20 * result["mean"]


@needs_llamacpp
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Llama", {"head_dim": 16}),
        ("Mistral", {"sliding_window": None}),
        ("Qwen2", {}),
        ("Qwen3", {"head_dim": 16}),
        ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    ],
)
def test_architectures(kind: str, settings: dict[str, Any], pico: Path, tmp_path: Path) -> None:
    folder = model_of(tmp_path / "m", pico, kind, **settings)
    write_gguf(folder, tmp_path / "m.gguf", quant="f32")
    assert kl_divergence(folder, tmp_path / "m.gguf", ENGLISH, threads=1)["mean"] < 1e-3


@needs_llamacpp
def test_llamacpp_is_silent(pico: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_gguf(pico, tmp_path / "m.gguf")
    capfd.readouterr()
    token_parity(pico, tmp_path / "m.gguf", ["a"])
    kl_divergence(pico, tmp_path / "m.gguf", ["a b"], threads=1)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@needs_llamacpp
def test_bad_input(pico: Path, tmp_path: Path) -> None:
    write_gguf(pico, tmp_path / "m.gguf")
    with pytest.raises(InputError, match=r"line 2 .* U\+0000"):
        token_parity(pico, tmp_path / "m.gguf", ["a", "b\0c"])
    with pytest.raises(InputError, match="not empty"):
        kl_divergence(pico, tmp_path / "m.gguf", [""])
    with pytest.raises(ModelError, match="does not exist"):
        token_parity(pico, tmp_path / "none.gguf", ["a"])
    (tmp_path / "bad.gguf").write_bytes(b"GGUF no")
    with pytest.raises(ModelError, match="cannot load"):
        token_parity(pico, tmp_path / "bad.gguf", ["a"])
    write_gguf(pico, tmp_path / "odd.gguf", pre="no-such-pre")
    with pytest.raises(ModelError, match="unknown pre-tokenizer type: 'no-such-pre'"):
        token_parity(pico, tmp_path / "odd.gguf", ["a"])


@needs_llamacpp
def test_more_tokens_than_rows_is_no_divergence(pico: Path, greedy_model: Path, tmp_path: Path) -> None:
    write_gguf(greedy_model, tmp_path / "m.gguf")
    with pytest.raises(ModelError, match="only 400 rows"):
        kl_divergence(pico, tmp_path / "m.gguf", ["a"], threads=1)


def test_without_llamacpp(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setattr(llamacpp, "_state", {})
    with pytest.raises(LanggraftError, match=r"pip install 'langgraft\[llamacpp\]'"):
        token_parity(pico, tmp_path / "m.gguf", ["a"])


def test_tokenizer_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        load_tokenizer(tmp_path)
