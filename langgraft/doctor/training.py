"""What the training log tells: a loss that went wrong, training that is slow."""

import math
import time
from collections.abc import Iterator
from statistics import median

from langgraft.doctor.subject import Subject
from langgraft.evaluation.cautions import Finding
from langgraft.exporting.weights import open_weights
from langgraft.runs import machine

RISE = 1.1  # the end against the best stretch: more is no noise of batches
MIN_STEPS = 8
SLOWED = 0.5
LEAST = 0.1  # share of matrix products' speed that training should reach on a CPU; 66% was measured
SMALLEST = 20_000_000  # parameters, below which other work than products takes the time


def loss(subject: Subject) -> Iterator[Finding]:
    """Loss that is no number, or that ends clearly above its best stretch or its start."""
    rows, where = subject.metrics, "metrics.jsonl"
    bad = [row for row in rows if not isinstance(row.get("loss"), int | float) or not math.isfinite(row["loss"])]
    if bad:
        yield Finding(
            "loss",
            "the loss is not a number",
            where,
            f"first at step {bad[0].get('step')}",
            "go back to a checkpoint before that step, with half the learning rate; check the text around it",
        )
        return
    losses = [float(row["loss"]) for row in rows]
    if len(losses) < MIN_STEPS:
        return
    width = max(len(losses) // 10, 2)
    means = [sum(losses[i : i + width]) / width for i in range(0, len(losses) - width + 1, width)]
    end = sum(losses[-width:]) / width
    if end > RISE * min(means):
        yield Finding(
            "loss",
            "the loss diverges: it ends far above its best",
            where,
            f"{min(means):.2f} at best, {end:.2f} at the end",
            "halve pretrain.learning_rate and new_rows_learning_rate, or raise warmup; keep gradient_clip at 1",
        )


def slower(subject: Subject) -> Iterator[Finding]:
    """Tokens per second that fell to less than half."""
    rates = [row["tokens_per_second"] for row in subject.metrics if row.get("tokens_per_second")]
    if len(rates) < MIN_STEPS:
        return
    part = max(len(rates) // 4, 2)
    first, last = median(rates[:part]), median(rates[-part:])
    if last < SLOWED * first:
        yield Finding(
            "slow",
            "training slowed down on the way",
            "metrics.jsonl",
            f"{first:,.0f} tokens/s at first, {last:,.0f} at the end",
            "look for other programs on the machine, memory that swaps, or a processor that throttles",
        )


def speed(subject: Subject) -> Iterator[Finding]:
    """Arithmetic of the training against what matrix products reach on the same processor, measured now.

    6 floating-point operations for each parameter and token (Kaplan et al. 2020, arXiv 2001.08361).
    """
    assert subject.model is not None
    here = machine()
    then = subject.report.get("machine") or {}
    parameters = open_weights(subject.model).parameters
    rates = [row["tokens_per_second"] for row in subject.metrics if row.get("tokens_per_second")]
    if then.get("device") != "cpu" or then.get("cpu") != here["cpu"] or parameters < SMALLEST or not rates:
        return
    reached, possible = 6 * parameters * median(rates), _matrix_rate()
    if reached < LEAST * possible:
        yield Finding(
            "speed",
            "training runs far below what the processor can do",
            "metrics.jsonl",
            f"{median(rates):,.0f} tokens/s, {reached / possible:.0%} of the speed of matrix products",
            "use longer rows (sequence_length 256 or more), float32 on processors without bfloat16, and all cores",
        )


def _matrix_rate(size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations per second of float32 matrix products, the best of several."""
    import torch

    one = torch.ones(size, size)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        _ = one @ one
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best
