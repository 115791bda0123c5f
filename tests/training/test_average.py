"""The moving average of weights: its rule, its checkpoint."""

import pytest
import torch

from langgraft.training.average import Average


def test_the_average_follows_its_rule() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    average, expected = Average([parameter], 0.5), 0.0
    for step in range(1, 30):
        parameter.data.fill_(float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.values[0].tolist() == pytest.approx([expected] * 3)
    assert parameter.tolist() == [29.0] * 3  # training goes on with its own weights
    average.apply()
    assert parameter.tolist() == pytest.approx([expected] * 3)


def test_a_checkpoint_goes_on_to_the_same_bits() -> None:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(5, 4))
    whole = Average([parameter], 0.99)
    steps = [torch.randn(5, 4) for _ in range(20)]
    cut = whole
    for number, step in enumerate(steps):
        parameter.data.add_(step)
        if number == 11:
            state = {name: value.clone() for name, value in cut.state_dict().items()}
            cut = Average([parameter], 0.99)
            cut.load_state_dict(state)
        whole.update()
        if cut is not whole:
            cut.update()
    assert torch.equal(cut.values[0], whole.values[0])
    assert cut.steps == whole.steps == 20
