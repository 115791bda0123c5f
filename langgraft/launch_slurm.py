"""Slurm: one sbatch script for each stage, chained so that a stage starts when those it needs have succeeded."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from langgraft.errors import InputError, RecipeError
from langgraft.launch import (
    ON_DEVICE,
    WRAP,
    Job,
    Launched,
    Script,
    Work,
    ranks_of,
    torchrun_command,
    write_script,
)
from langgraft.recipe_compute import ComputeSection, SlurmJob
from langgraft.runs import TRAINING
from langgraft.store import read_json, write_json

JOB = "slurm.json"  # beside a script that was submitted: the job's number
SAVING = 120  # seconds before the time limit at which training is told to save
# A port of its own for each job, among those that no service of a cluster's nodes is known for.
_PORT = '"$SLURM_LAUNCH_NODE_IPADDR:$((20000 + SLURM_JOB_ID % 10000))"'


def slurm(work: Work, *, dry_run: bool = False) -> Launched:
    """Write the scripts and submit them.

    Raises:
        RecipeError: processes and GPUs do not fit together, or an option is none.
        InputError: sbatch is not there or refuses, or a stage is in the queue already.
    """
    _check(work.compute)
    scripts = []
    for job in work.jobs:
        if parts := _parts(job, work.compute):
            scripts.append(Script(job.stage, job.scripts / "parts.sbatch"))
            write_script(scripts[-1].path, script_of(job, work, parts=parts))
        scripts.append(Script(job.stage, job.scripts / f"{job.stage}.sbatch"))
        write_script(scripts[-1].path, script_of(job, work))
    if dry_run or not scripts:
        return Launched(tuple(scripts))
    if shutil.which("sbatch") is None:
        raise InputError(
            "sbatch is not on this machine; start the command on the cluster's login node, or write the scripts "
            "with --dry-run"
        )
    for script in scripts:
        _check_free(script)
    return Launched(tuple(_submit_all(work.jobs, scripts)))


def _check(compute: ComputeSection) -> None:
    wishes = compute.slurm
    if 0 < wishes.gpus_per_node < compute.processes_per_node:
        raise RecipeError(
            f"compute.processes_per_node ({compute.processes_per_node}) is more than compute.slurm.gpus_per_node "
            f"({wishes.gpus_per_node}); each training process needs a GPU of its own"
        )
    for option in [option for one in (wishes, *wishes.stages.values()) for option in one.extra]:
        if not option.startswith("-") or "\n" in option:
            raise RecipeError(f"compute.slurm.extra: {option!r} is no option of sbatch, such as --constraint=a100")


def _parts(job: Job, compute: ComputeSection) -> int:
    """Jobs of the array that cleans text; 0 for none."""
    parts = compute.slurm.corpus_parts
    return parts if job.stage == "corpus" and parts > 1 else 0


def script_of(job: Job, work: Work, *, parts: int = 0) -> str:
    """The sbatch script of a stage, or with `parts` that of the array which cleans the corpus's text."""
    nodes, processes = ranks_of(job, work.compute)
    wishes = wishes_for(job.stage, work.compute)
    what = f"{job.stage}-parts" if parts else job.stage
    of = f"Text for stage {job.stage}, cleaned in {parts} parts," if parts else f"Stage {job.stage}"
    tasks = f"--nodes={nodes} --ntasks-per-node=1"
    tasks += f" --cpus-per-task={wishes.cpus_per_task}" if wishes.cpus_per_task else ""
    if parts:
        command = f'{job.command()} --part "$SLURM_ARRAY_TASK_ID/{parts}"'
    elif nodes * processes > 1:
        # Slurm signals every process of a step, and torchrun would die of it before its processes have saved.
        line = torchrun_command(job, work.compute, head=_PORT, number='"$SLURM_JOB_ID"')
        command = "bash -c " + shlex.quote(f'trap "" USR1; exec {line}')
    else:
        command = job.command()
    lines = [
        "#!/bin/bash",
        f"# {of} of {work.name}, by `langgraft launch --on slurm`. To run it again: sbatch THIS FILE",
        *(f"#SBATCH {option}" for option in _options(job, what, work, wishes, parts)),
        "",
        *work.compute.slurm.setup,
        *(_resumed if job.resumable else _plain)(f"srun {tasks}{WRAP}{command}"),
    ]
    return "\n".join(lines) + "\n"


def _plain(step: str) -> list[str]:
    return [f"exec {step}"]


