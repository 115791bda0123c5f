"""Planted faults in a hub folder: each stops the export, and the reason is in the message."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command import langgraft
from gguf_cases import model_of, with_config, with_json, with_tokenizer
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tokenizer"))

from families import llama2

from langgraft.errors import ModelError
from langgraft.exporting.folder_gates import adapter_gates, folder_gates
from langgraft.exporting.formats import export_gguf, export_hf
from langgraft.exporting.manifest import MANIFEST, manifest_gates, read_manifest
from langgraft.tokenizer.spm_model import MODEL, processor


def failing(folder: Path) -> dict[str, str]:
    return {gate["name"]: gate["value"] for gate in folder_gates(folder) if not gate["passed"]}


def weights(folder: Path, target: Path, **changes: torch.Tensor | None) -> Path:
    shutil.copytree(folder, target)
    names = {"head": "lm_head.weight", "embedding": "model.embed_tokens.weight"}
    tensors = load_file(target / "model.safetensors") | {names[key]: value for key, value in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model with a Llama-2-like tokenizer."""
    root = tmp_path_factory.mktemp("spm")
    return model_of(root / "m", llama2(root / "tokenizer"), "Llama", unk_token_id=0)


def stopped(folder: Path, scratch: Path, reason: str) -> None:
    for write in (export_hf, export_gguf):
        with pytest.raises(ModelError, match=reason):
            write(folder, scratch / write.__name__)
        assert not (scratch / write.__name__).exists()


def test_a_good_folder_passes(pico: Path, pico_untied: Path, spm: Path) -> None:
    for folder in (pico, pico_untied, spm):
        assert failing(folder) == {}


def test_untied_head(pico: Path, pico_untied: Path, tmp_path: Path) -> None:
    head = load_file(pico_untied / "model.safetensors")["lm_head.weight"]
    lost = weights(pico, tmp_path / "lost", head=head)
    stopped(lost, tmp_path / "out", r"the head is tied, or not.*lm_head\.weight differs from model\.embed_tokens")
    missing = weights(pico_untied, tmp_path / "missing", head=None)
    stopped(missing, tmp_path / "out", "not tied, and there is no head")
    twice = weights(pico, tmp_path / "twice", head=load_file(pico / "model.safetensors")["model.embed_tokens.weight"])
    assert failing(twice) == {}
    raw = json.loads((lost / "config.json").read_text(encoding="utf-8"))
    raw.pop("tie_word_embeddings")
    (lost / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    assert failing(lost) == {}  # Llama's default is a head of its own


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("tokenizer_config.json", {"eos_token": "<|im_start|>"}, "eos is 1 in the tokenizer and 2 in the model's"),
        ("config.json", {"bos_token_id": 2}, "bos is 1 in the tokenizer and 2, 1 in the model's config|bos is 1 .* 2"),
        ("config.json", {"eos_token_id": [2, 4000]}, "eos is 4000, beyond the last token 399"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"1": {"content": "<|im_end|>"}}},
            r"list the same added tokens: 1 is '<\|im_end\|>' and '<\|im_start\|>'",
        ),
        ("config.json", {"hidden_size": None}, "fields that vLLM needs: missing: hidden_size"),
    ],
)
def test_swapped_ids_and_missing_fields(
    file: str, changes: dict[str, Any], reason: str, pico: Path, tmp_path: Path
) -> None:
    folder = with_json(pico, tmp_path / "m", file, **changes)
    (folder / "generation_config.json").unlink()
    if "hidden_size" in changes:
        assert any("missing: hidden_size" in value for value in failing(folder).values())
    else:
        stopped(folder, tmp_path / "out", reason)


def test_swapped_ids_in_the_tokenizer_itself(pico: Path, tmp_path: Path) -> None:
    document = json.loads((pico / "tokenizer.json").read_text(encoding="utf-8"))
    swapped = {"<|im_start|>": 2, "<|im_end|>": 1}
    added = [{**token, "id": swapped.get(token["content"], token["id"])} for token in document["added_tokens"]]
    model = {**document["model"], "vocab": document["model"]["vocab"] | swapped}
    folder = with_tokenizer(pico, tmp_path / "m", added_tokens=added, model=model)
    stopped(folder, tmp_path / "out", "special ids agree in every file: bos is 2 in the tokenizer and 1")


