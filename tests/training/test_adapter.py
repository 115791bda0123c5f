"""Adapter folders: on the base they are the trained model, in langgraft, in peft alone, and merged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import langgraft
from pico import CANTONESE, pico_model
from quick import ONE_THREAD, QUICK
from safetensors.torch import load_file, save_file
from torch import Tensor

from langgraft.errors import ModelError
from langgraft.exporting.formats import export
from langgraft.progress import Log
from langgraft.serving.generate import text_prompt
from langgraft.serving.models import open_model
from langgraft.store import sha256_file
from langgraft.surgery.resize import resize
from langgraft.text import language
from langgraft.tokenizer.extend import extend
from langgraft.tokenizer.files import load
from langgraft.training.adapter import CONFIG, FACTS, WEIGHTS, load_adapter, merge_adapter
from langgraft.training.device import load_model
from langgraft.training.loop import train
from langgraft.training.modes import Lora, Phase
from langgraft.training.packing import pack

CPU = torch.device("cpu")
OLD, ROWS = 400, 512  # 50 new tokens, padded to a multiple of 64
KINDS = {
    "tied-lora": (True, (Phase("lora"),)),
    "untied-lora": (False, (Phase("new_rows", 0.5), Phase("lora", 0.5, layers=(-1,)))),
    "tied-rows": (True, (Phase("new_rows"),)),
    "untied-rows": (False, (Phase("new_rows"),)),
    "biased-lora": (False, (Phase("lora"),)),
}


class Made:
    """A base, what it was extended to, and a run of training with the logits it ended with."""

    def __init__(self, base: Path, start: Path, out: Path, logits: Tensor) -> None:
        self.base, self.start, self.out, self.logits = base, start, out, logits
        self.adapter = out / "adapter"


def biased(folder: Path) -> Path:
    """A pico Phi: its head has a bias."""
    from transformers import PhiConfig, PhiForCausalLM

    pico_model(folder, tie=False)
    config = PhiConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = PhiForCausalLM(config)
    model.lm_head.bias.data.normal_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Every kind, trained for a few steps."""
    root, found = tmp_path_factory.mktemp("adapters"), {}
    for name, (tie, phases) in KINDS.items():
        base = biased(root / name / "base") if "biased" in name else pico_model(root / name / "base", tie=tie)
        start, tokenizer, out = (root / name / part for part in ("start", "tokenizer", "out"))
        extend(base, CANTONESE * 10, tokenizer, language=language("yue"), new_tokens=50, min_frequency=2)
        first = resize(base, tokenizer, start).old_tokens
        pack(load(start), CANTONESE, root / name / "packed", separator=0)
        seen: list[Tensor] = []
        settings = replace(QUICK, steps=4, replay_ratio=0.0, phases=phases, lora=Lora(rank=4, alpha=16))
        train(
            start, out, target=root / name / "packed", replay=None, old_rows=first, settings=settings, base=str(base),
            compute=ONE_THREAD, log=Log(quiet=True), after_step=lambda _, model, seen=seen: seen.append(logits(model)),
        )  # fmt: skip
        found[name] = Made(base, start, out, seen[-1])
    return found


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Logits of ids, old and new."""
    found: Tensor = model(input_ids=torch.arange(380, 448)[None], use_cache=False).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_base_and_merged_it_is_the_trained_model(kind: str, made: dict[str, Made], tmp_path: Path) -> None:
    one = made[kind]
    merged = merge_adapter(one.adapter, tmp_path / "merged")  # the base that the adapter names
    models = {
        "written": load_model(one.out / "model", CPU),
        "on the base": load_adapter(one.adapter, one.base),
        "on the extended base": load_adapter(one.adapter, one.start),
        "merged in memory": load_adapter(one.adapter, one.base, merge=True),
        "merged on disk": load_model(merged, CPU),
    }
    for how, model in models.items():
        assert (logits(model) - one.logits).abs().max() < 1e-5, how
    assert type(models["merged in memory"]) is type(models["merged on disk"])
    tied = (
        models["merged on disk"].get_output_embeddings().weight
        is models["merged on disk"].get_input_embeddings().weight
    )
    assert tied == kind.startswith("tied") == ("lm_head.weight" not in load_file(merged / "model.safetensors"))
    forbidden = json.loads((one.start / "generation_config.json").read_text())["suppress_tokens"]
    assert models["on the base"].generation_config.suppress_tokens == forbidden


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_without_being_merged_first(kind: str, made: dict[str, Made]) -> None:
    one = made[kind]
    served, merged = (open_model(str(folder), threads=1) for folder in (one.adapter, one.out / "model"))
    ids = text_prompt(served, "The quick brown")
    assert ids == text_prompt(merged, "The quick brown")
    assert (served.special, served.template) == (merged.special, merged.template)
    there = slice(0, len(load(one.start).get_vocab()))  # padding rows are -inf
    assert abs(served.logits(ids)[there] - merged.logits(ids)[there]).max() < 1e-4


def test_rows_of_a_file_are_answered_by_it(made: dict[str, Made], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "The quick brown"}\n', encoding="utf-8")
    done = langgraft("infer", made["tied-lora"].adapter, rows, "--plain", "--max-tokens", "2", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert '"output"' in (tmp_path / "out" / "rows.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("biased")])
def test_peft_alone_loads_it(kind: str, made: dict[str, Made]) -> None:
    from peft import PeftModel

    one = made[kind]
    model = load_model(one.base, CPU)
    model.resize_token_embeddings(ROWS)
    loaded = PeftModel.from_pretrained(model, one.adapter)
    assert (logits(loaded.eval()) - one.logits).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_lora_and_new_rows_and_nothing_else(kind: str, made: dict[str, Made]) -> None:
    one = made[kind]
    rows = ROWS - OLD
    for name, tensor in load_file(one.adapter / WEIGHTS).items():
        assert (".lora_" in name and 4 in tensor.shape) or tensor.shape in ((rows, 32), (rows,)), name
    tokenizer = {path.name for path in one.start.iterdir() if path.name.startswith(("tokenizer", "special", "chat"))}
    assert {path.name for path in one.adapter.iterdir()} == tokenizer | {
        CONFIG, WEIGHTS, FACTS, "generation_config.json",
    }  # fmt: skip
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(one.adapter)(CANTONESE[0])["input_ids"]
    assert ids == load(one.start).encode(CANTONESE[0]).ids


def test_the_same_run_gives_the_same_bytes(made: dict[str, Made], tmp_path: Path) -> None:
    one = made["tied-lora"]
    settings = replace(QUICK, steps=4, replay_ratio=0.0, phases=(Phase("lora"),), lora=Lora(rank=4, alpha=16))
    train(
        one.start, tmp_path, target=one.base.parent / "packed", replay=None, old_rows=OLD, settings=settings,
        base=str(one.base), compute=ONE_THREAD, log=Log(quiet=True),
    )  # fmt: skip
    for file in (tmp_path / "adapter").iterdir():
        assert sha256_file(file) == sha256_file(one.adapter / file.name), file.name


def test_another_base_is_refused(made: dict[str, Made], tmp_path: Path) -> None:
    adapter = made["tied-lora"].adapter
    others = {  # what is wrong with it -> a base
        "other weights": pico_model(tmp_path / "seed", seed=1),
        "untied": made["untied-lora"].base,
        "more rows": tmp_path / "large",
    }
    model = load_model(made["tied-lora"].base, CPU)
    model.resize_token_embeddings(ROWS + 64)
    shutil.copytree(made["tied-lora"].base, others["more rows"])
    model.save_pretrained(others["more rows"])
    for base in others.values():
        with pytest.raises(ModelError, match=r"belongs to another base than .*: embedding rows differ; give the base"):
            load_adapter(adapter, base)


def test_damage_is_found(made: dict[str, Made], tmp_path: Path) -> None:
    one = made["tied-lora"]

    def copy(name: str) -> Path:
        return Path(shutil.copytree(one.adapter, tmp_path / name))

    for name in (CONFIG, WEIGHTS, FACTS):
        (copy(f"no {name}") / name).unlink()
        with pytest.raises(ModelError, match=f"has no {name}: it is no adapter folder"):
            load_adapter(tmp_path / f"no {name}", one.base)
    cut = copy("cut") / WEIGHTS
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is damaged"):
        load_adapter(tmp_path / "cut", one.base)
    (copy("facts") / FACTS).write_text('{"base": "x"}')
    with pytest.raises(ModelError, match="is damaged"):
        load_adapter(tmp_path / "facts", one.base)
    tensors = load_file(copy("fewer") / WEIGHTS)
    save_file({k: v for k, v in tensors.items() if "q_proj" not in k}, tmp_path / "fewer" / WEIGHTS)
    with pytest.raises(ModelError, match=f"does not hold the layers that {CONFIG} names"):
        load_adapter(tmp_path / "fewer", one.base)
    (copy("nameless") / FACTS).write_text(json.dumps({**json.loads((one.adapter / FACTS).read_text()), "base": ""}))
    with pytest.raises(ModelError, match="does not name its base; give it"):
        load_adapter(tmp_path / "nameless")


def test_exports(made: dict[str, Made], tmp_path: Path) -> None:
    """`--to adapter` and `--to merged`: the base's folder on this machine is named nowhere."""
    one = made["untied-lora"]
    facts = export(one.adapter, tmp_path / "adapter", to="adapter")
    assert (facts["format"], facts["base"], facts["new_rows"]) == ("adapter", "base", ROWS - OLD)
    assert sha256_file(tmp_path / "adapter" / WEIGHTS) == sha256_file(one.adapter / WEIGHTS)
    for path in (tmp_path / "adapter").iterdir():
        assert str(one.base).encode() not in path.read_bytes(), path.name
    named = export(one.adapter, tmp_path / "named", to="adapter", base="owner/model")
    assert named["base"] == json.loads((tmp_path / "named" / CONFIG).read_text())["base_model_name_or_path"]
    facts = export(tmp_path / "adapter", tmp_path / "merged", to="merged", base=str(one.base))
    assert facts["format"] == "merged"
    assert (logits(load_model(tmp_path / "merged", CPU)) - one.logits).abs().max() < 1e-5
    assert not list(tmp_path.glob(".tmp-*"))
    half = export(one.adapter, tmp_path / "half", to="merged", dtype="bfloat16")
    assert half["files"]["model.safetensors"]["bytes"] < 0.6 * facts["files"]["model.safetensors"]["bytes"]
    assert {t.dtype for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}
    with pytest.raises(ModelError, match="dtype `int8` is unknown; choose one of float32, bfloat16, float16"):
        export(one.adapter, tmp_path / "int8", to="merged", dtype="int8")
    with pytest.raises(ModelError, match="cannot replace the adapter it is made from"):
        export(one.adapter, one.adapter, to="adapter")
    with pytest.raises(ModelError, match=f"has no {CONFIG}: it is no adapter folder"):
        export(one.start, tmp_path / "no", to="merged")
