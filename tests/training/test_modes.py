"""Each mode moves what it says and nothing else, on several architectures; what makes no sense is refused."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from pico import pico_tokenizer
from quick import ONE_THREAD, QUICK
from safetensors.torch import load_file
from torch import Tensor, nn

from langgraft.errors import ModelError, RecipeError, TrainingError
from langgraft.progress import Log
from langgraft.store import sha256_file
from langgraft.training import checkpoint, loop
from langgraft.training.device import load_model
from langgraft.training.loop import METRICS, Settings, train
from langgraft.training.modes import (
    MODES,
    Lora,
    Phase,
    check_phases,
    check_quantization,
    decoder_layers,
    linear_names,
    no_adapter,
    select,
    spans,
)

OLD, ROWS = 300, 400
CHILD = Path(__file__).with_name("loop_child.py")
SMALL: dict[str, Any] = {
    "vocab_size": ROWS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
# name -> (class of the config, what it needs besides SMALL)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "gemma3-text": ("Gemma3TextConfig", {"tie_word_embeddings": True, "head_dim": 8}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}),
    "phi-biased-head": ("PhiConfig", {"tie_word_embeddings": False}),
}
THREE = replace(QUICK, steps=3, warmup=0.0, weight_decay=0.5)
EVERY = {
    "full": Phase("full"),
    "full, some layers": Phase("full", layers=(0, -1)),
    "embeddings": Phase("embeddings"),
    "new_rows": Phase("new_rows"),
    "lora": Phase("lora"),
    "lora, some layers": Phase("lora", layers=(1,)),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each architecture, all with the pico tokenizer."""
    root, found = tmp_path_factory.mktemp("modes"), {}
    for name, (config, extra) in ARCHITECTURES.items():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**{**SMALL, **extra}))
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)  # biases too: zeros hide what is lost
        found[name] = pico_tokenizer(root / name)
        model.save_pretrained(root / name)
    return found


def run(
    model: Path, out: Path, target: Path, replay: Path, settings: Settings = THREE, old_rows: int = OLD
) -> dict[str, Any]:
    return train(
        model, out, target=target, replay=replay, old_rows=old_rows, settings=settings, compute=ONE_THREAD,
        base=str(model), log=Log(out / "log.txt", quiet=True),
    )  # fmt: skip


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def losses_of(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / METRICS).read_text().splitlines()]


def is_rows(tensor: Tensor) -> bool:
    """Whether a tensor has one row for each token."""
    return tensor.shape[0] == ROWS


def in_layer(folder: Path, name: str) -> int | None:
    """The number of the decoder's layer that a weight is in."""
    stack, _ = decoder_layers(load_model(folder, torch.device("cpu")))
    return int(name.removeprefix(f"{stack}.").split(".")[0]) if name.startswith(f"{stack}.") else None


def may_move(folder: Path, mode: str, name: str, tensor: Tensor) -> str:
    """What of a tensor moves in a mode: all, new (rows), or none."""
    layer = in_layer(folder, name)
    if is_rows(tensor):
        return "new" if mode.startswith(("lora", "new_rows")) else "all"
    if mode == "full":
        return "all"
    if mode == "full, some layers":
        return "none" if layer == 1 else "all"
    if mode.startswith("lora"):
        linear = name.removesuffix(".weight").split(".")[-1] in linear_names(load_model(folder, torch.device("cpu")))
        wanted = layer is not None and (mode == "lora" or layer == 1)
        return "all" if linear and wanted and name.endswith(".weight") else "none"
    return "none"


OTHERS = ("embeddings", "new_rows", "lora")  # on every architecture; the rest only on Llama


