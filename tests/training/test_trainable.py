"""Parameter groups, and old rows that move as far as they were told."""

from pathlib import Path
from typing import Any

import pytest
import torch

from langgraft.training.device import load_model
from langgraft.training.trainable import OldRows, parameter_groups, token_matrices

CPU = torch.device("cpu")
OLD = 300


def groups_of(model: Any) -> list[dict[str, Any]]:
    return parameter_groups(model, learning_rate=1e-2, new_rows_learning_rate=5e-2, weight_decay=0.1)


@pytest.mark.parametrize("name", ["pico", "pico_untied"])
def test_groups_hold_every_parameter_once(name: str, request: pytest.FixtureRequest) -> None:
    model = load_model(request.getfixturevalue(name), CPU)
    groups = groups_of(model)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters()}
    assert len(token_matrices(model)) == (1 if name == "pico" else 2)
    rows = {id(p) for p in token_matrices(model)}
    for group in groups:
        assert group["lr"] == group["peak"]
        for parameter in group["params"]:
            assert group["peak"] == (5e-2 if id(parameter) in rows else 1e-2)
            plain = parameter.dim() < 2 or id(parameter) in rows
            assert group["weight_decay"] == (0.0 if plain else 0.1)


def test_no_decay_on_positions_norms_and_biases() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    decay = {id(p): group["weight_decay"] for group in groups_of(model) for p in group["params"]}
    for name, parameter in model.named_parameters():
        spared = any(part in name for part in ("wte", "wpe", "bias", "ln_"))
        assert decay[id(parameter)] == (0.0 if spared else 0.1), name


def one_step(folder: Path, factor: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Token matrices before and after one AdamW step with old rows held back to `factor`."""
    model = load_model(folder, CPU)
    before = [m.detach().clone() for m in token_matrices(model)]
    optimizer = torch.optim.AdamW(groups_of(model))
    old = OldRows(model, OLD, factor)
    for number in range(2):
        ids = torch.arange(4, 40)[None] + number
        logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[0], ids[0]).backward()
        if number == 0:
            with old.held_back():
                optimizer.step()
            optimizer.zero_grad()
    return before, [m.detach() for m in token_matrices(model)]


@pytest.mark.parametrize("name", ["pico", "pico_untied"])
def test_factor_zero_keeps_old_rows_to_the_bit(name: str, request: pytest.FixtureRequest) -> None:
    before, after = one_step(request.getfixturevalue(name), 0.0)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:OLD], new[:OLD])
    # The head's gradient reaches every row, so the new ones have moved.
    assert not torch.equal(before[-1][OLD:], after[-1][OLD:])


@pytest.mark.parametrize("name", ["pico", "pico_untied"])
@pytest.mark.parametrize("factor", [0.2, 0.75])
def test_a_factor_is_that_share_of_the_step(name: str, factor: float, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    before, whole = one_step(folder, 1.0)
    _, held = one_step(folder, factor)
    for start, full, part in zip(before, whole, held, strict=True):
        torch.testing.assert_close(part[:OLD] - start[:OLD], factor * (full[:OLD] - start[:OLD]), rtol=1e-4, atol=1e-7)
        assert torch.equal(part[OLD:], full[OLD:])


def test_old_rows_are_restored_on_every_step(pico: Path) -> None:
    model = load_model(pico, CPU)
    start = token_matrices(model)[0].detach().clone()
    optimizer = torch.optim.AdamW(groups_of(model))
    old = OldRows(model, OLD, 0.0)
    for _ in range(3):
        model(input_ids=torch.arange(4, 40)[None], labels=torch.arange(4, 40)[None]).loss.backward()
        with old.held_back():
            optimizer.step()
    assert torch.equal(token_matrices(model)[0][:OLD], start[:OLD])
