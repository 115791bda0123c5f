"""Device and number format: sensible choices, clear refusals."""

import os
from pathlib import Path

import pytest
import torch

from langgraft.errors import RecipeError
from langgraft.training.device import autocast, choose_device, choose_dtype, keep_freed_memory, load_model, set_threads


def test_auto_is_something_that_is_there() -> None:
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(RecipeError, match=r"compute\.device: `cuda` is not available"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["tpu", "cpu:x", "", "cuda:99"])
def test_an_unknown_device_is_named(name: str) -> None:
    with pytest.raises(RecipeError, match=r"compute\.device: .* is not available"):
        choose_device(name)


def test_formats() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(RecipeError, match=r"compute\.dtype: `fp8` is unknown; choose auto, float32, bfloat16"):
        choose_dtype("fp8", cpu)


def test_autocast_covers_matrix_products_only_when_asked() -> None:
    cpu, ones = torch.device("cpu"), torch.ones(2, 2)
    with autocast(cpu, torch.bfloat16):
        assert (ones @ ones).dtype is torch.bfloat16
    with autocast(cpu, torch.float32):
        assert (ones @ ones).dtype is torch.float32


def test_threads_zero_takes_what_the_process_was_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
        set_threads(0)
        assert asked.pop() == 3
    set_threads(2)
    assert asked == [2]


def test_models_load_in_float32_ready_to_read(pico: Path) -> None:
    model = load_model(pico, torch.device("cpu"))
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_kept_memory_changes_no_result_and_needs_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory()
    assert torch.ones(3_000_000).sum().item() == 3_000_000

    def absent(_name: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr("ctypes.CDLL", absent)
    keep_freed_memory()