@pytest.mark.parametrize(
    ("name", "mode"), [(n, m) for n in ARCHITECTURES for m in EVERY if n.startswith("llama") or m in OTHERS]
)
def test_a_mode_moves_what_it_says_and_nothing_else(
    name: str, mode: str, models: dict[str, Path], target: Path, replay: Path, tmp_path: Path
) -> None:
    folder = models[name]
    summary = run(folder, tmp_path, target, replay, replace(THREE, phases=(EVERY[mode],)))
    before, after = weights(folder), weights(tmp_path / "model")
    assert before.keys() == after.keys()  # a tied head stays tied, in the file too
    for key, old in before.items():
        new, moves = after[key], may_move(folder, mode, key, old)
        if moves == "all":
            assert not torch.equal(old, new), key
        elif moves == "none":
            assert torch.equal(old, new), key
        else:
            assert torch.equal(old[:OLD], new[:OLD]), key
            assert not torch.equal(old[OLD:], new[OLD:]), key
    assert summary["modes"] == [EVERY[mode].mode]
    assert (tmp_path / "adapter").exists() == (summary["adapter_bytes"] is not None) == mode.startswith(("lora", "new"))
    loaded = load_model(tmp_path / "model", torch.device("cpu"))
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == ("lm_head.weight" not in before)


def test_every_mode_of_the_table_is_tried_here() -> None:
    assert {phase.mode for phase in EVERY.values()} == set(MODES)


def test_the_log_says_how_much_learns(models: dict[str, Path], target: Path, replay: Path, tmp_path: Path) -> None:
    run(models["llama"], tmp_path, target, replay, replace(THREE, phases=(Phase("new_rows"),)))
    said = (tmp_path / "log.txt").read_text()
    whole = sum(tensor.numel() for tensor in weights(models["llama"]).values())
    learn = 2 * (ROWS - OLD) * SMALL["hidden_size"]
    assert f"phase 1 of 1, mode new_rows, 3 steps; {learn:,} of {whole:,} parameters learn" in said


@pytest.mark.parametrize("rows", ["new", "all", "none"])
def test_rows_beside_lora(rows: Any, models: dict[str, Path], target: Path, replay: Path, tmp_path: Path) -> None:
    for name in ("llama", "llama-tied"):
        out = tmp_path / name
        settings = replace(THREE, phases=(Phase("lora"),), lora=Lora(rank=4, targets=("q_proj",), rows=rows))
        run(models[name], out, target, replay, settings)
        before, after = weights(models[name]), weights(out / "model")
        for key, old in before.items():
            new = after[key]
            if is_rows(old):
                assert torch.equal(old[:OLD], new[:OLD]) == (rows != "all"), key
                assert torch.equal(old[OLD:], new[OLD:]) == (rows == "none"), key
            else:
                assert torch.equal(old, new) == (not key.endswith("q_proj.weight")), key
        assert (out / "adapter").exists() == (rows != "all")


def test_decay_and_the_state_of_adam_cannot_reach_old_rows(models: dict[str, Path]) -> None:
    """Planted: the whole matrix in an optimizer with decay moves old rows even without a gradient."""
    from langgraft.training.trainable import NewRows, parameter_groups, token_matrices

    model = load_model(models["llama-tied"], torch.device("cpu"))
    select(model, Phase("new_rows"), Lora())
    start = token_matrices(model)[0].detach().clone()
    rows = NewRows(model, OLD)
    groups = parameter_groups(model, learning_rate=0.1, new_rows_learning_rate=0.1, weight_decay=0.1, new_rows=rows)
    assert [p for group in groups for p in group["params"]] == rows.parts
    optimizer = torch.optim.AdamW([{**group, "weight_decay": 0.5} for group in groups])
    for _ in range(4):
        model(input_ids=torch.arange(4, 60)[None], labels=torch.arange(4, 60)[None]).loss.backward()
        rows.take_gradients()
        assert token_matrices(model)[0].grad is None
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(token_matrices(model)[0][:OLD], start[:OLD])
    assert not torch.equal(token_matrices(model)[0][OLD:], start[OLD:])
    assert sum(state["exp_avg"].numel() for state in optimizer.state.values()) == (ROWS - OLD) * 32

    masked = torch.optim.AdamW([token_matrices(model)[0]], lr=0.1, weight_decay=0.5)
    token_matrices(model)[0].grad = torch.zeros_like(start)
    masked.step()
    assert not torch.equal(token_matrices(model)[0][:OLD], start[:OLD])


