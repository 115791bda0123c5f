"""Choose device and number format by what the machine does well."""

import contextlib
import ctypes
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from langgraft.errors import RecipeError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU.

    Raises:
        RecipeError: the named device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, _, number = name.partition(":")
    many = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind, False) or (number and not (number.isdecimal() and int(number) < many)):
        raise RecipeError(f"compute.device: `{name}` is not available on this machine; use `auto` or `cpu`")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format matrix products run in; `auto` is bfloat16 on GPUs that have it, else float32.

    A CPU without bfloat16 units is several times slower in it than in float32.

    Raises:
        RecipeError: unknown format.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise RecipeError(f"compute.dtype: `{name}` is unknown; choose auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Mixed precision around forward passes: weights stay float32."""
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def set_threads(threads: int) -> None:
    """Use `threads` CPU threads; 0 takes every core this process may run on (a cluster may lend only some).

    Processes that torchrun started on this machine share the cores.
    """
    lent = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or max((lent or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1))


def load_model(folder: Path, device: torch.device) -> Any:
    """Load a model folder in float32 onto `device`, for inference."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval()


def load_quantized(folder: Path, device: torch.device) -> Any:
    """Load a model folder with its linear layers in 4 bits (NF4, double quantization), for LoRA on a frozen base.

    Products run in bfloat16; embedding, head and norms stay float32. Needs CUDA and bitsandbytes: see
    `langgraft.training.modes.check_quantization`. Not measured on a GPU yet.

    Source: QLoRA, Dettmers et al. 2023 (arXiv 2305.14314).
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=four_bits, device_map={"": device}
    )
    return model.eval()


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next step; elsewhere nothing happens.

    By default it returns every large block to the kernel, and each step then waits for fresh zeroed pages: in a
    run on two cores that was an eighth of the time. The process holds its peak memory instead of giving it back.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
