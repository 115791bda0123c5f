"""Hub folders and GGUF files as whole artefacts."""

import json
import re
import shutil
from pathlib import Path

import pytest
from gguf_cases import with_config

from langgraft.errors import ModelError, TokenizerError
from langgraft.exporting import formats
from langgraft.exporting.formats import EXPORTS, export_gguf, export_hf
from langgraft.methods import resolve
from langgraft.store import sha256_file


@pytest.fixture
def trained(pico: Path, tmp_path: Path) -> Path:
    """A model folder as training leaves it: a drift pin, private paths, and files that must stay behind."""
    folder = with_config(pico, tmp_path / "trained", _name_or_path="/home/someone/base")
    for name in ("optimizer.pt", "trainer_state.json", "stage.json", "events.jsonl"):
        (folder / name).write_text("{}")
    (folder / "checkpoint-10").mkdir()
    (folder / "langgraft_pin.json").write_text('{"ids": [1]}')
    (folder / "tokenizer.model").write_bytes(b"\x00model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "GPT2Tokenizer", "name_or_path": "/home/someone", "auto_map": {"a": "b"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_hub_folder(trained: Path, tmp_path: Path) -> None:
    facts = export_hf(trained, tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(facts["files"]) == [
        "config.json",
        "generation_config.json",
        "langgraft_pin.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    for name in ("model.safetensors", "tokenizer.json", "langgraft_pin.json", "tokenizer.model"):
        assert sha256_file(out / name) == sha256_file(trained / name) == facts["files"][name]["sha256"]
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in config
    assert "chat_template" in config
    assert not any("/home/someone" in path.read_text(errors="ignore") for path in out.iterdir())
    assert json.loads((out / "special_tokens_map.json").read_text()) == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
    }
    assert (facts["tokens"], facts["rows"]) == (400, 400)


def test_the_same_input_gives_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    assert export_hf(trained, tmp_path / "a")["files"] == export_hf(trained, tmp_path / "b")["files"]


def test_what_is_missing_is_written_and_what_is_there_travels(trained: Path, tmp_path: Path) -> None:
    (trained / "generation_config.json").unlink()
    (trained / "chat_template.jinja").write_text("{{ messages }}")
    (trained / "additional_chat_templates").mkdir()
    (trained / "additional_chat_templates" / "tool.jinja").write_text("tool")
    export_hf(trained, tmp_path / "out")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (tmp_path / "out" / "additional_chat_templates" / "tool.jinja").read_text() == "tool"


def test_sharded_folder(pico_untied: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "sharded"
    shutil.copytree(pico_untied, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(pico_untied).save_pretrained(folder, max_shard_size="40KB")
    facts = export_hf(folder, tmp_path / "out")
    shards = [name for name in facts["files"] if name.startswith("model-")]
    assert len(shards) > 1
    assert "model.safetensors.index.json" in facts["files"]
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(pico_untied).state_dict().items():
        assert reloaded[name].equal(tensor)
    whole = export_gguf(pico_untied, tmp_path / "gguf", quant=("f16",), name="m")["files"]["f16"]["path"]
    parts = export_gguf(folder, tmp_path / "gguf2", quant=("f16",), name="m")["files"]["f16"]["path"]
    assert sha256_file(Path(whole)) == sha256_file(Path(parts))


def test_refusals(pico: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        export_hf(tmp_path, tmp_path / "out")
    with pytest.raises(ModelError, match="cannot replace the model"):
        export_hf(pico, pico)
    with pytest.raises(ModelError, match="code of its own"):
        export_hf(with_config(pico, tmp_path / "a", auto_map={"AutoModel": "x.Y"}), tmp_path / "out")
    with pytest.raises(ModelError, match="vocab_size 401, the embedding has 400"):
        export_hf(with_config(pico, tmp_path / "b", vocab_size=401), tmp_path / "out")
    with pytest.raises(TokenizerError):
        export_hf(with_config(pico, tmp_path / "c", vocab_size=399), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_that_differs_is_noticed(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "sha256_file", lambda path: str(path))
    with pytest.raises(ModelError, match="changed while it was copied"):
        export_hf(pico, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gguf_files(pico: Path, tmp_path: Path) -> None:
    facts = export_gguf(pico, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model-f16.gguf", "model-q8_0.gguf"]
    assert facts["files"]["q8_0"]["bytes"] < facts["files"]["f16"]["bytes"]
    export_gguf(pico, tmp_path / "out", quant=("f32",), name="pico")
    assert (tmp_path / "out" / "pico-f32.gguf").is_file()
    for quant in (("q9",), ()):
        with pytest.raises(ModelError, match="choose from f32, f16"):
            export_gguf(pico, tmp_path / "out", quant=quant)


def test_table() -> None:
    assert list(EXPORTS) == ["hf", "gguf", "nemo-data", "ollama", "adapter", "merged", "megatron", "onnx"]
    assert resolve(EXPORTS, "hf", what="export") is export_hf
    assert resolve(EXPORTS, "gguf", what="export") is export_gguf
    with pytest.raises(Exception, match=re.escape("`ggguf` is unknown; did you mean `gguf`?")):
        resolve(EXPORTS, "ggguf", what="export")
