"""Figures of speed: what a token costs, what the device can do, what the process holds."""

from pathlib import Path

import pytest
import torch

from langgraft.training.device import load_model
from langgraft.training.modes import Lora, Phase, select
from langgraft.training.speed import Speedometer, flops_per_token, matmul_rate, peak_memory

CPU = torch.device("cpu")


def numbers(model: object) -> int:
    """Numbers in matrices that multiply: of each layer, and of the head."""
    return sum(p.numel() for n, p in model.named_parameters() if "_proj" in n) + (  # type: ignore[attr-defined]
        model.get_output_embeddings().weight.numel()  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize("name", ["pico", "pico_untied"])
def test_a_token_costs_six_for_each_number_that_multiplies(name: str, request: pytest.FixtureRequest) -> None:
    model = load_model(request.getfixturevalue(name), CPU)
    assert flops_per_token(model) == 6 * numbers(model)
    # The embedding of an untied model is looked up, not multiplied with.
    total = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    assert (numbers(model) < total) is (name == "pico_untied")


def test_what_does_not_learn_costs_no_gradient_of_its_own(pico: Path) -> None:
    model = load_model(pico, CPU)
    select(model, Phase("embeddings"), Lora())
    head = model.get_output_embeddings().weight.numel()
    assert flops_per_token(model) == 4 * numbers(model) + 2 * head


def test_of_experts_a_token_takes_as_many_as_the_config_says() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    experts = sum(p.numel() for p in model.parameters() if p.dim() == 3)
    lookup = model.get_input_embeddings().weight.numel()
    others = sum(p.numel() for p in model.parameters() if p.dim() == 2) - lookup
    assert experts == 4 * 3 * 16 * 32
    assert flops_per_token(model) == 6 * (others + experts / 2)


def test_the_rate_is_plausible_measured_once_and_moves_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    rate = matmul_rate(CPU, torch.float32)
    assert torch.equal(torch.rand(4), expected)
    assert 1e8 < rate < 1e15
    assert matmul_rate(CPU, torch.float32) == rate


def test_figures_add_up(pico: Path) -> None:
    model = load_model(pico, CPU)
    speed = Speedometer(CPU, torch.float32)
    speed.learn(model)
    found = speed.figures(1000, 3000.0, 2.0)
    assert found["tokens_per_second"] == 500.0
    assert found["target_bytes_per_second"] == 1500.0
    assert found["mfu"] == pytest.approx(6 * numbers(model) * 500 / speed.rate, abs=1e-4)
    assert found["peak_memory_bytes"] >= 1e7
    assert Speedometer(CPU, torch.float32, processes=4).rate == 4 * speed.rate


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory(CPU)
    held = torch.ones(before // 4 + 50_000_000)  # more than the process ever held
    assert peak_memory(CPU) >= before + held.numel() * 2
