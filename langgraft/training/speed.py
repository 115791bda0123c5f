"""How fast training is, and how fast the device could be: matrix products per second, the step's share of them, memory.

Model FLOPs utilisation (MFU) is what a step's tokens ask of the matrix products, divided by what the device does when
it multiplies large matrices and nothing else. Source: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B,
without its term for attention; 6 FLOPs for each parameter and token from Kaplan et al. 2020 (arXiv 2001.08361). The
peak is measured here, not read from a data sheet, so the figure means the same on a laptop and on a GPU.
"""

import functools
import sys
import time
from typing import Any

import torch
from torch import nn

CPU_SIZE, GPU_SIZE = 1024, 8192  # rows and columns of the matrices that are multiplied
SECONDS = 0.3  # of measuring, about


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """As `measured_rate`, measured once in a process."""
    return _rate(device, dtype, torch.get_num_threads())


@functools.cache
def _rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:  # noqa: ARG001 - part of the cache's key
    return measured_rate(device, dtype)


def measured_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products on `device` in `dtype`, the best of several.

    Draws its numbers from a generator of its own, so that nothing that is random afterwards changes.
    """
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    generator = torch.Generator(device).manual_seed(0)
    # Random numbers: a GPU that multiplies zeros draws less power and runs faster than it ever would in training.
    a, b = (torch.randn(size, size, generator=generator, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    best, until = float("inf"), time.perf_counter() + SECONDS
    torch.mm(a, b, out=out)
    while True:
        _wait(device)
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        _wait(device)
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended > until:
            return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def flops_per_token(model: Any) -> float:
    """FLOPs of the matrix products of one token, forwards and backwards: 6N when everything learns.

    A parameter that takes part costs 2 forwards, 2 for the gradient of its input, and 2 for its own gradient if it
    learns. Those are all matrices but lookup tables; a tied head counts once, as head. Of experts, each token takes
    as many as the config says.
    """
    head = model.get_output_embeddings()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - {id(getattr(head, "weight", 0))}
    config = model.config.get_text_config()
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 0
    taken = (getattr(config, "num_experts_per_tok", None) or experts) / experts if experts else 1.0
    total = 0.0
    for parameter in model.parameters():
        if parameter.dim() < 2 or id(parameter) in tables:
            continue
        share = taken if parameter.dim() == 3 and len(parameter) == experts else 1.0
        total += share * parameter.numel() * (6 if parameter.requires_grad else 4)
    return total


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: those that torch allocated on a GPU, else those of the process that were resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Speedometer:
    """Figures of each step: tokens and bytes of text in a second, share of the devices' matrix products, memory.

    Processes that train together share a step, so the rate is that of one device times their number.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, processes: int = 1) -> None:
        self.device, self.rate = device, processes * matmul_rate(device, dtype)
        self.flops = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def learn(self, model: Any) -> None:
        """Count what a token costs; to be called when what learns has changed."""
        self.flops = flops_per_token(model)

    def figures(self, tokens: int, target_bytes: float, seconds: float) -> dict[str, Any]:
        """Figures of `tokens` trained in `seconds`, with `target_bytes` of text in the new language among them."""
        per_second = tokens / seconds
        return {
            "tokens_per_second": round(per_second, 1),
            "target_bytes_per_second": round(target_bytes / seconds, 1),
            "mfu": round(self.flops * per_second / self.rate, 4),
            "peak_memory_bytes": peak_memory(self.device),
        }
