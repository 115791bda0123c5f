"""The weights of a hub folder, one tensor at a time, without loading the model."""

import contextlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.errors import InputError, ModelError
from langgraft.store import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True)
class Weights:
    """Names, shapes and places of a folder's tensors: `shapes[name]`, and the file that holds it."""

    folder: Path
    files: dict[str, str]
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many numbers the files hold; a tied head counts once."""
        total = 0
        for shape in self.shapes.values():
            count = 1
            for size in shape:
                count *= size
            total += count
        return total

    @contextlib.contextmanager
    def reader(self) -> Iterator[Any]:
        """Yield `read(name) -> torch.Tensor`; files stay memory-mapped until the block ends."""
        from safetensors import safe_open

        with contextlib.ExitStack() as stack:
            handles = {
                file: stack.enter_context(safe_open(self.folder / file, framework="pt"))
                for file in sorted(set(self.files.values()))
            }
            yield lambda name: handles[self.files[name]].get_tensor(name)


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
    files: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weight_files(folder):
        if name == INDEX:
            continue
        for tensor, entry in _header(folder / name).items():
            files[tensor] = name
            shapes[tensor] = tuple(entry["shape"])
    return Weights(folder, files, shapes)


def _header(path: Path) -> dict[str, Any]:
    """A safetensors header: eight bytes of length, then JSON; checked against the size of the file."""
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
    return header
