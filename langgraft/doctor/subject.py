"""What the doctor looks at: a run, a model folder or a recipe, and what belongs to it."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langgraft.base import locate
from langgraft.errors import InputError, LanggraftError
from langgraft.pipeline import NAMES, run_folder
from langgraft.recipe import Recipe
from langgraft.recipe_file import load_recipe
from langgraft.runs import MARKER, TRAINING
from langgraft.status import is_run
from langgraft.store import read_json


@dataclass(frozen=True)
class Subject:
    """One run, model or recipe. `stages` are a run's newest finished folders; `base` is a hub folder on this disk."""

    name: str
    path: Path
    run: Path | None = None
    recipe: Recipe | None = None
    model: Path | None = None
    base: Path | None = None
    language: str | None = None
    stages: Mapping[str, Path] = field(default_factory=dict)

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """`report.json` of the run; empty where there is none."""
        path = self.run / "report.json" if self.run else None
        return dict(read_json(path)) if path and path.is_file() else {}

    @functools.cached_property
    def markers(self) -> dict[str, dict[str, Any]]:
        """`stage.json` of every finished stage."""
        return {name: read_json(folder / MARKER) for name, folder in self.stages.items()}

    @functools.cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of the last training's log; none where there was no training."""
        named = (
            sorted(self.run.glob(f"{name}-*"), key=lambda f: f.stat().st_mtime_ns) for name in TRAINING if self.run
        )
        folders = next(filter(None, named), [])
        path = folders[-1] / "metrics.jsonl" if folders else None
        if path is None or not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

    @property
    def surgery(self) -> Path | None:
        """The model before training."""
        folder = self.stages.get("surgery")
        return folder / "model" if folder and (folder / "model").is_dir() else None

    def has(self, need: str) -> bool:
        """Whether there is a `run`, `model`, `base`, `report`, `recipe`, `surgery`, `metrics` or `language`.

        What is there and damaged counts as there: the check that reads it says so.
        """
        try:
            return bool(getattr(self, need))
        except (ValueError, LanggraftError):
            return True


def subject_of(
    path: Path, *, base: str | None = None, language: str | None = None, runs: Path = Path("runs")
) -> Subject:
    """Find out what `path` is.

    Args:
        path: a run folder, a hub folder with a model, or a recipe.
        base: the base to compare a model with, as a recipe names it; a run knows its own.
        language: code of the language that a model was taught; a run and a recipe know theirs.
        runs: where the runs of a recipe lie.

    Raises:
        InputError: `path` is none of the three, or the base is not on this machine.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".toml":
        recipe = load_recipe(path)
        root = run_folder(recipe, runs)
        run = _run(root, base, language) if is_run(root) else Subject(recipe.name, path)
        return Subject(recipe.name, path, run.run, recipe, run.model, run.base, recipe.model.language, run.stages)
    if is_run(path):
        return _run(path, base, language)
    if (path / "config.json").is_file() or (path / "tokenizer.json").is_file():
        return Subject(path.resolve().name, path, model=path, base=_base_folder(base), language=language)
    there = "is no run, no model folder and no recipe" if path.exists() else "does not exist"
    raise InputError(f"{path} {there}; name a run folder, a folder with config.json, or a recipe (.toml)")


def _run(folder: Path, base: str | None, language: str | None) -> Subject:
    stages = {name: newest for name in NAMES if (newest := _newest(folder, name)) is not None}
    model = next(
        (at for name in (*TRAINING, "surgery") if name in stages and (at := stages[name] / "model").is_dir()), None
    )
    fields: dict[str, Any] = {}
    for stage in stages.values():
        fields |= read_json(stage / MARKER).get("record", {}).get("fields", {})
    kept = sorted((folder / "cache").glob("base-*/config.json"), key=lambda file: file.stat().st_mtime_ns)
    found = _base_folder(base) if base else kept[-1].parent if kept else _recorded(fields.get("model.base"))
    code = language or fields.get("model.language")
    return Subject(folder.resolve().name, folder, folder, None, model, found, code, stages)


def _newest(folder: Path, name: str) -> Path | None:
    """The stage's most recently finished folder."""
    markers = sorted(folder.glob(f"{name}-*/{MARKER}"), key=lambda path: path.stat().st_mtime_ns)
    return markers[-1].parent if markers else None


def _recorded(name: str | None) -> Path | None:
    """The base that a run names, if it is a folder that is still there; nothing is downloaded for it."""
    try:
        found = locate(name) if name else None
    except LanggraftError:
        return None
    return found.path if found and found.kind == "folder" else None


def _base_folder(name: str | None) -> Path | None:
    if name is None:
        return None
    found = locate(name)
    if found.kind != "folder" or found.path is None:
        raise InputError(f"--base {name} must be a hub folder on this disk; download or convert it first")
    return found.path
