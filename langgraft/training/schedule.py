"""Learning-rate schedules: a factor between 0 and 1 for every step."""

import math

SCHEDULES: dict[str, str] = {
    "wsd": "langgraft.training.schedule:wsd",
    "cosine": "langgraft.training.schedule:cosine",
}


def wsd(step: int, steps: int, *, warmup: int, decay: float, minimum: float) -> float:
    """Warm-up, stable, then decay over the last `decay` share of the run along 1 - sqrt.

    Source: Hu et al. 2024 (MiniCPM, arXiv 2404.06395); shape of the decay from Hägele et al. 2024
    (arXiv 2405.18392).
    """
    if step < warmup:
        return (step + 1) / warmup
    start = steps - max(round(decay * steps), 1)
    if step < start:
        return 1.0
    left = (step - start + 1) / (steps - start + 1)
    return minimum + (1 - minimum) * (1 - math.sqrt(left))


def cosine(step: int, steps: int, *, warmup: int, decay: float, minimum: float) -> float:  # noqa: ARG001
    """Warm-up, then half a cosine down to `minimum`; `decay` is not used."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup + 1) / max(steps - warmup, 1)
    return minimum + (1 - minimum) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
