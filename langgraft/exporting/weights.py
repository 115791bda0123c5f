"""The weights of a hub folder, one tensor at a time, without loading the model."""

import contextlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.errors import InputError, ModelError
from langgraft.store import read_json

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_NUMBERS_AT_ONCE = 4 << 20


# safetensors' name -> (torch's, bytes of one number)
_DTYPES = {"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: file, first byte, safetensors' name of its type."""

    file: str
    start: int
    dtype: str


@dataclass(frozen=True)
class Weights:
    """Names, shapes and places of a folder's tensors."""

    folder: Path
    places: dict[str, Place]
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many numbers the files hold; a tied head counts once."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[..., "torch.Tensor"]]:
        """Yield `read(name, start=0, stop=None)`: a tensor, or some of its rows, in memory of its own.

        Files are read, not memory-mapped: mapped pages count as memory of the process, until it holds the model.
        """
        with contextlib.ExitStack() as stack:
            files = sorted({place.file for place in self.places.values()})
            opened = {name: stack.enter_context((self.folder / name).open("rb", buffering=0)) for name in files}

            def read(name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
                return self._read(opened[self.places[name].file], name, start, stop)

            yield read

    def _read(self, file: FileIO, name: str, start: int, stop: int | None) -> "torch.Tensor":
        import numpy as np
        import torch

        place, shape = self.places[name], self.shapes[name]
        if place.dtype not in _DTYPES:
            raise ModelError(
                f"{self.folder / place.file}: {name} holds {place.dtype} numbers; save the model in 16 or 32 bits first"
            )
        dtype, width = _DTYPES[place.dtype]
        rows, cells = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        stop = rows if stop is None else min(stop, rows)
        wanted = (stop - start) * cells * width
        file.seek(place.start + start * cells * width)
        data = np.empty(wanted, dtype=np.uint8)
        view, done = data.data, 0
        while done < wanted and (count := file.readinto(view[done:])):
            done += count
        if done < wanted:
            raise ModelError(f"{self.folder / place.file} ends inside {name}; copy it again")
        tensor = torch.from_numpy(data).view(getattr(torch, dtype))
        return tensor.reshape(stop - start, *shape[1:]) if shape else tensor.reshape(())


def weight_files(folder: Path) -> list[str]:
    """Names of the safetensors files of a hub folder, the index of a sharded one included.

    Raises:
        ModelError: there are none, or a shard named in the index is missing.
    """
    if (folder / INDEX).is_file():
        try:
            shards = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
        except (InputError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{folder / INDEX} is damaged: it has no `weight_map`; save the model again") from error
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise ModelError(f"{folder} lacks {', '.join(missing)}, named in {INDEX}; copy the whole folder again")
        return [INDEX, *shards]
    if not (folder / SINGLE).is_file():
        raise ModelError(
            f"{folder} has neither {SINGLE} nor {INDEX}; save the model there with `save_pretrained` first"
        )
    return [SINGLE]


def open_weights(folder: Path) -> Weights:
    """Read the headers of a hub folder's safetensors files.

    Raises:
        ModelError: there are none, one is missing, or one is damaged.
    """
    places: dict[str, Place] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weight_files(folder):
        if name == INDEX:
            continue
        header, body = _header(folder / name)
        for tensor, entry in header.items():
            start, end = entry["data_offsets"]
            shape = shapes[tensor] = tuple(entry["shape"])
            width = _DTYPES.get(entry["dtype"], ("", 0))[1]
            if width and end - start != math.prod(shape) * width:
                raise ModelError(
                    f"{folder / name}: {tensor} has {end - start:,} bytes, and {math.prod(shape) * width:,} belong to "
                    f"its shape {shape}; copy or save the file again"
                )
            places[tensor] = Place(name, body + start, entry["dtype"])
    return Weights(folder, places, shapes)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """`(header, first byte after it)` of a safetensors file: eight bytes of length, then JSON.

    Checked against the size of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        try:
            header = json.loads(file.read(length)) if length < size else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            header = None
    if not isinstance(header, dict):
        raise ModelError(f"{path} is no safetensors file; copy or save it again")
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if 8 + length + end != size:
        raise ModelError(
            f"{path} is cut short or damaged: {size:,} bytes, {8 + length + end:,} expected; copy it again"
        )
    return header, 8 + length


def same_tensor(weights: Weights, read: Callable[..., "torch.Tensor"], first: str, second: str) -> bool:
    """Whether two tensors hold the same numbers, compared some rows at a time; `read` is `Weights.reader`'s."""
    shape = weights.shapes[first]
    if weights.shapes[second] != shape:
        return False
    step = max(_NUMBERS_AT_ONCE // max(math.prod(shape[1:]), 1), 1)
    parts = range(0, shape[0], step)
    return all(read(first, i, i + step).equal(read(second, i, i + step)) for i in parts)