STAGED = (Phase("new_rows", 1 / 3), Phase("embeddings", 1 / 3), Phase("full", 1 / 3))
LORA_THEN = (Phase("lora", 0.5), Phase("full", 0.5, layers=(0, -1)))


def test_phases_follow_one_another(models: dict[str, Path], target: Path, replay: Path, tmp_path: Path) -> None:
    """A run of phases is, step for step, the runs of its phases: what moves is that of the phase so far."""
    seen: list[tuple[int, dict[str, Tensor]]] = []
    settings = replace(THREE, steps=6, phases=STAGED)
    train(
        models["llama"], tmp_path, target=target, replay=replay, old_rows=OLD, settings=settings, compute=ONE_THREAD,
        log=Log(tmp_path / "log.txt", quiet=True),
        after_step=lambda step, model: seen.append((step, {k: v.clone() for k, v in model.state_dict().items()})),
    )  # fmt: skip
    start = load_model(models["llama"], torch.device("cpu")).state_dict()
    embedding, body = "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"
    for step, state in seen:
        assert torch.equal(state[embedding][:OLD], start[embedding][:OLD]) == (step <= 2)
        assert torch.equal(state[body], start[body]) == (step <= 4)
        assert not torch.equal(state["lm_head.weight"][OLD:], start["lm_head.weight"][OLD:])
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["mode"] for line in lines] == ["new_rows"] * 2 + ["embeddings"] * 2 + ["full"] * 2
    # Each phase has the whole schedule.
    rates = [line["learning_rate"] for line in lines]
    assert rates[0] == rates[2] == rates[4] > rates[1] == rates[3] == rates[5]
    assert not (tmp_path / "adapter").exists()


def test_lora_is_folded_in_before_the_next_phase(
    models: dict[str, Path], target: Path, replay: Path, tmp_path: Path
) -> None:
    settings = replace(THREE, steps=4, phases=LORA_THEN, lora=Lora(rank=4))
    run(models["llama-tied"], tmp_path, target, replay, settings)
    before, after = weights(models["llama-tied"]), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    middle = "model.layers.1.mlp.up_proj.weight"  # no phase but LoRA's reached it
    assert torch.linalg.matrix_rank(after[middle] - before[middle], rtol=1e-4) == 4
    assert torch.equal(before["model.layers.1.input_layernorm.weight"], after["model.layers.1.input_layernorm.weight"])
    assert not torch.equal(
        before["model.layers.2.input_layernorm.weight"], after["model.layers.2.input_layernorm.weight"]
    )


RESUMED = {
    "lora": {"phases": (Phase("lora"),), "lora": Lora(rank=4, dropout=0.1)},
    "embeddings": {"phases": (Phase("embeddings"),)},
    "new_rows": {"phases": (Phase("new_rows"),), "ema_decay": 0.9},
    "full, averaged": {"phases": (Phase("full", layers=(0,)),), "ema_decay": 0.9, "z_loss": 1e-3},
    "staged": {"phases": STAGED},
    "lora, then layers": {"phases": LORA_THEN, "lora": Lora(rank=4)},
}


