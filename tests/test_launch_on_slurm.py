"""A real Slurm of two nodes on this machine: text cleaned on both, and training that is requeued and warned midway.

`make slurm` installs what it needs (Debian's slurm-wlm); without it these tests are skipped.
"""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Done, Finished, langgraft, process
from slurm_cluster import Cluster, cluster, until, why_not

from langgraft.launch import work_of
from langgraft.launch_slurm import script_of
from langgraft.status import statuses

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
STEPS = 160
PATIENCE = 600.0  # seconds, for a machine with much else to do

# In the place of a training: processes that meet, and leave together when they are told to.
PROBE = """
import os, signal, sys, time
from pathlib import Path
import torch.distributed as group
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
group.init_process_group("gloo")
again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
def note(word):
    Path(f"{word}-{again}-rank-{group.get_rank()}-of-{group.get_world_size()}").touch()
note("started")
while not told and not again:
    time.sleep(0.1)
note("ended")
group.barrier()
sys.exit(0 if again else 130)
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """A cluster; Slurm's commands find it for as long as these tests run."""
    with cluster() as started, pytest.MonkeyPatch.context() as patch:
        for name, value in {**started.environment, "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        yield started


@pytest.fixture
def longer(finished: Finished, tmp_path: Path) -> Finished:
    """The finished run's recipe up to a training that is long enough to be interrupted; corpus and training to do."""
    recipe = trains_for(STEPS, finished, tmp_path / "recipe.toml", "\n[compute.slurm]\ncorpus_parts = 2\n")
    copy = finished.copy(tmp_path / "there", without=("corpus", "pretrain", "evaluate", "export"))
    return Finished(recipe, copy.runs)


def trains_for(steps: int, finished: Finished, recipe: Path, more: str = "") -> Path:
    """Write the finished run's recipe with nothing after a training of so many steps."""
    text = finished.recipe.read_text(encoding="utf-8")
    before, after = text.index("[evaluate]"), text.index("[compute]")
    text = re.sub(r"\ntokens = \d+\n", f"\ntokens = {steps * 128}\n", text[:before], count=1) + text[after:] + more
    recipe.write_text(text, encoding="utf-8")
    return recipe


def launched(run: Finished, *arguments: str) -> Done:
    return langgraft("launch", run.recipe, "--on", "slurm", "--runs", run.runs, *arguments)


def outputs(run: Finished) -> str:
    """What the jobs printed."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(run.run.glob("*/launch/slurm-*.txt")))


def newest_checkpoint(run: Finished) -> int:
    """Step of the newest checkpoint; 0 where there is none."""
    names = [path.name for path in run.run.glob("pretrain-*/checkpoints/*") if path.name[-1].isdecimal()]
    return max((int(re.sub(r"\D", "", name)) for name in names if not name.startswith(".")), default=0)


def test_requeued_and_warned_in_training_it_ends_with_the_same_bits(
    slurm: Cluster, finished: Finished, longer: Finished, tmp_path: Path
) -> None:
    done = launched(longer, "--json")
    assert done.code == 0, done.err
    jobs = {Path(row["script"]).name: row["job"] for row in json.loads(done.out)["scripts"]}
    assert list(jobs) == ["parts.sbatch", "corpus.sbatch", "pretrain.sbatch"]
    assert f"stage corpus is in the queue already: job {jobs['parts.sbatch']}" in launched(longer).sentence()

    def known() -> str:
        return f"{slurm.states()}\n{outputs(longer)[-4000:]}\n{slurm.logs()}"

    # Meanwhile the same recipe in one process, as people run it on one machine.
    alone = finished.copy(tmp_path / "alone", without=("pretrain", "evaluate", "export"))
    one_process = threading.Thread(target=process, args=("run", longer.recipe, "--runs", alone.runs))
    one_process.start()

    until(lambda: newest_checkpoint(longer) > 0, PATIENCE, known)
    (status,) = statuses(longer.runs)
    assert status["running"], status
    slurm.run("scontrol", "requeue", jobs["pretrain.sbatch"])  # as after a node has failed
    killed_at = newest_checkpoint(longer)
    until(lambda: newest_checkpoint(longer) > killed_at + 4, PATIENCE, known)
    slurm.run("scancel", "--batch", "--signal=USR1", jobs["pretrain.sbatch"])  # as before the time limit
    until(lambda: not slurm.states(), PATIENCE, known)
    one_process.join()

    text = outputs(longer)
    starts = [int(step) for step in re.findall(r"going on from step (\d+) of", text)]
    assert len(starts) == 2, known()
    assert killed_at <= starts[0] < starts[1] < STEPS
    assert f"stopped at step {starts[1]} by SIGUSR1" in text
    assert Finished(longer.recipe, longer.runs).weights() == Finished(longer.recipe, alone.runs).weights()
    assert len(list(longer.run.glob("corpus-*/launch/slurm-*-[12].txt"))) == 2
    allocated = re.findall(r"Allocate JobId=(\S+) NodeList=(\S+)", slurm.logs())
    assert {node for _, node in allocated} >= {"n1", "n2"}, known()
    for name in ("train", "dev", "test"):
        file = f"text/target/{name}.jsonl.gz"
        assert (longer.stage("corpus") / file).read_bytes() == (finished.stage("corpus") / file).read_bytes()
    assert "nothing to start" in launched(longer).err


def test_what_sbatch_refuses_leaves_nothing_in_the_queue(slurm: Cluster, longer: Finished) -> None:
    refused = launched(longer, "--set", "compute.slurm.stages.pretrain.partition=nowhere")
    assert refused.code == 2
    assert "sbatch refuses" in refused.sentence()
    assert "nowhere" in refused.sentence() or "partition" in refused.sentence()
    until(lambda: not slurm.states(), PATIENCE, slurm.logs)


def test_a_stage_that_fails_takes_those_behind_it_along(slurm: Cluster, longer: Finished) -> None:
    failing = launched(longer, "--set", "compute.slurm.setup=['exit 3']")
    assert failing.code == 0, failing.err
    until(lambda: not slurm.states(), PATIENCE, slurm.logs)
    assert not (longer.stage("pretrain") / "stage.json").exists()


def test_processes_on_two_nodes_meet_are_warned_and_start_again(
    slurm: Cluster, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    copy = finished.copy(tmp_path / "runs", without=("pretrain", "evaluate", "export"))
    work = work_of(copy.recipe, copy.runs, ["compute.nodes=2"])
    text = script_of(work.jobs[0], work)
    assert work.jobs[0].module() in text
    script = tmp_path / "two-nodes.sbatch"
    script.write_text(text.replace(work.jobs[0].module(), "probe"), encoding="utf-8")

    def known() -> str:
        return f"{slurm.states()}\n{outputs(copy)[-4000:]}\n{slurm.logs()}"

    def noted(word: str) -> list[str]:
        return sorted(path.name for path in tmp_path.glob(f"{word}-*"))

    number = slurm.run("sbatch", "--parsable", str(script)).strip()
    until(lambda: noted("started") == ["started-0-rank-0-of-2", "started-0-rank-1-of-2"], PATIENCE, known)
    slurm.run("scancel", "--batch", "--signal=USR1", number)
    until(lambda: not slurm.states(), PATIENCE, known)
    assert noted("ended") == [f"ended-{again}-rank-{rank}-of-2" for again in (0, 1) for rank in (0, 1)], known()


def test_two_nodes_train_one_model_and_go_on_after_a_requeue(
    slurm: Cluster, finished: Finished, tmp_path: Path
) -> None:
    """One process on each node, over gloo, by the script that `launch` writes: equal to two on one machine, and one."""
    recipe = trains_for(STEPS, finished, tmp_path / "recipe.toml")
    there, here, alone = (
        Finished(recipe, finished.copy(tmp_path / name, without=("pretrain", "evaluate", "export")).runs)
        for name in ("there", "here", "alone")
    )
    done = launched(there, "--set", "compute.nodes=2", "--json")
    assert done.code == 0, done.err
    (script,) = json.loads(done.out)["scripts"]

    def known() -> str:
        return f"{slurm.states()}\n{outputs(there)[-4000:]}\n{slurm.logs()}"

    until(lambda: newest_checkpoint(there) > 0, PATIENCE, known)
    slurm.run("scontrol", "requeue", script["job"])  # as after a node has failed
    until(lambda: not slurm.states(), PATIENCE, known)
    text = outputs(there)
    (start,) = (int(step) for step in re.findall(r"going on from step (\d+) of", text))
    assert 0 < start < STEPS, known()
    assert "2 processes (2 FSDP); a step is 128 tokens" in text
    allocated = re.findall(r"Allocate JobId=\S+ NodeList=(\S+)", slurm.logs())
    assert allocated[-2:] == ["n[1-2]", "n[1-2]"], known()

    both = ["--standalone", "--nproc-per-node", "2", "-m", "langgraft"]
    run = ["run", recipe, "--only", "pretrain", "--runs"]
    unbroken = process(*both, *run, here.runs, script="torch.distributed.run")
    assert unbroken.code == 0, unbroken.err[-4000:]
    assert there.weights() == here.weights()
    assert process(*run, alone.runs).code == 0
    assert losses(there) == losses(here) == pytest.approx(losses(alone), abs=1e-5)


def losses(run: Finished) -> list[float]:
    """The loss of every step."""
    lines = (run.stage("pretrain") / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == STEPS
    return [json.loads(line)["loss"] for line in lines]
