"""Stages in order, what is stale and why, and running them.

A stage is a plain function `run(section, inputs, out) -> summary`, folder in, folder out. Its folder is
`runs/<name>/<stage>-<hash8>/`; `stage.json`, written last, says what it was made from. The hash covers the
section's non-default fields, the fields of `[model]` the stage reads, the folders it builds on, the content of
external inputs, and the stage's version - never `[compute]`.
"""

import importlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from langgraft.base import Base, identity, locate
from langgraft.corpus.document import Input
from langgraft.corpus.sources import resolve
from langgraft.errors import GateError, RecipeError
from langgraft.progress import Log, clock
from langgraft.recipe import ComputeSection, InputText, Model, Recipe, Section, non_default
from langgraft.store import (
    TEMPORARY,
    atomic_write,
    disk_errors,
    fingerprint,
    fsync_tree,
    lock,
    read_json,
    sha256_file,
    write_json,
)

MARKER = "stage.json"
IDENTITIES = ".identities.json"


@dataclass(frozen=True)
class Stage:
    """One step of the story. `needs` are earlier stages, `reads` fields of `[model]`; `resumable` keeps a
    half-done folder; `version` rises when the same inputs would give another result."""

    name: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    version: int = 1
    resumable: bool = False


STAGES: tuple[Stage, ...] = (
    Stage("corpus", (), ("language", "source_language")),
    Stage("tokenizer", ("corpus",), ("base", "revision", "language")),
    Stage("surgery", ("tokenizer",), ("base", "revision")),
    Stage("pretrain", ("corpus", "surgery"), ("base", "revision"), resumable=True),
    Stage("evaluate", ("corpus", "pretrain"), ("base", "revision", "language", "source_language")),
    Stage("export", ("pretrain",), ("base", "revision", "language", "source_language")),
)
NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Inputs:
    """What a stage gets besides its own section: `folders` of the stages it needs, and the run's surroundings."""

    name: str
    folders: dict[str, Path]
    model: Model
    compute: ComputeSection
    base: Callable[[], Path]
    cache: Path
    log: Log


@dataclass(frozen=True)
class Planned:
    """A stage of a plan: `done`, or why it would run."""

    stage: Stage
    section: Section
    folder: Path
    record: dict[str, Any]
    state: Literal["done", "run", "resume"]
    reason: str = ""
    needs: dict[str, str] = field(default_factory=dict)


def run_folder(recipe: Recipe, runs: Path) -> Path:
    """`runs/<name>`."""
    return runs / recipe.name


def plan(recipe: Recipe, runs: Path) -> list[Planned]:
    """What would run, and why; in order. Loads no model and no torch.

    Raises:
        RecipeError: a later stage needs an absent one.
        CorpusError, ModelError: an input does not exist.
    """
    root = run_folder(recipe, runs)
    identities = _Identities(root)
    base = locate(recipe.model.base, recipe.model.revision)
    planned: list[Planned] = []
    hashes: dict[str, str] = {}
    for stage in STAGES:
        section: Section | None = getattr(recipe, stage.name)
        if section is None:
            continue
        missing = [need for need in stage.needs if need not in hashes]
        if missing:
            raise RecipeError(f"section [{stage.name}] needs [{missing[0]}]; add that section to the recipe")
        record = {
            "stage": stage.name,
            "version": stage.version,
            "fields": {
                **{f"model.{name}": getattr(recipe.model, name) for name in stage.reads},
                **{f"{stage.name}.{key}": value for key, value in non_default(section).items()},
            },
            "inputs": _external(stage, recipe, base, identities),
            "needs": {need: hashes[need] for need in stage.needs},
        }
        hashes[stage.name] = fingerprint(record)
        folder = root / f"{stage.name}-{hashes[stage.name][:8]}"
        stale = [p.stage.name for p in planned if p.stage.name in stage.needs and p.state != "done"]
        state, reason = _state(stage, folder, record, root, stale)
        planned.append(Planned(stage, section, folder, record, state, reason))
    identities.save()
    return planned