def test_too_few_rows(pico: Path, tmp_path: Path) -> None:
    rows = load_file(pico / "model.safetensors")["model.embed_tokens.weight"]
    folder = weights(pico, tmp_path / "m", embedding=rows[:390].clone())
    assert failing(folder) == {
        "a row for every token, as many as config.json says": "400 tokens, 390 rows, vocab_size 400"
    }
    with pytest.raises(ModelError, match="390 rows"):
        export_hf(folder, tmp_path / "out")


def test_a_truncated_tensor(pico: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(pico, folder)
    data = (pico / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-4])
    stopped(folder, tmp_path / "out", "is cut short or damaged")
    shape = b'"shape":[400,32]'
    assert data.count(shape) == 1
    (folder / "model.safetensors").write_bytes(data.replace(shape, b'"shape":[401,32]'))
    stopped(folder, tmp_path / "out", r"model\.embed_tokens\.weight has 51,200 bytes, and 51,328 belong to its shape")


def test_tokenizer_model_is_made_or_refused(spm: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(spm, bare)
    (bare / MODEL).unlink()
    assert "there is no tokenizer.model, without which" in failing(bare)[f"{MODEL} holds the pieces of tokenizer.json"]
    export_hf(bare, tmp_path / "made")
    ours, theirs = processor(tmp_path / "made" / MODEL), processor(spm / MODEL)
    for text in ("The dog sleeps, and 12 people say привет.", "  two spaces", "食飯"):
        assert ours.encode(text) == theirs.encode(text)
    changed = json.loads((bare / "tokenizer.json").read_text(encoding="utf-8"))
    changed["normalizer"]["normalizers"].append({"type": "Lowercase"})
    odd = with_tokenizer(bare, tmp_path / "odd", normalizer=changed["normalizer"])
    with pytest.raises(ModelError, match="prepares text with Prepend \\+ Replace \\+ Lowercase"):
        export_hf(odd, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_model_of_another_tokenizer(spm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(spm, folder)
    other = llama2(tmp_path / "other", vocab_size=500)
    shutil.copyfile(other / MODEL, folder / MODEL)
    stopped(folder, tmp_path / "out", "tokenizer.model holds the pieces of tokenizer.json: ")


def test_odd_rows_are_told_and_not_refused(pico: Path, tmp_path: Path) -> None:
    gate = next(gate for gate in folder_gates(pico) if gate["name"] == "rows are a multiple of 64")
    assert gate["passed"]
    assert gate["bound"] == "none"
    assert "--pad-to 64" in gate["value"]
    rows = load_file(pico / "model.safetensors")["model.embed_tokens.weight"]
    padded = weights(pico, tmp_path / "a", embedding=torch.cat([rows, rows[:48]]))
    even = with_config(padded, tmp_path / "b", vocab_size=448)
    assert {gate["name"]: gate["bound"] for gate in folder_gates(even)}["rows are a multiple of 64"] == "all"


def test_adapters_with_rows_are_told_to_be_merged() -> None:
    assert "serve `--to merged`" in adapter_gates(64)[0]["value"]
    assert adapter_gates(0)[0]["value"] == "LoRA alone"


def test_the_manifest_finds_every_change(spm: Path, tmp_path: Path) -> None:
    export_hf(spm, tmp_path / "out")
    out = tmp_path / "out"
    assert manifest_gates(out)[0]["passed"]
    assert MODEL in read_manifest(out)["files"]
    assert all(gate["passed"] for gate in read_manifest(out)["gates"])
    (out / MODEL).unlink()
    (out / "config.json").write_text((out / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8")
    gate = manifest_gates(out)[0]
    assert not gate["passed"]
    assert gate["value"].endswith("missing: tokenizer.model; changed: config.json")
    (out / MANIFEST).write_text("[]", encoding="utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        manifest_gates(out)
    (out / MANIFEST).unlink()
    with pytest.raises(ModelError, match=f"has no {MANIFEST}"):
        manifest_gates(out)


def test_verify_reads_the_manifest(spm: Path, tmp_path: Path) -> None:
    export_hf(spm, tmp_path / "out")
    done = langgraft("verify", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    names = [gate["name"] for gate in json.loads(done.out)["gates"]]
    assert names[0] == "every file is as it was exported"
    assert "the head is tied, or not, as config.json says" in names
    (tmp_path / "out" / MODEL).unlink()
    broken = langgraft("verify", tmp_path / "out")
    assert broken.code == 1
    assert "missing: tokenizer.model" in broken.err
    assert langgraft("verify", "--base", spm).sentence() == (
        "verify takes an exported FOLDER, or both --base and --model of an extended model"
    )
