"""A measure for tests of the watch: how far the weights moved is the gain, and above a bound it is too much."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from langgraft.training.device import load_model
from langgraft.training.retention import ROLLBACKS, Measurement


def drift(start: Path, bound: float = 1e9, *, only_first: Path | None = None) -> Callable[[Any], Measurement]:
    """From the model in `start`; with `only_first`, the run in that folder breaks the bound once."""
    before = {name: t.clone() for name, t in load_model(start, torch.device("cpu")).state_dict().items()}

    def measure(model: Any) -> Measurement:
        state = model.state_dict()
        moved = sum(float((state[name].double() - tensor.double()).norm()) for name, tensor in before.items())
        judged = only_first is None or not (only_first / ROLLBACKS).is_file()
        broken = (f"moved by {moved:.3f}",) if moved > bound and judged else ()
        return Measurement({"target_bits_per_byte": 10 - moved, "in_context": moved}, broken)

    return measure
