"""The processes that torchrun started for one run: how many, which one this is, and how they meet. Imports no torch."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def world() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them; the first one, 0, does all that is not training."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def crew(device: str) -> AbstractContextManager[Any]:
    """The other processes, which wait to be called to training; None where there are none."""
    if world() == 1:
        return nullcontext()
    from langgraft.training.parallel import crew as met

    return met(device)
