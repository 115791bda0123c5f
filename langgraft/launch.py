"""Starting a recipe's stages elsewhere: one plain script for each, in the stage's folder, to read and start again.

A script does no more than `langgraft run RECIPE --only STAGE`, with a copy of the recipe that lies beside it, so that
editing the recipe does not change what waits in a queue. A stage that is done is left alone and one that was stopped
goes on, so every script may be started again at any time.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.errors import RecipeError
from langgraft.methods import resolve, suggest
from langgraft.pipeline import NAMES, check, plan
from langgraft.recipe import ComputeSection, Recipe
from langgraft.recipe_file import load_recipe
from langgraft.runs import LAUNCH, MARKER, TRAINING
from langgraft.store import atomic_write

LAUNCHERS: dict[str, str] = {
    "slurm": "langgraft.launch_slurm:slurm",
    "torchrun": "langgraft.launch:torchrun",
}
# Stages in which many processes work on one thing, and those in which one process gains by a GPU.
ON_DEVICE = frozenset({"surgery", "evaluate", *TRAINING})
WRAP = " \\\n  "  # between the lines of one command


@dataclass(frozen=True)
class Job:
    """One stage to run: its folder, the arguments of `python -m langgraft` that run it, and the stages of the same
    launch that it `needs`; `resumable` if it goes on where it was stopped."""

    stage: str
    folder: Path
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    resumable: bool

    @property
    def scripts(self) -> Path:
        """Where its scripts lie."""
        return self.folder / LAUNCH

    def command(self) -> str:
        """As shell, in one process."""
        return f"{shlex.quote(sys.executable)} -m {self.module()}"

    def module(self) -> str:
        """The module and its arguments as shell, on a few lines."""
        words = [shlex.quote(word) for word in self.arguments]
        return WRAP.join([f"langgraft {' '.join(words[:2])}", " ".join(words[2:])])


@dataclass(frozen=True)
class Work:
    """The jobs of a launch, in order, and where and on what they run; paths are absolute."""

    name: str
    cwd: Path
    jobs: tuple[Job, ...]
    compute: ComputeSection


@dataclass(frozen=True)
class Script:
    """A script that was written, and the job of the cluster that runs it; "" where none does."""

    stage: str
    path: Path
    job: str = ""


@dataclass(frozen=True)
class Launched:
    """What a launcher wrote and started; `code` is the first exit code that was not 0 of what it waited for."""

    scripts: tuple[Script, ...]
    code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [{"stage": s.stage, "script": str(s.path), "job": s.job or None} for s in self.scripts]
        return {"scripts": rows, "code": self.code}


def launch(recipe: Path, runs: Path, *, on: str, overrides: Sequence[str] = (), dry_run: bool = False) -> Launched:
    """Write the scripts of every stage that is not done, and start them unless `dry_run`.

    Args:
        recipe: the recipe file; a copy is put beside each script.
        on: a launcher in `LAUNCHERS`.
        overrides: `section.field=value`, as for `langgraft run`; they are repeated in the scripts.

    Raises:
        RecipeError: the recipe cannot work, or asks for resources that do not fit together.
        InputError: what the launcher needs is not there, or it refuses.
    """
    launcher = resolve(LAUNCHERS, on, what="launcher")
    work = work_of(recipe, runs, overrides)
    found: Launched = launcher(work, dry_run=dry_run)
    return found


def work_of(recipe: Path, runs: Path, overrides: Sequence[str] = ()) -> Work:
    """The jobs that make what is not done, with the recipe copied into their folders.

    Raises:
        RecipeError: the recipe cannot work, or names a stage that it has not.
        InputError: something the recipe names cannot be used.
    """
    read = load_recipe(recipe, overrides)
    elsewhere = _elsewhere(read)
    check(elsewhere, plan(elsewhere, runs))
    for name in read.compute.slurm.stages:
        if name not in NAMES:
            raise RecipeError(f"compute.slurm.stages.{name}: there is no such stage; {suggest(name, NAMES)}")
    waiting = [item for item in plan(read, runs) if item.state != "done"]
    names = [item.stage.name for item in waiting]
    text = Path(recipe).read_bytes()
    jobs = []
    for item in waiting:
        folder = item.folder.absolute()
        copy = folder / LAUNCH / Path(recipe).name  # under its own name, which may be the run's
        atomic_write(copy, text)
        changed = [word for override in overrides for word in ("--set", override)]
        run = ("run", str(copy), "--only", item.stage.name, "--runs", str(Path(runs).absolute()), *changed)
        needs = tuple(need for need in item.needs if need in names)
        jobs.append(Job(item.stage.name, folder, run, needs, item.stage.resumable))
    return Work(read.name, Path.cwd(), tuple(jobs), read.compute)


def _elsewhere(recipe: Recipe) -> Recipe:
    """The recipe without what asks for a device, which this machine need not have: the jobs run on others."""
    changed: dict[str, Any] = {"compute": recipe.compute.model_copy(update={"device": "auto"})}
    for name in TRAINING:
        section = getattr(recipe, name)
        if section is not None and section.lora.quantize != "none":
            lora = section.lora.model_copy(update={"quantize": "none"})
            changed[name] = section.model_copy(update={"lora": lora})
    return recipe.model_copy(update=changed)


def ranks_of(job: Job, compute: ComputeSection) -> tuple[int, int]:
    """Nodes, and processes on each, that work on a stage together."""
    return (compute.nodes, compute.processes_per_node) if job.stage in TRAINING else (1, 1)


def torchrun_command(job: Job, compute: ComputeSection, *, head: str, number: str) -> str:
    """The shell that starts a node's processes of one training.

    Args:
        head: shell expression for `host:port` of the first node; "" on a single node.
        number: shell expression that tells this training from others on the same nodes.
    """
    nodes, processes = ranks_of(job, compute)
    where = f"--rdzv-backend c10d --rdzv-endpoint {head} --rdzv-id {number}" if head else "--standalone"
    torchrun = f"{shlex.quote(sys.executable)} -m torch.distributed.run"
    return WRAP.join([f"{torchrun} --nnodes {nodes} --nproc-per-node {processes}", where, f"-m {job.module()}"])


def torchrun(work: Work, *, dry_run: bool = False) -> Launched:
    """Scripts for machines without a scheduler; run here, one after the other, where the recipe has one node.

    Raises:
        RecipeError: the recipe asks for several nodes, which are to be started by hand.
    """
    scripts = [Script(job.stage, job.scripts / "torchrun.sh") for job in work.jobs]
    for job, script in zip(work.jobs, scripts, strict=True):
        write_script(script.path, _torchrun_script(job, work))
    if dry_run or not scripts:
        return Launched(tuple(scripts))
    if work.compute.nodes > 1:
        raise RecipeError(
            f"compute.nodes is {work.compute.nodes}, and torchrun starts processes on this machine alone; write the "
            "scripts with --dry-run and start them on each node, or use --on slurm"
        )
    codes = []
    for job, script in zip(work.jobs, scripts, strict=True):
        made = {other.stage for other in work.jobs if (other.folder / MARKER).is_file()}
        if set(job.needs) <= made:
            codes.append(subprocess.run(["bash", str(script.path)], check=False).returncode)
    return Launched(tuple(scripts), next((code for code in codes if code), 0))


def _torchrun_script(job: Job, work: Work) -> str:
    nodes, processes = ranks_of(job, work.compute)
    lines = ["#!/bin/bash", f"# Stage {job.stage} of {work.name}, by `langgraft launch --on torchrun`."]
    if nodes > 1:
        lines += [
            f"# Start this script on each of the {nodes} nodes, with the first one's name: HEAD=node1 bash THIS FILE",
            "# If it is stopped, start it again everywhere: training goes on from its last checkpoint.",
            "set -u",
            ': "${HEAD:?set it to the name of the first node}"',
        ]
        command = torchrun_command(job, work.compute, head='"$HEAD:${PORT:-29500}"', number=shlex.quote(work.name))
    else:
        lines.append("# Start it again at any time: what is done is left alone, and what was stopped goes on.")
        several = processes > 1
        command = torchrun_command(job, work.compute, head="", number="") if several else job.command()
    return "\n".join([*lines, f"cd {shlex.quote(str(work.cwd))} || exit", f"exec {command}", ""])


def write_script(path: Path, text: str) -> None:
    """Write a script that people may start by its name."""
    atomic_write(path, text)
    path.chmod(0o755)
