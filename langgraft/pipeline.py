"""Stages in order, what is stale and why, and running them.

A stage is a plain function `run(section, inputs, out) -> summary`, folder in, folder out. Its folder is
`runs/<name>/<stage>-<hash8>/`; `stage.json`, written last, says what it was made from. The hash covers the
section's non-default fields, the fields of `[model]` the stage reads, the folders it builds on, the content of
external inputs, and the stage's version - never `[compute]`.
"""

import importlib
import importlib.util
import json
import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from langgraft.base import check_causal_lm, check_tokenizer_fits, locate
from langgraft.errors import GateError, RecipeError
from langgraft.external import Identities, evaluation_sets, external
from langgraft.processes import rank
from langgraft.progress import Log, clock
from langgraft.recipe import Align, Pretrain, Recipe, Section
from langgraft.recipe_file import non_default
from langgraft.runs import LAUNCH, MARKER, TRAINING, Inputs, LazyBase, begun, crew, versions
from langgraft.store import (
    TEMPORARY,
    disk_errors,
    fingerprint,
    fsync_tree,
    lock,
    read_json,
    write_json,
)
from langgraft.text import language


@dataclass(frozen=True)
class Stage:
    """One step of the story. `needs` are earlier stages (`a|b`: the first of them that the recipe has), `reads` fields
    of `[model]`; `resumable` keeps a half-done folder; `version` rises when the same inputs would give another
    result."""

    name: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    version: int = 1
    resumable: bool = False


# The last stage of the recipe that trains the model.
TRAINED = "|".join(TRAINING)

STAGES: tuple[Stage, ...] = (
    Stage("corpus", (), ("language", "source_language"), version=3, resumable=True),
    Stage("tokenizer", ("corpus",), ("base", "revision", "language")),
    Stage("surgery", ("corpus", "tokenizer"), ("base", "revision"), resumable=True),
    Stage(
        "pretrain",
        ("corpus", "surgery"),
        ("base", "revision", "language", "source_language"),
        version=2,
        resumable=True,
    ),
    Stage(
        "align",
        ("corpus", "surgery", "pretrain"),
        ("base", "revision", "language", "source_language"),
        resumable=True,
    ),
    # What was trained before, if anything was, is where it starts.
    Stage("sft", ("|".join((*TRAINING[1:], "surgery")), "surgery"), ("language", "source_language"), resumable=True),
    Stage(
        "evaluate",
        ("corpus", "surgery", TRAINED),
        ("base", "revision", "language", "source_language"),
        resumable=True,
        version=3,
    ),
    Stage("export", (TRAINED,), ("base", "revision", "language", "source_language"), version=3),
    Stage("publish", ("corpus", "evaluate", "export"), (), resumable=True),
)
NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Planned:
    """A stage of a plan: `done`, or why it would run, and what it is known to take."""

    stage: Stage
    section: Section
    folder: Path
    record: dict[str, Any]
    state: Literal["done", "run", "resume"]
    needs: tuple[str, ...]
    reason: str = ""
    estimate: str = ""


def run_folder(recipe: Recipe, runs: Path) -> Path:
    """`runs/<name>`."""
    return runs / recipe.name


def plan(recipe: Recipe, runs: Path) -> list[Planned]:
    """What would run, and why; in order. Loads no model and no torch.

    Raises:
        RecipeError: a later stage needs an absent one.
        InputError: a language is unknown, an input does not exist, or the base is no causal language model.
    """
    root = run_folder(recipe, runs)
    identities = Identities(root)
    base = locate(recipe.model.base, recipe.model.revision)
    if base.kind == "folder" and base.path is not None:
        check_causal_lm(base.path)
    for code in (recipe.model.language, recipe.model.source_language):
        language(code)
    planned: list[Planned] = []
    hashes: dict[str, str] = {}
    for stage in STAGES:
        section: Section | None = getattr(recipe, stage.name)
        if section is None:
            continue
        needs = tuple(_present(stage, need, hashes) for need in stage.needs)
        record = {
            "stage": stage.name,
            "version": stage.version,
            "fields": {
                **{f"model.{name}": getattr(recipe.model, name) for name in stage.reads},
                **{f"{stage.name}.{key}": value for key, value in non_default(section).items()},
            },
            "inputs": external(stage.name, stage.reads, recipe, base, identities),
            "needs": {need: hashes[need] for need in needs},
        }
        hashes[stage.name] = fingerprint(record)
        folder = root / f"{stage.name}-{hashes[stage.name][:8]}"
        stale = [p.stage.name for p in planned if p.stage.name in needs and p.state != "done"]
        state, reason = _state(stage, folder, record, root, stale)
        estimate = "" if state == "done" else _estimate(section, _newest(root, stage.name))
        planned.append(Planned(stage, section, folder, record, state, needs, reason, estimate))
    identities.save()
    return planned


