"""What stages and reports share: a stage's surroundings, the marker of its folder, the machine."""

import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.base import Base
from langgraft.corpus.document import Input
from langgraft.processes import world
from langgraft.progress import Log
from langgraft.recipe import ComputeSection, InputText, Model

MARKER = "stage.json"
# What `langgraft launch` wrote for a stage; stays when the stage starts again.
LAUNCH = "launch"
# Stages that train the model, the last one first.
TRAINING = ("sft", "align", "pretrain")


@dataclass(frozen=True)
class Inputs:
    """What a stage gets besides its own section: `folders` of the stages it needs, and the run's surroundings.

    `base()` is the base as a hub folder, `base_hash` stands for its content; `held_out` names the evaluation sets that
    no text to train on may overlap with.
    """

    name: str
    folders: dict[str, Path]
    model: Model
    compute: ComputeSection
    base: Callable[[], Path]
    base_hash: str
    cache: Path
    log: Log
    held_out: tuple[str, ...] = ()

    @property
    def trained(self) -> Path:
        """Folder of the last stage so far that trained the model; before any, of surgery."""
        return next(self.folders[name] for name in (*TRAINING, "surgery") if name in self.folders)


def begun(folder: Path) -> bool:
    """Whether a stage has started in its folder, which may hold no more than the scripts that are to start it."""
    return folder.is_dir() and [path.name for path in folder.iterdir()] != [LAUNCH]


def crew(device: str) -> AbstractContextManager[Any]:
    """The other processes, which wait to be called to training; None where there are none."""
    if world() == 1:
        return nullcontext()
    from langgraft.training.parallel import crew as met

    return met(device)


class LazyBase:
    """The base as a hub folder, made on first use and kept in the run's cache."""

    def __init__(self, base: Base, key: str, cache: Path, log: Log) -> None:
        self.base, self.key, self.cache, self.log = base, key, cache, log
        self.folder: Path | None = None

    def __call__(self) -> Path:
        from langgraft.base import materialise

        if self.folder is None:
            folder = self.cache / f"base-{self.key}"
            if self.base.kind == "gguf" and not folder.is_dir():
                self.log.say(f"reading {self.base.name} and dequantising it to float32")
            self.folder = materialise(self.base, folder)
        return self.folder


def as_input(entry: InputText) -> Input:
    """A recipe's text entry as the corpus package's own type."""
    return Input(**entry.model_dump())


def versions() -> dict[str, str]:
    """Versions of what results depend on, read from package metadata without importing."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("langgraft", "torch", "transformers", "tokenizers", "safetensors", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The machine a report was made on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(pages / 2**30, 1), "versions": versions()}
