"""Checkpoints that are whole or absent: staged, flushed, checksummed, renamed."""

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from langgraft.errors import TrainingError
from langgraft.progress import Log
from langgraft.store import (
    TEMPORARY,
    disk_errors,
    fingerprint,
    fsync_folder,
    fsync_tree,
    read_json,
    sha256_file,
    staged_folder,
    write_json,
)
from langgraft.training.regions import torch_file
from langgraft.training.together import joined

MANIFEST = "manifest.json"
TENSORS = ("model", "optimizer", "average")  # values of a state that are tensors; the others are JSON


def name_of(step: int) -> str:
    """`step-000120`: names sort as steps do."""
    return f"step-{step:06d}"


def save(folder: Path, step: int, state: dict[str, Any], *, keep: int = 2, best: Collection[int] = ()) -> Path:
    """Write `folder/step-N` with every value of `state` as a file, then drop all but the newest `keep`.

    Those of the steps in `best` are kept too.

    Values are state dicts of tensors (written with torch.save) or JSON values. The manifest holds the size
    and sha256 of each file.
    """
    target = folder / name_of(step)
    with staged_folder(target) as staging:
        for key, value in state.items():
            if isinstance(value, dict) and key in TENSORS:
                # Through an open file: given a path, torch hides "no space left" in a RuntimeError.
                with (staging / f"{key}.pt").open("wb") as file:
                    torch.save(value, file)
            else:
                write_json(staging / f"{key}.json", value)
        written = sorted(staging.iterdir())
        manifest = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in written}
        write_manifest(staging, step, manifest)
    drop_surplus(folder, step, keep, best)
    return target


def finish(staging: Path, target: Path, step: int, plain: dict[str, Any], files: dict[str, dict[str, Any]]) -> None:
    """Put a folder in its place whose tensor `files` are written: JSON values, manifest, flush, rename.

    Raises:
        DiskFullError: no space is left; `target` is untouched.
    """
    with disk_errors(target):
        for key, value in plain.items():
            file = staging / f"{key}.json"
            write_json(file, value)
            files = {**files, file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}}
        write_manifest(staging, step, files)
        fsync_tree(staging)
        staging.rename(target)
        fsync_folder(target.parent)


def drop_surplus(folder: Path, step: int, keep: int, best: Collection[int] = ()) -> None:
    """Of what lies beside a new checkpoint, keep the newest `keep - 1` before it, and those of `best` steps."""
    older = [found for found in _newest_first(folder) if _step(found) < step]
    # Newer ones can only be damaged ones that were passed over: they must not push out what is whole.
    newer = [found for found in _newest_first(folder) if _step(found) > step]
    for surplus in [*newer, *(found for found in older[keep - 1 :] if _step(found) not in best)]:
        shutil.rmtree(surplus)


def write_manifest(folder: Path, step: int, files: dict[str, dict[str, Any]]) -> None:
    """Write what a checkpoint holds: size and sha256 of each file, and a hash of these."""
    facts = {"step": step, "files": files}
    write_json(folder / MANIFEST, {**facts, "hash": fingerprint(facts)})


def load_latest(folder: Path, log: Log) -> tuple[int, dict[str, Any]] | None:
    """Load the newest whole checkpoint below `folder`; None when there is none at all.

    Raises:
        TrainingError: as `newest`.
    """
    found = newest(folder, log)
    return (found, load(folder, found)) if found is not None else None


def newest(folder: Path, log: Log) -> int | None:
    """The step of the newest whole checkpoint below `folder`; None when there is none at all.

    A damaged one is named in the log and the one before it is taken.

    Raises:
        TrainingError: there are checkpoints, and every one is damaged. Starting afresh without saying so
            would be another run.
    """
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    found = _newest_first(folder)
    for checkpoint in found:
        problem = check(checkpoint)
        if problem is None:
            return _step(checkpoint)
        log.say(f"checkpoint {checkpoint.name} is damaged ({problem}); trying the one before it")
    if found:
        raise TrainingError(
            f"every checkpoint in {folder} is damaged; delete that folder to train from the start, "
            "or restore one from a backup"
        )
    return None


def require(folder: Path, step: int) -> None:
    """Say if the checkpoint of one step cannot be used.

    Raises:
        TrainingError: it is damaged or not there.
    """
    found = folder / name_of(step)
    if problem := check(found):
        raise TrainingError(f"checkpoint {found} is damaged ({problem}); run again with another folder")


def check(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None."""
    try:
        text = (checkpoint / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        facts = {key: value for key, value in manifest.items() if key != "hash"}
        written = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        if text != written or manifest["hash"] != fingerprint(facts) or facts["step"] != _step(checkpoint):
            return f"{MANIFEST} has other content than was written"
        for name, facts in manifest["files"].items():
            file = checkpoint / name
            if not file.is_file() or file.stat().st_size != facts["bytes"]:
                return f"{name} is missing or cut short"
            if sha256_file(file) != facts["sha256"]:
                return f"{name} has other content than was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"no usable manifest: {error}"
    return None


def load(folder: Path, step: int, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The state in a checkpoint, or what is wanted of it; what several processes saved in parts comes as `Stored`."""
    checkpoint = folder / name_of(step)
    state: dict[str, Any] = {}
    parts: dict[str, list[Path]] = {}
    for file in sorted(checkpoint.iterdir()):
        name, dash, _ = file.stem.partition("-")
        if name in without:
            continue
        if dash:
            parts.setdefault(name, []).append(file)
        elif file.suffix == ".pt":
            state[name] = torch_file(file)
        elif file.name != MANIFEST:
            state[name] = read_json(file)
    return state | {name: joined(files) for name, files in parts.items()}


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