def _present(stage: Stage, need: str, there: Collection[str]) -> str:
    """The stage that stands for `need`."""
    *_, last = choices = need.split("|")
    for name in choices:
        if name in there:
            return name
    raise RecipeError(f"section [{stage.name}] needs [{last}]; add that section to the recipe")


def _state(
    stage: Stage, folder: Path, record: dict[str, Any], root: Path, stale: Sequence[str]
) -> tuple[Literal["done", "run", "resume"], str]:
    if (folder / MARKER).is_file():
        return "done", ""
    earlier = _newest(root, stage.name)
    if begun(folder):
        if stage.resumable:
            return "resume", "did not finish; goes on where it stopped"
        return "run", "did not finish; starts again"
    if earlier is None:
        return "run", "never ran"
    changes = _changes(earlier["record"], record)
    consequence = [f"{name} runs again" for name in stale]
    return "run", "; ".join([*changes, *consequence]) or "an earlier stage has another result"


def _newest(root: Path, name: str) -> dict[str, Any] | None:
    """The marker of the stage's most recently finished folder."""
    markers = sorted(root.glob(f"{name}-*/{MARKER}"), key=lambda path: path.stat().st_mtime_ns)
    return read_json(markers[-1]) if markers else None


def _estimate(section: Section, earlier: dict[str, Any] | None) -> str:
    """Tokens of training, and the time as measured by an earlier run of the stage; nothing is guessed."""
    parts = []
    if isinstance(section, Pretrain | Align):
        parts.append(f"{section.tokens:,} tokens")
    if earlier is not None:
        seconds = earlier["seconds"]
        if isinstance(section, Pretrain | Align):
            seconds *= section.tokens / earlier["options"]["tokens"]
        parts.append(f"about {clock(seconds)}, judging by last time")
    return ", ".join(parts)


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


def run(
    recipe: Recipe,
    runs: Path,
    *,
    until: str | None = None,
    only: str | None = None,
    log: Log | None = None,
) -> dict[str, Any]:
    """Run what is stale, in order, and write the report; returns the report, whose gates may have failed.

    Raises:
        RecipeError: `until` or `only` names no stage of the recipe, or a section's fields do not fit together.
        InputError: something the recipe names cannot be used.
        BusyError: another process runs this recipe.
        GateError: a proof failed without which later stages make no sense.
    """
    if rank() > 0:
        return _help(recipe, runs)
    root = run_folder(recipe, runs)
    check(recipe, plan(recipe, runs), until, only)  # bad input is reported before anything is written
    with crew(recipe.compute.device) as others, disk_errors(root), lock(root, what=recipe.name):
        log = log or Log(root / "log.txt")
        _sweep(root)
        planned = plan(recipe, runs)
        base = LazyBase(locate(recipe.model.base, recipe.model.revision), base_hash(planned), root / "cache", log)
        for item in planned:
            if only is None or item.stage.name == only:
                if item.stage.name == "publish":
                    _report(recipe, planned, root)  # it is what the model card is made of
                _run_stage(item, planned, recipe, base, root, log, others)
            if item.stage.name == until:
                break
        written = _report(recipe, planned, root)
        log.say(f"report: {root / 'report.html'}")
    return written


def _report(recipe: Recipe, planned: Sequence[Planned], root: Path) -> dict[str, Any]:
    """Write the report of the stages that are done, and the model card into what they exported; returns the report."""
    from langgraft.evaluation.report import write_report
    from langgraft.exporting.card_facts import write_run_card
    from langgraft.summary import collect

    write_report(collect(recipe, {p.stage.name: p.folder for p in planned if (p.folder / MARKER).is_file()}), root)
    written: dict[str, Any] = read_json(root / "report.json")
    exported = next((p.folder / "hf" for p in planned if p.stage.name == "export"), None)
    if exported is not None and exported.is_dir():
        write_run_card(written, exported)
    return written


