"""Parts of tensors: where the part that this process holds lies in the whole, and reading any part from saved ones.

A sharded parameter is torch's DTensor. What a process holds of it is one rectangle of the whole tensor, under FSDP2,
tensor parallelism, and both; so an optimizer, a checkpoint or a row mask need to know no more than a `Region`.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from langgraft.errors import ModelError, TrainingError


@dataclass(frozen=True)
class Region:
    """A rectangle of `sizes` at `offset` in a tensor of shape `whole`."""

    whole: tuple[int, ...]
    offset: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def partial(self) -> bool:
        """Whether this is not all of it."""
        return self.sizes != self.whole


@dataclass(frozen=True)
class Shard:
    """One process's part of a tensor, to be saved."""

    region: Region
    tensor: Tensor


class Stored:
    """A tensor that was saved in parts, by several processes; memory holds only what is read."""

    def __init__(self, whole: Sequence[int]) -> None:
        self.shape = tuple(whole)
        self.pieces: list[tuple[tuple[int, ...], Tensor]] = []

    def read(self, region: Region) -> Tensor:
        """The values of a region.

        Raises:
            TrainingError: no part holds some of them.
        """
        out: Tensor | None = None
        found = 0
        for offset, piece in self.pieces:
            out = piece.new_empty(region.sizes) if out is None else out
            overlap = [
                (max(a, b), min(a + n, b + m))
                for a, n, b, m in zip(region.offset, region.sizes, offset, piece.shape, strict=True)
            ]
            if any(begin >= end for begin, end in overlap):
                continue
            there = tuple(slice(b - a, e - a) for (b, e), a in zip(overlap, region.offset, strict=True))
            here = tuple(slice(b - a, e - a) for (b, e), a in zip(overlap, offset, strict=True))
            out[there] = piece[here]
            found += math.prod(end - begin for begin, end in overlap)
        if out is None or found != math.prod(region.sizes):
            raise TrainingError(f"a checkpoint lacks a part of a tensor of shape {self.shape}; use the one before it")
        return out


def local(tensor: Any) -> Tensor:
    """What this process holds of a tensor, sharing its memory; all of it where it is not sharded."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def gradient(parameter: Any) -> Tensor | None:
    """This process's part of a parameter's gradient, laid out as the parameter is."""
    found = parameter.grad
    if found is None or not hasattr(parameter, "to_local"):
        return found  # type: ignore[no-any-return]
    return found.redistribute(placements=parameter.placements).to_local()  # type: ignore[no-any-return]


def region(tensor: Any) -> Region:
    """Where `local(tensor)` lies in the whole.

    Raises:
        ModelError: it is no rectangle (fused matrices under tensor parallelism).
    """
    whole = tuple(tensor.shape)
    if not hasattr(tensor, "to_local"):
        return Region(whole, (0,) * len(whole), whole)
    offset, sizes = list((0,) * len(whole)), list(whole)
    mesh, here = tensor.device_mesh, tensor.device_mesh.get_coordinate()
    # FSDP cuts what tensor parallelism has cut already; torch marks such a cut as strided, and lists it first.
    strided = [number for number, placement in enumerate(tensor.placements) if hasattr(placement, "split_factor")]
    for number in itertools.chain((n for n in range(mesh.ndim) if n not in strided), strided):
        placement = tensor.placements[number]
        if not placement.is_shard() and number not in strided:
            continue
        size = -(-sizes[placement.dim] // mesh.size(number))
        begin = min(here[number] * size, sizes[placement.dim])
        offset[placement.dim] += begin
        sizes[placement.dim] = min(size, sizes[placement.dim] - begin)
    fused = any((mesh.mesh_dim_names or ("",) * mesh.ndim)[number] == "tp" for number in strided)
    if fused or tuple(sizes) != tuple(tensor.to_local().shape):
        raise ModelError("this model's fused matrices cannot be split by tensor parallelism; use FSDP for it")
    return Region(whole, tuple(offset), tuple(sizes))


@contextlib.contextmanager
def whole_shapes(model: nn.Module) -> Iterator[None]:
    """While the block runs, plain parameters of the whole shape stand in for sharded ones; they take no memory.

    peft 0.21 sizes LoRA by what a process holds of a matrix, which is wrong for hybrid sharding, and for matrices that
    tensor parallelism and FSDP have both cut.
    """
    sharded: list[tuple[nn.Module, str, Any]] = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if hasattr(parameter, "to_local")
    ]
    for module, name, parameter in sharded:
        stand_in = local(parameter).new_empty(1).expand(parameter.shape)
        module._parameters[name] = nn.Parameter(stand_in, requires_grad=False)
    try:
        yield
    finally:
        for module, name, parameter in sharded:
            module._parameters[name] = parameter


def take(value: Tensor | Stored, wanted: Region) -> Tensor:
    """The values of a region of what a checkpoint holds; what was never sharded (a count of steps) comes whole."""
    if isinstance(value, Stored):
        return value.read(wanted)
    if not wanted.partial or tuple(value.shape) != wanted.whole:
        return value
    return value[tuple(slice(a, a + n) for a, n in zip(wanted.offset, wanted.sizes, strict=True))].clone()


def equal_parts(tensor: Tensor | Stored, whole: Sequence[int]) -> bool:
    """Whether a value of an optimizer's state has one number for each of the parameter's."""
    return len(whole) > 0 and tuple(tensor.shape) == tuple(whole)


def torch_file(path: Path, *, mapped: bool = False) -> Any:
    """What torch.save wrote: tensors and plain values, nothing that runs code. Mapped ones stay on disk until read."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
