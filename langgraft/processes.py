"""The processes that torchrun started for one run: how many there are, and which one this is."""

import os


def world() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them; the first one, 0, does all that is not training."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0
