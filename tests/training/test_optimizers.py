"""Optimizers: each learns, resumes exactly, holds old rows back, and says where it cannot run."""

import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pico import CANTONESE, ENGLISH, pico_model
from quick import ONE_THREAD, QUICK
from safetensors.torch import load_file

from langgraft.errors import Interrupted, RecipeError
from langgraft.progress import Log
from langgraft.store import sha256_file
from langgraft.tokenizer.files import load
from langgraft.training import loop
from langgraft.training.loop import METRICS, Settings, train
from langgraft.training.optimizers import OPTIMIZERS, SCALE, Joint, check_optimizer, muon, shared_muon
from langgraft.training.packing import pack

OLD = 300
CPU = torch.device("cpu")
needs_8bit = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is missing")
NAMES = [pytest.param(name, marks=needs_8bit if name == "adamw_8bit" else ()) for name in OPTIMIZERS]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A pico model whose matrices are large enough for a state in 8 bits, and text."""
    folder = tmp_path_factory.mktemp("wide")
    model = pico_model(folder / "model", hidden=64)
    for name, texts in (("target", CANTONESE), ("replay", ENGLISH)):
        pack(load(model), texts, folder / name, separator=0)
    return {"model": model, "target": folder / "target", "replay": folder / "replay"}


def run(data: dict[str, Any], out: Path, settings: Settings) -> dict[str, Any]:
    return train(
        data["model"], out, target=data["target"], replay=data["replay"], old_rows=OLD, settings=settings,
        compute=ONE_THREAD, log=Log(quiet=True),
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_learns_holds_old_rows_and_resumes_exactly(
    name: str, wide: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(QUICK, optimizer=name, old_rows_learning_rate=0.0)
    run(wide, tmp_path / "whole", settings)
    lines = [json.loads(line) for line in (tmp_path / "whole" / METRICS).read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1
    row, matrix = "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"
    before, after = (load_file(f / "model.safetensors") for f in (wide["model"], tmp_path / "whole" / "model"))
    assert torch.equal(before[row][:OLD], after[row][:OLD])
    assert not torch.equal(before[row][OLD:], after[row][OLD:])
    assert not torch.equal(before[matrix], after[matrix])

    step = loop._Run._step

    def stepping(self: Any) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_step", stepping)
        with pytest.raises(Interrupted):
            run(wide, tmp_path / "cut", settings)
    run(wide, tmp_path / "cut", settings)
    weights = (sha256_file(tmp_path / o / "model" / "model.safetensors") for o in ("whole", "cut"))
    assert len(set(weights)) == 1


def test_each_gives_other_weights(wide: dict[str, Any], tmp_path: Path) -> None:
    names = [name for name in OPTIMIZERS if name != "adamw_8bit" or importlib.util.find_spec("bitsandbytes")]
    for name in names:
        run(wide, tmp_path / name, replace(QUICK, steps=2, optimizer=name))
    assert len({sha256_file(tmp_path / name / "model" / "model.safetensors") for name in names}) == len(names)


@needs_8bit
def test_the_state_of_matrices_is_in_8_bits_and_of_rows_is_not(wide: dict[str, Any], tmp_path: Path) -> None:
    run(wide, tmp_path, replace(QUICK, steps=3, optimizer="adamw_8bit"))
    newest = max((tmp_path / "checkpoints").iterdir())
    matrices, rest = torch.load(newest / "optimizer.pt", weights_only=True)["parts"].values()
    kinds = {
        value.dtype
        for state in matrices["state"].values()
        for quantized in [state.get("__bnb_optimizer_quant_state__", state)]
        for key, value in quantized.items()
        if key.startswith("state")
    }
    assert torch.uint8 in kinds
    assert {v.dtype for s in rest["state"].values() for v in s.values()} == {torch.float32}


def test_muon_takes_flat_matrices_of_the_transformer_and_nothing_else() -> None:
    flat, deep, norm, rows = (torch.nn.Parameter(torch.ones(*shape)) for shape in ((4, 3), (2, 4, 3), (4,), (9, 3)))
    made = muon(
        [
            {"part": "matrices", "params": [flat, deep], "peak": 1.0, "lr": 1.0, "weight_decay": 0.1},
            {"part": "rest", "params": [norm], "peak": 1.0, "lr": 1.0, "weight_decay": 0.0},
            {"part": "rows", "params": [rows], "peak": 2.0, "lr": 2.0, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    assert isinstance(made, Joint)
    muons, adams = made.parts
    assert isinstance(muons, torch.optim.Muon)
    assert [p for group in muons.param_groups for p in group["params"]] == [flat]
    others = [id(p) for group in adams.param_groups for p in group["params"]]
    assert others == [id(deep), id(norm), id(rows)]
    assert [group["peak"] for group in made.param_groups] == [1.0, 1.0, 1.0, 2.0]
    # A step of the first kind is as large as one of AdamW's: 0.2 times the longer side's root, for each number.
    for parameter in (flat, deep, norm, rows):
        parameter.grad = torch.randn_like(parameter)
    before = flat.detach().clone()
    made.step()
    assert 0.05 < (flat.detach() - 0.9 * before).square().mean().sqrt() < 0.5
    made.zero_grad()
    assert flat.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_only_rows_learn(name: str, wide: dict[str, Any], tmp_path: Path) -> None:
    phases = (replace(QUICK.phases[0], mode="new_rows"),)
    run(wide, tmp_path, replace(QUICK, steps=1, optimizer=name, phases=phases))


def test_what_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"pretrain\.optimizer `mouon` is unknown; did you mean `muon`\?"):
        check_optimizer("mouon", CPU)
    with pytest.raises(RecipeError, match=r'"adamw_8bit" runs on CUDA and CPU, not on mps'):
        check_optimizer("adamw_8bit", torch.device("mps"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"needs the package bitsandbytes, .* pip install 'langgraft\[qlora\]'"):
        check_optimizer("adamw_8bit", CPU)
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(RecipeError, match=r"needs torch 2\.9 or newer"):
        check_optimizer("muon", CPU)


def test_shared_muon_takes_the_steps_of_muon() -> None:
    """Given the same gradients; that parts are put together rightly is tested where several processes train."""
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((6, 4), (3, 8))]
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        found = []
        for make in (torch.optim.Muon, shared_muon(lambda _, part: (part, lambda whole: whole))):
            own = [torch.nn.Parameter(tensor.clone()) for tensor in start]
            made = make([{"params": own}], lr=0.1, weight_decay=0.1, adjust_lr_fn=SCALE)
            random = torch.Generator().manual_seed(1)
            for _ in range(3):
                for parameter in own:
                    parameter.grad = torch.randn(parameter.shape, generator=random)
                made.step()
            found.append((own, made.state_dict()))
    finally:
        torch.distributed.destroy_process_group()
    (ones, one), (others, other) = found
    for mine, theirs in zip(others, ones, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    assert other["param_groups"] == one["param_groups"]
    torch.testing.assert_close(other["state"], one["state"], rtol=0, atol=0)
