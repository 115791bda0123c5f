"""The export stage: every artefact is proven, and a proof that fails is a failed gate."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command import Finished, langgraft
from pico import pico_recipe

from langgraft.errors import RecipeError
from langgraft.exporting import llamacpp, prove
from langgraft.progress import Log
from langgraft.recipe_file import load_recipe
from langgraft.stages import export as stage
from langgraft.training.device import load_model


def gates(finished: Finished) -> dict[str, bool]:
    marker = json.loads((finished.stage("export") / "stage.json").read_text(encoding="utf-8"))
    return {gate["name"]: gate["passed"] for gate in marker["summary"]["gates"]}


def test_every_file_is_listed_with_its_size(finished: Finished) -> None:
    folder = finished.stage("export")
    summary = json.loads((folder / "stage.json").read_text(encoding="utf-8"))["summary"]
    after = {"hf/README.md", "hf/langgraft_export.json"}  # the card is made of the whole run, and joins the manifest
    listed = {entry["name"]: entry["bytes"] for entry in summary["files"] if entry["name"] not in after}
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert after < set(files)
    assert listed == {name: path.stat().st_size for name, path in files.items() if name not in {*after, "stage.json"}}
    assert "hf/model.safetensors" in listed


def test_a_folder_that_reloads_otherwise_fails_its_gate(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = finished.copy(tmp_path, without=("export",))
    found: dict[str, Any] = {"ok": True, "bits_per_byte": 1.0, "ids_equal": False, "differing": [3]}
    monkeypatch.setattr(stage, "reload_check", lambda *_, **__: found)
    assert copy.again("--set", 'export.to=["hf"]').code == 1
    assert {name for name, passed in gates(copy).items() if not passed} == {
        "plain transformers gives the same bits per byte",
        "AutoTokenizer gives the ids of tokenizer.json",
    }


def test_an_adapter_that_gives_other_figures_fails_its_gate(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pico base in place of the trained model: the adapter loads as something else."""
    other = load_model(pico, torch.device("cpu"))
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.mul_(3)
    monkeypatch.setattr(stage, "load_adapter", lambda *_, **__: other)
    inputs: Any = SimpleNamespace(base=lambda: pico, log=Log(quiet=True), compute=SimpleNamespace(threads=1))
    gate = stage._on_the_base(pico, pico, ["The quick brown fox.", "It rains."], inputs)
    assert not gate["passed"]
    monkeypatch.setattr(stage, "load_adapter", lambda *_, **__: load_model(pico, torch.device("cpu")))
    assert stage._on_the_base(pico, pico, ["The quick brown fox.", "It rains."], inputs)["passed"]


def test_a_gguf_file_that_tokenizes_otherwise_fails_its_gate(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llama_cpp")
    copy = finished.copy(tmp_path, without=("export",))
    found = {"lines": 50, "mismatches": 1, "only_normalisation": 0, "special": []}
    bad = {"mean": 0.5, "top1_agreement": 0.4, "answers": 10, "answers_changed": 9}
    monkeypatch.setattr(prove, "token_parity", lambda *_, **__: found)
    monkeypatch.setattr(prove, "kl_divergence", lambda *_, **__: bad)
    done = copy.again("--set", 'export.to=["gguf"]')
    assert done.code == 1
    assert "gate failed: llama.cpp gives the same token ids (f16) (found 1 of 50 lines differ)" in done.sentence()
    assert {name for name, passed in gates(copy).items() if not passed} == {
        "llama.cpp gives the same token ids (f16)",
        "llama.cpp predicts the same (f16)",
    }
    marker = json.loads((copy.stage("export") / "stage.json").read_text(encoding="utf-8"))
    assert "9 of 10 short greedy answers change" in marker["summary"]["warnings"][0]
    assert [file["name"] for file in marker["summary"]["files"]] == ["gguf/pico-f16.gguf.failed"]


def test_few_parity_lines_suffice(finished: Finished, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    copy = finished.copy(tmp_path, without=("export",))
    assert copy.again("--set", 'export.to=["gguf"]', "--set", "export.parity_lines=1").code == 0


def test_gguf_without_llama_cpp_is_refused_at_once(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamacpp, "_state", {})
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    for setting, sentence in (
        ('export.to=["gguf"]', "checking a GGUF file needs llama-cpp-python, which is not installed"),
        ("export.quant=[]", "export.quant is empty"),
    ):
        both = ["--set", setting, "--set", 'export.to=["gguf"]']
        done = langgraft("run", finished.recipe, "--runs", tmp_path / "runs", *both)
        assert done.code == 2
        assert sentence in done.sentence()
        assert not (tmp_path / "runs").exists()


def test_gguf_of_a_base_that_llamacpp_cannot_tokenize_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}')
    recipe = load_recipe(pico_recipe(tmp_path, tmp_path, gguf=True))
    assert recipe.export is not None
    with pytest.raises(RecipeError, match=r"is a Unigram tokenizer, which llama\.cpp does not run"):
        stage.check(recipe.export, recipe)


def test_a_repair_that_llamacpp_lacks_is_refused_before_the_training(pico: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    path = pico_recipe(tmp_path, pico, gguf=True)

    def checked(*settings: str) -> None:
        recipe = load_recipe(path, settings)
        assert recipe.export is not None
        stage.check(recipe.export, recipe)

    with pytest.raises(RecipeError, match=r"repaired pre-tokenizer .* no match: .*export\.accept_mismatch"):
        checked("model.language=hi")
    checked("model.language=yue")
    checked("model.language=hi", "tokenizer.repair_marks=false")
    checked("model.language=hi", "export.accept_mismatch=0.3")