def _help(recipe: Recipe, runs: Path) -> dict[str, Any]:
    """What every process but the first does: its share of the stages that it is called to. There is no report."""
    from langgraft.training.parallel import called

    with closing(called(recipe.compute.device)) as names:
        for name in names:
            root, planned = run_folder(recipe, runs), plan(recipe, runs)
            item = next(item for item in planned if item.stage.name == name)
            log = Log(quiet=True)
            base = LazyBase(locate(recipe.model.base, recipe.model.revision), base_hash(planned), root / "cache", log)
            _module(name).run(item.section, _inputs(item, planned, recipe, base, root, log), item.folder)
    return {}


def _inputs(item: Planned, planned: Sequence[Planned], recipe: Recipe, base: LazyBase, root: Path, log: Log) -> Inputs:
    folders = {p.stage.name: p.folder for p in planned if p.stage.name in item.needs}
    held_out = tuple(evaluation_sets(recipe))
    return Inputs(recipe.name, folders, recipe.model, recipe.compute, base, base.key, root / "cache", log, held_out)


def check_gates(report: dict[str, Any]) -> None:
    """Judge a report.

    Raises:
        GateError: a gate in it failed; the message says which, and what was found.
    """
    failed = [gate for gate in report.get("gates", []) if not gate["passed"]]
    if failed:
        raise GateError("; ".join(f"gate failed: {gate['name']} (found {gate['value']})" for gate in failed))


def check(recipe: Recipe, planned: Sequence[Planned], until: str | None = None, only: str | None = None) -> None:
    """What can be known to fail later is said now: stages asked for, the base's files, fields that clash.

    Raises:
        RecipeError: see `run`.
        InputError: see `run`.
    """
    for name in (until, only):
        if name is not None and (name not in NAMES or getattr(recipe, name) is None):
            present = [n for n in NAMES if getattr(recipe, n) is not None]
            raise RecipeError(f"the recipe has no stage `{name}`; it has {', '.join(present)}")
    states = {item.stage.name: item.state for item in planned}
    last = NAMES.index(until) if until else len(NAMES)
    wanted = [
        item
        for item in planned
        if item.state != "done" and only in (None, item.stage.name) and NAMES.index(item.stage.name) <= last
    ]
    if only is not None and wanted:
        unmade = [need for need in wanted[0].needs if states[need] != "done"]
        if unmade:
            raise RecipeError(f"stage `{only}` needs `{unmade[0]}`, which is not done; run without --only first")
    base = locate(recipe.model.base, recipe.model.revision)
    if base.kind == "folder" and base.path is not None and any("base" in item.stage.reads for item in wanted):
        check_tokenizer_fits(base.path)
    for item in wanted:
        of_stage = getattr(_module(item.stage.name), "check", None)
        if of_stage is not None:
            of_stage(item.section, recipe)


def _module(name: str) -> Any:
    return importlib.import_module(f"langgraft.stages.{name}")


def _sweep(root: Path) -> None:
    """Remove what killed processes left under temporary names; the lock says that none is alive."""
    for leftover in sorted(root.rglob(f"{TEMPORARY}*")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove what a stage that starts again had made."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != LAUNCH:
                shutil.rmtree(path)
        else:
            path.unlink()


def _run_stage(
    item: Planned,
    planned: Sequence[Planned],
    recipe: Recipe,
    base: LazyBase,
    root: Path,
    log: Log,
    others: Any = None,
) -> None:
    name = item.stage.name
    if (item.folder / MARKER).is_file():
        log.say(f"{name}: done ({item.folder.name})")
        return
    if item.folder.exists() and not item.stage.resumable:
        _clear(item.folder)
    item.folder.mkdir(parents=True, exist_ok=True)
    log.say(f"{name}: {item.reason or 'starts'}")
    started = time.perf_counter()
    inputs = _inputs(item, planned, recipe, base, root, log)
    shared = others.together(name) if others is not None and name in TRAINING else nullcontext()
    try:
        with shared:
            summary = _module(name).run(item.section, inputs, item.folder)
    finally:
        if not any(item.folder.iterdir()):
            item.folder.rmdir()  # nothing was made, so nothing is left
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


def base_hash(planned: Sequence[Planned]) -> str:
    """Stands for the base's content in names of cache folders; hashed once, by the plan."""
    return next(
        (fingerprint(p.record["inputs"]["model.base"])[:8] for p in planned if "model.base" in p.record["inputs"]), ""
    )
