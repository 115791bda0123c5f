"""An exponential moving average of the weights in training, to end with instead of the last ones."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Averages of `parameters`, which share their order; each step's weights count `1 - decay` of it.

    Early on the decay is smaller, `(1 + n) / (10 + n)` after n steps, so that the start is soon forgotten (the rule
    of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, self.parameters, 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages in the place of the weights."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages in the place of the weights, for as long as the block runs."""
        weights = [p.detach().clone() for p in self.parameters]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters, weights, strict=True):
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages and the number of steps, for a checkpoint."""
        return {"steps": torch.tensor(self.steps), **{str(i): value for i, value in enumerate(self.values)}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's averages."""
        self.steps = int(state["steps"])
        for i, value in enumerate(self.values):
            value.copy_(state[str(i)])