def _resumed(step: str) -> list[str]:
    return [
        f"# {SAVING} seconds before its time limit the job is told: the stage saves what it has and leaves, and the",
        "# job goes back into the queue under the same number, to go on from there.",
        "stopped=",
        "trap 'stopped=1; scancel --signal=USR1 \"$SLURM_JOB_ID\"' USR1",
        f"{step} &",
        "step=$!",
        'wait "$step"; code=$?',
        "# The signal ends `wait` before the step has ended.",
        'while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done',
        'if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then',
        '  exec scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]


def wishes_for(stage: str, compute: ComputeSection) -> SlurmJob:
    """What a stage's job asks for: `[compute.slurm]`, with what the stage's own table sets instead."""
    general = {name: getattr(compute.slurm, name) for name in SlurmJob.model_fields}
    gpus = compute.slurm.gpus_per_node
    general["gpus_per_node"] = gpus if stage in TRAINING else min(gpus, 1) if stage in ON_DEVICE else 0
    own = compute.slurm.stages.get(stage, SlurmJob())
    return SlurmJob(**{**general, **{name: getattr(own, name) for name in own.model_fields_set}})


def _options(job: Job, what: str, work: Work, wishes: SlurmJob, parts: int) -> Iterator[str]:
    yield f"--job-name={shlex.quote(f'{work.name}-{what}')}"
    yield f"--chdir={shlex.quote(str(work.cwd))}"
    yield f"--output={shlex.quote(str(job.scripts / ('slurm-%A-%a.txt' if parts else 'slurm-%j.txt')))}"
    yield "--open-mode=append"
    if parts:
        yield f"--array=1-{parts}"
    yield f"--nodes={ranks_of(job, work.compute)[0]}"
    yield "--ntasks-per-node=1"
    for option, value in (
        ("cpus-per-task", wishes.cpus_per_task),
        ("gpus-per-node", wishes.gpus_per_node),
        ("mem", wishes.memory),
        ("time", wishes.time),
        ("partition", wishes.partition),
        ("account", wishes.account),
    ):
        if value:
            yield f"--{option}={shlex.quote(str(value))}"
    yield "--requeue"
    yield "--kill-on-invalid-dep=yes"
    if job.resumable:
        yield f"--signal=B:USR1@{SAVING}"
    yield from wishes.extra


def _check_free(script: Script) -> None:
    """Refuse a stage that waits or runs already, from an earlier launch."""
    path = script.path.parent / JOB
    known = read_json(path) if path.is_file() else {}
    if number := known.get(script.path.name):
        asked = ["squeue", "--noheader", "--format=%T", f"--jobs={number}"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        if found.returncode == 0 and (state := found.stdout.strip().lower()):
            raise InputError(
                f"stage {script.stage} is in the queue already: job {number} ({state.splitlines()[0]}); "
                f"wait for it, or end it with scancel {number}"
            )


def _submit_all(jobs: Sequence[Job], scripts: Sequence[Script]) -> Iterator[Script]:
    """Submit in order; if one is refused, those before it are taken back."""
    needs = {job.stage: job.needs for job in jobs}
    last: dict[str, str] = {}  # the job that finishes a stage
    submitted: list[Script] = []
    for script in scripts:
        # A run's folder is held by one process at a time, so a stage also waits for the one before it to end.
        ok = [last[need] for need in (*needs[script.stage], script.stage) if need in last]
        before = [submitted[-1].job] if submitted and submitted[-1].job not in ok else []
        waits = [f"{how}:{':'.join(which)}" for how, which in (("afterok", ok), ("afterany", before)) if which]
        try:
            number = _submit(script.path, waits)
        except InputError:
            for earlier in submitted:
                subprocess.run(["scancel", earlier.job], check=False)
            raise
        last[script.stage] = number
        submitted.append(Script(script.stage, script.path, number))
        record = script.path.parent / JOB
        write_json(record, {**(read_json(record) if record.is_file() else {}), script.path.name: number})
    yield from submitted


def _submit(path: Path, waits: Sequence[str]) -> str:
    """Submit one script; returns its job's number.

    Raises:
        InputError: sbatch refuses it.
    """
    dependency = [f"--dependency={','.join(waits)}"] if waits else []
    done = subprocess.run(["sbatch", "--parsable", *dependency, str(path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"sbatch refuses {path}: {' '.join(done.stderr.split())}; nothing was submitted")
    return done.stdout.strip().partition(";")[0]  # with several clusters, the cluster's name follows
