"""A fresh process with plain transformers."""

import json
import math
import shutil
from pathlib import Path

import pytest
from pico import CANTONESE, ENGLISH

from langgraft.errors import InputError, ModelError
from langgraft.exporting.formats import export_hf
from langgraft.exporting.reload import reload_check
from langgraft.store import read_json, write_json

TEXTS = [ENGLISH[0], CANTONESE[0], "def f(x):\n    return x + 1\n"]


def bits(folder: Path, text: str, prefix: int) -> float:
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        probabilities = model(torch.tensor([[prefix, *ids]])).logits[0].log_softmax(-1)
    return -sum(float(probabilities[i, token]) for i, token in enumerate(ids)) / math.log(2)


def test_exported_folder(pico: Path, tmp_path: Path) -> None:
    export_hf(pico, tmp_path / "out")
    result = reload_check(tmp_path / "out", texts=TEXTS)
    assert result["ok"]
    assert result["ids_equal"]
    assert result["differing"] == []
    assert result["missing"] == result["unexpected"] == result["mismatched"] == []
    assert (result["model_class"], result["rows"], result["prefix_id"]) == ("LlamaForCausalLM", 400, 0)
    assert result["chat_template"]
    sizes = [len(text.encode()) for text in TEXTS]
    expected = [bits(pico, text, 0) for text in TEXTS]
    assert result["bytes"] == sum(sizes)
    assert result["bits_per_byte"] == pytest.approx(sum(expected) / sum(sizes), rel=1e-5)
    each = [one / size for one, size in zip(expected, sizes, strict=True)]
    assert result["bits_per_byte_each"] == pytest.approx(each, rel=1e-5)


def test_damage_is_found(pico: Path, tmp_path: Path) -> None:
    """Another tokenizer class that rebuilds itself, and a weight that is not there."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(pico, folder)
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**config, "tokenizer_class": "GPT2Tokenizer"})
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = reload_check(folder, texts=["In 1969, 2 people", "no digits"], prefix_id=2, window=8)
    assert not result["ok"]
    assert result["missing"] == ["model.layers.1.mlp.up_proj.weight"]
    assert result["prefix_id"] == 2


def test_bad_input(pico: Path, tmp_path: Path) -> None:
    for texts in ([], ["a", ""]):
        with pytest.raises(InputError, match="at least one text"):
            reload_check(pico, texts=texts)
    with pytest.raises(InputError, match="window of 1"):
        reload_check(pico, texts=["a"], window=1)
    with pytest.raises(ModelError, match="prefix id 400 is outside"):
        reload_check(pico, texts=["a"], prefix_id=400)
    with pytest.raises(ModelError, match=r"within 0\.01 s"):
        reload_check(pico, texts=["a"], timeout=0.01)
    shutil.copytree(pico, tmp_path / "m")
    config = json.loads((pico / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "model_type": "no_such_model"}))
    with pytest.raises(ModelError, match=r"does not load in plain transformers: .+"):
        reload_check(tmp_path / "m", texts=["a"])
