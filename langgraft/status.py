"""What runs in a folder are doing, read from their files alone."""

import fcntl
import os
from pathlib import Path
from typing import Any

from langgraft.errors import InputError
from langgraft.pipeline import NAMES
from langgraft.runs import MARKER
from langgraft.store import read_json


def statuses(folder: Path) -> list[dict[str, Any]]:
    """One entry per run in `folder` (or for `folder` itself): stages done, and the last line of its log.

    Raises:
        InputError: the folder does not exist or holds no run.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; name a run folder, or start one with `langgraft run`")
    found = [_status(run) for run in run_folders(folder)]
    if not found:
        raise InputError(f"{folder} holds no run; start one with `langgraft run RECIPE`")
    return found


def run_folders(folder: Path) -> list[Path]:
    """The runs in `folder`, or `folder` itself if it is one."""
    if is_run(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if is_run(path)) if folder.is_dir() else []


def is_run(folder: Path) -> bool:
    """Whether something was run there."""
    return (folder / "log.txt").is_file() or any(folder.glob(f"*-*/{MARKER}"))


def _status(run: Path) -> dict[str, Any]:
    done = [name for name in NAMES if any(run.glob(f"{name}-*/{MARKER}"))]
    log = run / "log.txt"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    held_by = holder(run / ".lock")
    text = f"done: {', '.join(done) or 'nothing yet'}"
    if held_by:
        text += f"; running ({held_by})"
    if lines:
        text += f"; {lines[-1]}"
    return {
        "name": run.name,
        "done": done,
        "running": bool(held_by),
        "last": lines[-1] if lines else "",
        "text": text,
        "report": (run / "report.html").is_file(),
    }


def holder(path: Path) -> str:
    """Who holds a run's lock; empty when nobody does. A killed process leaves its name there, but no lock."""
    name = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not name:
        return ""
    # Network file systems lock only what is open for writing; a colleague's run can perhaps just be read.
    with path.open("r+" if os.access(path, os.W_OK) else "r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return name
        except OSError:
            return ""
    return ""


def fields_of(folder: Path) -> dict[str, Any]:
    """What a run was made with: every field of its recipe that is not a default, of the stages' newest folders."""
    found: dict[str, Any] = {}
    for name in NAMES:
        markers = sorted(folder.glob(f"{name}-*/{MARKER}"), key=lambda path: path.stat().st_mtime_ns)
        found |= read_json(markers[-1])["record"]["fields"] if markers else {}
    return found


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a run.

    Raises:
        InputError: there is none yet.
    """
    path = folder / "report.json"
    if not path.is_file():
        raise InputError(f"{folder} has no report yet; finish it with `langgraft run`")
    report: dict[str, Any] = read_json(path)
    return report