def _state(
    stage: Stage, folder: Path, record: dict[str, Any], root: Path, stale: Sequence[str]
) -> tuple[Literal["done", "run", "resume"], str]:
    if (folder / MARKER).is_file():
        return "done", ""
    started = folder.is_dir() and stage.resumable
    earlier = _newest(root, stage.name)
    if started:
        return "resume", "interrupted; goes on where it stopped"
    if earlier is None:
        return "run", "never ran" if not folder.is_dir() else "interrupted; starts again"
    changes = _changes(earlier, record)
    consequence = [f"{name} runs again" for name in stale]
    return "run", "; ".join([*changes, *consequence]) or "an earlier stage has another result"


def _newest(root: Path, name: str) -> dict[str, Any] | None:
    """The record of the stage's most recently finished folder."""
    markers = sorted(root.glob(f"{name}-*/{MARKER}"), key=lambda path: path.stat().st_mtime_ns)
    return read_json(markers[-1])["record"] if markers else None


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`pretrain.learning_rate: 0.0002 -> 0.0001`, one sentence per difference in fields, inputs and version."""
    found = []
    for part in ("fields", "inputs"):
        before, after = old[part], new[part]
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                if part == "inputs":
                    found.append(f"{key} has other content")
                else:
                    found.append(f"{key}: {_shown(before.get(key), key)} -> {_shown(after.get(key), key)}")
    if old["version"] != new["version"]:
        found.append(f"langgraft's {new['stage']} stage changed (version {old['version']} -> {new['version']})")
    return found


def _shown(value: Any, key: str) -> str:
    if value is None:
        stage, _, name = key.partition(".")
        section = getattr(Recipe.model_fields.get(stage), "annotation", None)
        for kind in (section, *getattr(section, "__args__", ())):
            info = getattr(kind, "model_fields", {}).get(name)
            if info is not None and not info.is_required():
                value = info.get_default(call_default_factory=True)
                value = value.model_dump() if isinstance(value, Section) else value
    return json.dumps(value, ensure_ascii=False, default=str)


class _Identities:
    """Hashes of external files, remembered by path, size and time of change so that planning stays fast."""

    def __init__(self, root: Path) -> None:
        self.path = root / IDENTITIES
        self.known: dict[str, list[Any]] = {}
        if self.path.is_file():
            try:
                self.known = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                self.known = {}  # only a cache: hash again
        self.changed = False

    def __call__(self, path: Path) -> str:
        facts = path.stat()
        key = str(path.resolve())
        remembered = self.known.get(key)
        if remembered is None or remembered[:2] != [facts.st_size, facts.st_mtime_ns]:
            remembered = [facts.st_size, facts.st_mtime_ns, sha256_file(path)]
            self.known[key] = remembered
            self.changed = True
        return str(remembered[2])

    def save(self) -> None:
        if self.changed and self.path.parent.is_dir():
            atomic_write(self.path, json.dumps(self.known))


def _external(stage: Stage, recipe: Recipe, base: Base, identities: _Identities) -> dict[str, Any]:
    """Content of what comes from outside the run: the base, and files of text."""
    found: dict[str, Any] = {}
    if "base" in stage.reads:
        found["model.base"] = identity(base, identities)
    if stage.name == "corpus":
        for side in ("target", "source"):
            for entry in getattr(recipe.corpus, side):
                files = resolve(as_input(entry))
                # Names are left out: where a file lies is not what it holds.
                found[f"corpus.{side} {entry.path}"] = [identities(path) for path in files]
    if stage.name == "surgery" and ":" in recipe.surgery.init:
        module = importlib.util.find_spec(recipe.surgery.init.split(":")[0])
        if module is not None and module.origin:
            found["surgery.init"] = identities(Path(module.origin))
    return found


def as_input(entry: InputText) -> Input:
    """A recipe's text entry as the corpus package's own type."""
    return Input(entry.path, entry.reader, entry.text_key, entry.license, entry.name)


def run(
    recipe: Recipe,
    runs: Path,
    *,
    until: str | None = None,
    only: str | None = None,
    log: Log | None = None,
) -> dict[str, Any]:
    """Run what is stale, in order, and write the report; returns the report.

    Raises:
        RecipeError: `until` or `only` names no stage of the recipe.
        BusyError: another process runs this recipe.
        GateError: all is done, but a gate failed; the report says which.
    """
    from langgraft.evaluation.report import write_report
    from langgraft.summary import collect

    root = run_folder(recipe, runs)
    for name in (until, only):
        if name is not None and (name not in NAMES or getattr(recipe, name) is None):
            present = [n for n in NAMES if getattr(recipe, n) is not None]
            raise RecipeError(f"the recipe has no stage `{name}`; it has {', '.join(present)}")
    plan(recipe, runs)  # bad input is reported before anything is written
    with disk_errors(root), lock(root, what=recipe.name):
        log = log or Log(root / "log.txt")
        planned = plan(recipe, runs)
        base = _LazyBase(locate(recipe.model.base, recipe.model.revision), root / "cache", log)
        for item in planned:
            if only is None or item.stage.name == only:
                _run_stage(item, planned, recipe, base, root, log)
            if item.stage.name == until:
                break
        report = collect(recipe, {item.stage.name: item.folder for item in planned if (item.folder / MARKER).is_file()})
        write_report(report, root)
        log.say(f"report: {root / 'report.html'}")
    failed = [gate for gate in report.get("gates", []) if not gate["passed"]]
    if failed:
        raise GateError("; ".join(f"gate failed: {gate['name']} (found {gate['value']})" for gate in failed))
    return report


def _run_stage(
    item: Planned, planned: Sequence[Planned], recipe: Recipe, base: "_LazyBase", root: Path, log: Log
) -> None:
    name = item.stage.name
    if (item.folder / MARKER).is_file():
        log.say(f"{name}: done ({item.folder.name})")
        return
    folders = {p.stage.name: p.folder for p in planned if p.stage.name in item.stage.needs}
    unmade = [need for need, folder in folders.items() if not (folder / MARKER).is_file()]
    if unmade:
        raise RecipeError(f"stage `{name}` needs `{unmade[0]}`, which is not done; run without --only first")
    for leftover in root.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if item.folder.exists() and not item.stage.resumable:
        shutil.rmtree(item.folder)
    item.folder.mkdir(parents=True, exist_ok=True)
    log.say(f"{name}: {item.reason or 'starts'}")
    started = time.perf_counter()
    module = importlib.import_module(f"langgraft.stages.{name}")
    inputs = Inputs(recipe.name, folders, recipe.model, recipe.compute, base, root / "cache", log)
    summary = module.run(item.section, inputs, item.folder)
    seconds = time.perf_counter() - started
    fsync_tree(item.folder)
    write_json(
        item.folder / MARKER,
        {
            "record": item.record,
            "options": item.section.model_dump(mode="json"),
            "compute": recipe.compute.model_dump(mode="json"),
            "versions": versions(),
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "summary": summary,
        },
    )
    log.say(f"{name}: finished in {clock(seconds)}")


class _LazyBase:
    """The base as a hub folder, made on first use and kept in the run's cache."""

    def __init__(self, base: Base, cache: Path, log: Log) -> None:
        self.base, self.cache, self.log = base, cache, log
        self.folder: Path | None = None

    def __call__(self) -> Path:
        from langgraft.base import materialise

        if self.folder is None:
            key = fingerprint(identity(self.base))[:8]
            if self.base.kind == "gguf" and not (self.cache / f"base-{key}").is_dir():
                self.log.say(f"reading {self.base.name} and dequantising it to float32")
            self.folder = materialise(self.base, self.cache / f"base-{key}")
        return self.folder


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
