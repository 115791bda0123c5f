"""Reading safetensors headers without loading anything."""

import json
from pathlib import Path

import pytest

from langgraft.errors import ModelError
from langgraft.exporting.weights import INDEX, open_weights


def test_shapes_and_tensors(pico_untied: Path) -> None:
    weights = open_weights(pico_untied)
    assert weights.shapes["lm_head.weight"] == (400, 32)
    with weights.reader() as read:
        assert read("lm_head.weight").shape == (400, 32)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(pico_untied)
    assert weights.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_missing_and_damaged_files(pico: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has neither"):
        open_weights(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = (pico / "model.safetensors").read_bytes()
    for damaged in (b"", b"12345678", b"\x10" + bytes(7) + b"not json, really", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"no safetensors file|cut short"):
            open_weights(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(ModelError, match=r"lacks model-1\.safetensors"):
        open_weights(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(ModelError, match="no `weight_map`"):
        open_weights(tmp_path)