def kill(crash: str, out: Path, models: dict[str, Path], target: Path, replay: Path, settings: Settings) -> None:
    """Train in a process of its own that kills itself."""
    out.mkdir()
    job = {"model": models["llama-tied"], "target": target, "replay": replay, "out": out, "crash": crash}
    job = {k: str(v) for k, v in job.items()} | {"old_rows": OLD}
    job |= {"settings": asdict(settings), "compute": asdict(ONE_THREAD)}
    done = subprocess.run(
        [sys.executable, str(CHILD), json.dumps(job)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


class Gone(BaseException):
    """What ends a run where nothing can be saved any more."""


def stop(number: int, out: Path, models: dict[str, Path], target: Path, replay: Path, settings: Settings) -> None:
    """Train in this process until a step is done and recorded; nothing is saved for it."""
    record = loop._Run._record

    def recording(self: Any, facts: dict[str, Any]) -> None:
        record(self, facts)
        if facts["step"] == number:
            raise Gone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_record", recording)
        with pytest.raises(Gone):
            run(models["llama-tied"], out, target, replay, settings)


@pytest.mark.parametrize(
    ("how", "crash"),
    [
        ("lora", "step 3"), ("lora", "model"), ("embeddings", "step 5"), ("new_rows", "step 3"),
        ("full, averaged", "step 5"), ("staged", "step 3"), ("staged", "write 4"), ("staged", "step 5"),
        ("lora, then layers", "step 3"), ("lora, then layers", "step 5"),
    ],
)  # fmt: skip
def test_stopped_anywhere_and_started_again_gives_the_same_bits(
    how: str, crash: str, models: dict[str, Path], target: Path, replay: Path, tmp_path: Path
) -> None:
    settings = replace(QUICK, **RESUMED[how])
    whole, out = tmp_path / "whole", tmp_path / "run"
    run(models["llama-tied"], whole, target, replay, settings)
    kind, _, number = crash.partition(" ")
    if kind == "step":
        stop(int(number), out, models, target, replay, settings)
    else:
        kill(crash, out, models, target, replay, settings)
    assert not (out / "model").exists()
    run(models["llama-tied"], out, target, replay, settings)
    assert sha256_file(out / "model" / "model.safetensors") == sha256_file(whole / "model" / "model.safetensors")
    assert losses_of(out) == losses_of(whole)
    assert len(losses_of(out)) == 6
    assert not list(out.rglob(".tmp-*"))
    if (out / "adapter").exists():
        for file in (out / "adapter").iterdir():
            assert sha256_file(file) == sha256_file(whole / "adapter" / file.name), file.name


def test_a_checkpoint_of_an_adapter_holds_what_moves(
    models: dict[str, Path], target: Path, replay: Path, tmp_path: Path
) -> None:
    settings = replace(QUICK, phases=(Phase("lora"),), lora=Lora(rank=2, targets=("q_proj",)))
    run(models["llama-tied"], tmp_path, target, replay, settings)
    kept = torch.load(tmp_path / "checkpoints" / "step-000004" / "model.pt", weights_only=True)
    assert len(kept) == 1 + 2 * 3
    assert all(".lora_" in name or "embed_tokens" in name for name in kept)


def test_a_checkpoint_with_other_weights_is_refused(
    models: dict[str, Path], target: Path, replay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(models["llama-tied"], tmp_path, target, replay, replace(QUICK, phases=(Phase("embeddings"),)))
    real = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda *args: {**real(*args), "model": {}})
    with pytest.raises(TrainingError, match="holds other weights than mode `embeddings` trains"):
        run(models["llama-tied"], tmp_path, target, replay, replace(QUICK, phases=(Phase("embeddings"),)))


def test_no_new_rows_is_nothing_to_train(models: dict[str, Path], target: Path, replay: Path, tmp_path: Path) -> None:
    settings = replace(THREE, phases=(Phase("new_rows"),))
    with pytest.raises(RecipeError, match="mode `new_rows` trains nothing: the model has no rows for new tokens"):
        run(models["llama"], tmp_path, target, replay, settings, old_rows=ROWS)
    # LoRA has its matrices, and is fine without.
    settings = replace(THREE, phases=(Phase("lora"),))
    assert run(models["llama"], tmp_path / "lora", target, replay, settings, old_rows=ROWS)["adapter_bytes"]


@pytest.mark.parametrize(
    ("phases", "lora", "sentence"),
    [
        ([Phase("lorra")], Lora(), r"pretrain\.mode `lorra` is unknown; did you mean `lora`\?"),
        ([Phase("new_rows", layers=(0,))], Lora(), r"pretrain\.layers is for modes full and lora"),
        ([Phase("full")], Lora(quantize="nf4"), r'quantize = "nf4": the base stays as it is, but mode `full` changes'),
        ([Phase("new_rows")], Lora(quantize="nf4"), r"the base stays as it is, but no phase has mode `lora`"),
        ([Phase("lora")], Lora(quantize="nf4", rows="all"), r'but pretrain\.lora\.rows = "all" changes rows'),
    ],
)
def test_what_does_not_go_together(phases: list[Phase], lora: Lora, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check_phases(phases, lora)


def test_what_an_adapter_can_hold() -> None:
    new, lora, full = Phase("new_rows", 0.5), Phase("lora", 0.5), Phase("full", 0.5)
    assert no_adapter([lora], Lora()) is no_adapter([new], Lora()) is no_adapter([new, lora], Lora()) is None
    assert "starts from merged weights" in (no_adapter([lora, new], Lora()) or "")
    assert "mode `full` changes weights" in (no_adapter([full, lora], Lora()) or "")


def test_steps_of_phases() -> None:
    found = spans([Phase("new_rows", 0.3), Phase("embeddings", 0.3), Phase("full", 0.4)], 11)
    assert [(span.first, span.steps) for span in found] == [(0, 3), (3, 4), (7, 4)]
    with pytest.raises(RecipeError, match=r"shares of pretrain\.phases add up to 0\.9; they must add up to 1"):
        spans([Phase("full", 0.5), Phase("lora", 0.4)], 10)
    with pytest.raises(RecipeError, match=r"phases \(entry 1\): a share of 0\.01 of 10 steps is none"):
        spans([Phase("new_rows", 0.01), Phase("full", 0.99)], 10)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=5).map(lambda xs: [x / sum(xs) for x in xs]),
    st.integers(400, 3000),
)
def test_phases_cover_every_step_once(shares: list[float], steps: int) -> None:
    found = spans([Phase("full", share) for share in shares], steps)
    assert [step for span in found for step in range(span.first, span.first + span.steps)] == list(range(steps))
    assert all(abs(span.steps - share * steps) <= 1 for span, share in zip(found, shares, strict=True))


def test_layers_and_targets_that_are_not_there(models: dict[str, Path]) -> None:
    model = load_model(models["llama"], torch.device("cpu"))
    with pytest.raises(RecipeError, match=r"there is no layer 3; the model has layers 0 to 2 \(-1 is the last\)"):
        select(model, Phase("full", layers=(0, 3)), Lora())
    for target, hint in (("q_porj", r"did you mean `q_proj`\?"), ("lm_head", "choose one of down_proj")):
        with pytest.raises(RecipeError, match=rf"`{target}` is no linear layer of this model's transformer .*{hint}"):
            select(model, Phase("lora"), Lora(targets=(target,)))
    model.model.layers = nn.ModuleList([*model.model.layers, nn.Identity()])
    with pytest.raises(ModelError, match="LlamaForCausalLM has no list of 3 layers"):
        select(model, Phase("full", layers=(0,)), Lora())


def test_four_bits_need_cuda_and_bitsandbytes(
    models: dict[str, Path], target: Path, replay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(THREE, phases=(Phase("lora"),), lora=Lora(quantize="nf4"))
    with pytest.raises(RecipeError, match=r"quantize = \"nf4\" needs a CUDA device, and this run is on cpu"):
        run(models["llama"], tmp_path, target, replay, settings)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"needs bitsandbytes; pip install \"langgraft\[qlora\]\""):
        check_quantization(settings.lora, torch.device("cuda"))
