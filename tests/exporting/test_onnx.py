"""ONNX Runtime computes what transformers does, with cache and padding, and a graph that does not is no export."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command import langgraft

from langgraft.errors import LanggraftError, ModelError
from langgraft.exporting import onnx as module
from langgraft.exporting.manifest import manifest_gates
from langgraft.exporting.onnx import FILE, export_onnx, onnx_gates
from langgraft.exporting.publish import plan_publication, source_of
from langgraft.training.device import load_model

MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def made(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A pico model, exported by the command, and what it printed for programs."""
    out = tmp_path_factory.mktemp("onnx") / "model"
    done = langgraft("export", "--model", pico, "--to", "onnx", "-o", out, "--json")
    assert done.code == 0, done.err
    return out, json.loads(done.out)


@needs_onnx
def test_onnx_runtime_computes_the_same(made: tuple[Path, dict[str, Any]]) -> None:
    out, summary = made
    proofs = [gate for gate in summary["gates"] if "apart" in gate["value"]]
    assert len(proofs) == 3
    assert all(gate["passed"] for gate in summary["gates"])
    assert all("differs 0 times" in gate["value"] for gate in proofs)
    names = {"model.onnx", "model.onnx.data", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names <= set(summary["files"])
    assert manifest_gates(out)[0]["passed"]


@needs_onnx
def test_it_is_verified_and_published_as_what_it_is(made: tuple[Path, dict[str, Any]]) -> None:
    out, _ = made
    assert langgraft("verify", out).code == 0
    done = langgraft("publish", out, "--to", "a/b", "--license", "mit", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert {FILE, f"{FILE}.data", "README.md"} <= {file["name"] for file in json.loads(done.out)["files"]}
    card = plan_publication(source_of(out), "a/b", license_="mit").files["README.md"]
    assert isinstance(card, bytes)
    assert "library_name: onnx" in card.decode("utf-8")


@needs_onnx
def test_it_writes_what_transformers_writes(made: tuple[Path, dict[str, Any]], pico: Path) -> None:
    """With nothing of ours: the names that others know, an empty past, one token after the other."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(made[0] / FILE), providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    names = [f"past_key_values.{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert {value.name for value in session.get_inputs()} == {"input_ids", "attention_mask", "position_ids", *names}
    assert set(outputs) == {"logits", *(name.replace("past_key_values", "present") for name in names)}
    past = dict.fromkeys(names, np.zeros((1, 2, 0, 8), np.float32))
    prompt, read, text = np.array([[5, 17, 30, 88]]), 0, [5, 17, 30, 88]
    for _ in range(12):
        given = {"input_ids": prompt, "attention_mask": np.ones((1, len(text)), np.int64),
                 "position_ids": np.arange(read, len(text))[None]}  # fmt: skip
        found = dict(zip(outputs, session.run(None, {**given, **past}), strict=True))
        past = {name: found[name.replace("past_key_values", "present")] for name in names}
        read = len(text)
        text.append(int(found["logits"][0, -1].argmax()))
        prompt = np.array([[text[-1]]])
    model = load_model(pico, torch.device("cpu")).eval()
    wanted = model.generate(torch.tensor([text[:4]]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert wanted[0].tolist() == text


@needs_onnx
def test_another_model_fails_the_gates(made: tuple[Path, dict[str, Any]], pico: Path) -> None:
    other = load_model(pico, torch.device("cpu")).eval()
    with torch.no_grad():
        other.model.layers[1].self_attn.v_proj.weight.mul_(1.1)
    assert [gate["passed"] for gate in onnx_gates(made[0], other)] == [False, False, False]
    with torch.no_grad():
        other.model.norm.weight.fill_(float("nan"))
    assert [gate["passed"] for gate in onnx_gates(made[0], other)] == [False, False, False]


@needs_onnx
def test_a_cache_in_a_wrong_order_is_found(
    made: tuple[Path, dict[str, Any]], pico: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._Session.__call__

    def swapped(self: Any, ids: Any, mask: Any, places: Any, past: Any) -> Any:
        other = {name: past[name.replace(".0.", ".x.").replace(".1.", ".0.").replace(".x.", ".1.")] for name in past}
        return real(self, ids, mask, places, other)

    monkeypatch.setattr(module._Session, "__call__", swapped)
    whole, steps, batch = onnx_gates(made[0], load_model(pico, torch.device("cpu")).eval())
    assert (whole["passed"], steps["passed"], batch["passed"]) == (True, False, True)


@needs_onnx
def test_a_gate_that_fails_leaves_nothing(
    pico: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir

    monkeypatch.setattr(module, "_traced", lambda *_: onnx_ir.load(made[0] / FILE))
    monkeypatch.setattr(module, "BOUND", -1.0)
    with pytest.raises(ModelError, match=r"cannot be exported: ONNX Runtime gives the logits of transformers"):
        export_onnx(pico, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_what_cannot_be_traced(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import exporters

    def fails(*_: Any) -> None:
        raise RuntimeError("no translation of aten.strange\nand more")

    monkeypatch.setattr(exporters.OnnxExporter, "export", fails)
    with pytest.raises(ModelError, match=r"cannot be traced for ONNX: no translation of aten\.strange$"):
        export_onnx(pico, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_a_state_of_another_kind_is_refused(pico: Path) -> None:
    import onnx_ir

    def graph(*names: str) -> Any:
        values = [onnx_ir.Value(name=name) for name in names]
        return onnx_ir.Graph(values, [], nodes=[])

    with pytest.raises(ModelError, match="keeps its state as `past_key_values"):
        module._rename(graph("input_ids", "past_key_values.layers.0.conv_states"), pico)
    with pytest.raises(ModelError, match="without a cache"):
        module._rename(graph("input_ids"), pico)


def test_without_the_packages_it_says_what_to_install(
    pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PACKAGES", ("torch", "not_there"))
    with pytest.raises(LanggraftError, match=r"ONNX needs not_there; pip install 'langgraft\[onnx\]'"):
        export_onnx(pico, tmp_path / "out")
