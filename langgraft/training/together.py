"""A checkpoint that several processes write, each its own parts, and that any number of processes can read.

Each process writes `model-00001-of-00004.pt` and its like: a list of entries, each a path in the state with a value, or
with a part of a tensor and where it lies. What several processes hold is written by the first of them. Parts are read
by where they lie, so the processes that go on may be more, fewer, or share the model in another way. (torch's
distributed checkpoints describe a part that FSDP cut from a tensor-parallel one wrongly, and keep their index as a
pickle, which runs code when it is read.)
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from langgraft.store import disk_errors, sha256_file
from langgraft.training.parallel import Group
from langgraft.training.regions import Shard, Stored, torch_file


def write_parts(staging: Path, state: dict[str, dict[str, Any]], group: Group) -> dict[str, dict[str, Any]]:
    """Write this process's files into `staging`; returns size and sha256 of every process's, by name.

    Raises:
        DiskFullError: some process has no space left.
    """
    entries = {key: list(_entries(value)) for key, value in state.items()}
    places = group.gathered([[_place(value) for _, value in found] for found in entries.values()])
    below, own = places[: group.rank], places[group.rank]

    def write() -> dict[str, dict[str, Any]]:
        facts = {}
        with disk_errors(staging):
            for number, (key, found) in enumerate(entries.items()):
                mine = [
                    _entry(path, value)
                    for i, (path, value) in enumerate(found)
                    if all(other[number][i] != own[number][i] for other in below)
                ]
                file = staging / f"{key}-{group.rank + 1:05d}-of-{group.world:05d}.pt"
                with file.open("wb") as opened:
                    torch.save(mine, opened)
                    opened.flush()
                    os.fsync(opened.fileno())
                facts[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        return facts

    return {name: fact for facts in group.everyone(write) for name, fact in facts.items()}


def joined(files: list[Path]) -> dict[str, Any]:
    """The state in the files of one name, one from each process; parts of tensors stay on disk until they are read."""
    state: dict[Any, Any] = {}
    for file in files:
        for entry in torch_file(file, mapped=True):
            *way, last = entry["path"]
            inner = state
            for key in way:
                inner = inner.setdefault(key, {})
            if "offset" not in entry:
                inner[last] = entry["value"]
                continue
            stored = inner.setdefault(last, Stored(entry["whole"]))
            stored.pieces.append((tuple(entry["offset"]), entry["value"]))
    return state


def _entries(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _entries(inner, (*path, key))
    else:
        yield path, value


def _place(value: Any) -> Any:
    return (value.region.offset, value.region.sizes) if isinstance(value, Shard) else None


def _entry(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    if not isinstance(value, Shard):
        return {"path": list(path), "value": value}
    own = value.tensor.detach()
    # A part of a larger storage would be saved with all of it.
    own = own if own.numel() == own.untyped_storage().size() // own.element_size() else own.clone()
    return {"path": list(path), "value": own, "offset": value.region.offset, "whole": value.region.whole}
