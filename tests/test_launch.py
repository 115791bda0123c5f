"""Scripts of `langgraft launch`: what they hold, what they wait for, what is refused; sbatch itself in another file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, Finished, langgraft, process
from pico import pico_recipe

from langgraft.launch import TRAINING, launch, work_of
from langgraft.launch_slurm import slurm, wishes_for
from langgraft.pipeline import NAMES
from langgraft.recipe_compute import ComputeSection, Slurm, SlurmJob
from langgraft.runs import begun

STAGES = tuple(name for name in NAMES if name not in ("align", "sft", "publish"))  # what the pico recipe has
GOLDEN = ROOT / "tests" / "golden" / "slurm.sbatch"
CLUSTER = """
nodes = 2
processes_per_node = 8
[compute.slurm]
partition = "gpu"
account = "team"
time = "12:00:00"
gpus_per_node = 8
cpus_per_task = 96
memory = "400G"
extra = ["--exclusive"]
corpus_parts = 16
setup = ["module load cuda"]
[compute.slurm.stages.corpus]
partition = "cpu"
time = "2:00:00"
extra = []
"""


@pytest.fixture
def recipe(pico: Path, tmp_path: Path) -> Path:
    """A pico recipe for a cluster."""
    path = pico_recipe(tmp_path / "recipe", pico)
    text = path.read_text(encoding="utf-8").replace("batch_tokens = 128", "batch_tokens = 512")  # a row each process
    path.write_text(text + CLUSTER, encoding="utf-8")
    return path


def plain(text: str, folder: Path) -> str:
    """A script as it is on any machine; the interpreter first, since it may lie in one of the folders."""
    text = text.replace(sys.executable, "python")
    text = text.replace(str(folder), "/cluster").replace(str(Path.cwd()), "/cluster/project")
    return re.sub(r"-[0-9a-f]{8}/", "-0123abcd/", text)


def golden(folder: Path) -> str:
    """The scripts of cleaning in parts, of training and of an export, one after the other."""
    found = []
    for pattern in ("corpus-*/launch/parts.sbatch", "pretrain-*/launch/pretrain.sbatch", "export-*/launch/*.sbatch"):
        (script,) = (folder / "runs" / "pico").glob(pattern)
        assert os.access(script, os.X_OK)
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
        found.append(plain(script.read_text(encoding="utf-8"), folder))
    return "\n".join(found)


def test_the_scripts_are_those_that_were_reviewed(recipe: Path, tmp_path: Path) -> None:
    launch(recipe, tmp_path / "runs", on="slurm", dry_run=True)
    if "LANGGRAFT_WRITE_GOLDEN" in os.environ:
        GOLDEN.write_text(golden(tmp_path), encoding="utf-8")
    assert golden(tmp_path) == GOLDEN.read_text(encoding="utf-8")


def test_a_dry_run_writes_scripts_and_changes_no_plan(recipe: Path, tmp_path: Path) -> None:
    before = langgraft("plan", recipe, "--runs", tmp_path / "runs", "--json").out
    done = langgraft("launch", recipe, "--on", "slurm", "--dry-run", "--runs", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["scripts"]
    assert [row["stage"] for row in rows] == ["corpus", *STAGES]
    assert {row["job"] for row in rows} == {None}
    for row in rows:
        script = Path(row["script"])
        assert script.parent.name == "launch"
        assert (script.parent / recipe.name).read_bytes() == recipe.read_bytes()
        assert not begun(script.parent.parent)
    assert langgraft("plan", recipe, "--runs", tmp_path / "runs", "--json").out == before


def test_overrides_are_in_the_scripts(recipe: Path, tmp_path: Path) -> None:
    overrides = ["pretrain.seed=7", "compute.slurm.time=1:30:00", "evaluate.prompts.target=['我 今日']"]
    launched = launch(recipe, tmp_path / "runs", on="slurm", overrides=overrides, dry_run=True)
    text = launched.scripts[-1].path.read_text(encoding="utf-8")
    assert "#SBATCH --time=1:30:00\n" in text
    line = next(line for line in text.splitlines() if "--set" in line)
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    assert [word for word in words.splitlines() if "=" in word] == overrides


def test_scripts_stay_when_a_stage_starts_again(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path / "runs")
    stage = copy.stage("export")
    (stage / "stage.json").unlink()
    (stage / "half-done").mkdir()
    (stage / "log").write_text("")
    launch(copy.recipe, copy.runs, on="slurm", dry_run=True)
    assert copy.again("--only", "export").code == 0
    assert (stage / "launch" / "export.sbatch").is_file()
    assert not (stage / "half-done").exists()
    assert not (stage / "log").exists()


def test_stages_ask_for_what_they_can_use() -> None:
    own = SlurmJob(partition="cpu", gpus_per_node=0)
    compute = ComputeSection(slurm=Slurm(partition="gpu", gpus_per_node=4, time="60", stages={"evaluate": own}))
    assert {name: wishes_for(name, compute).gpus_per_node for name in NAMES} == {
        "corpus": 0, "tokenizer": 0, "surgery": 1, "pretrain": 4, "align": 4, "sft": 4, "evaluate": 0, "export": 0,
        "publish": 0,
    }  # fmt: skip
    assert {wishes_for("evaluate", compute).partition, wishes_for("surgery", compute).partition} == {"cpu", "gpu"}
    assert wishes_for("evaluate", compute).time == "60", "what a stage's table leaves out is as for all"
    assert set(NAMES) >= set(TRAINING)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "compute.slurm.gpus_per_node=4",
            "compute.processes_per_node (8) is more than compute.slurm.gpus_per_node (4)",
        ),
        ("compute.slurm.extra=['a100']", "compute.slurm.extra: 'a100' is no option of sbatch, such as"),
        ("compute.slurm.stages.pretain.time=9", "`compute.slurm.stages.pretain.time`: input should be a valid string"),
        ("compute.slurm.stages.pretain.time=1:00:00", "compute.slurm.stages.pretain: there is no such stage; did you"),
        ("pretrain.batch_tokens=100", "pretrain.batch_tokens (100) must be a multiple of pretrain.sequence_length"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    recipe: Path, tmp_path: Path, override: str, sentence: str
) -> None:
    done = langgraft("launch", recipe, "--on", "slurm", "--set", override, "--runs", tmp_path / "runs")
    assert done.code == 2
    assert sentence in done.sentence()
    assert not list(tmp_path.glob("runs/**/*.sbatch"))


def test_devices_that_this_machine_lacks_are_no_mistake(recipe: Path, tmp_path: Path) -> None:
    overrides = ["compute.device=cuda", "pretrain.mode=lora", "pretrain.lora.quantize=nf4"]
    overrides += ["compute.nodes=1", "compute.processes_per_node=1"]
    work = work_of(recipe, tmp_path / "runs", overrides)
    assert [job.stage for job in work.jobs] == list(STAGES)


def test_an_unknown_launcher_and_a_machine_without_sbatch(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = langgraft("launch", recipe, "--on", "slrm", "--runs", tmp_path / "runs")
    assert "launcher `slrm` is unknown; did you mean `slurm`?" in done.sentence()
    monkeypatch.setenv("PATH", "/nowhere")
    done = langgraft("launch", recipe, "--on", "slurm", "--runs", tmp_path / "runs")
    assert (done.code, "sbatch is not on this machine" in done.sentence()) == (2, True)


def test_what_is_done_is_not_launched(finished: Finished) -> None:
    work = work_of(finished.recipe, finished.runs)
    assert work.jobs == ()
    assert slurm(work).scripts == ()
    done = langgraft("launch", finished.recipe, "--on", "torchrun", "--runs", finished.runs)
    assert (done.code, "nothing to start" in done.err) == (0, True)


def test_torchrun_runs_the_stages_here_and_makes_the_same_bits(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path / "runs", without=("pretrain", "evaluate", "export"))
    text = copy.recipe.read_text(encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(text[: text.index("[export]")] + text[text.index("[compute]") :])
    gate = "evaluate.gates.target_gain=0.999"
    arguments = ("launch", tmp_path / "recipe.toml", "--on", "torchrun", "--runs", copy.runs, "--set", gate)
    done = process(*arguments, "--json", script="langgraft")
    assert done.code == 1, done.err
    assert "gate failed" in done.err
    assert [row["stage"] for row in json.loads(done.out)["scripts"]] == ["pretrain", "evaluate"]
    assert copy.weights() == finished.weights()


def test_torchrun_stops_behind_a_stage_that_fails(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path / "runs", without=("surgery", "pretrain", "evaluate", "export"))
    work = work_of(copy.recipe, copy.runs)
    (work.jobs[0].scripts / copy.recipe.name).write_text("no recipe")
    from langgraft.launch import torchrun

    assert torchrun(work).code == 2
    assert not list(copy.run.glob("pretrain-*/stage.json"))


def test_torchrun_on_several_nodes_is_started_by_hand(recipe: Path, tmp_path: Path) -> None:
    refused = langgraft("launch", recipe, "--on", "torchrun", "--runs", tmp_path / "runs")
    assert "compute.nodes is 2, and torchrun starts processes on this machine alone" in refused.sentence()
    launched = launch(recipe, tmp_path / "runs", on="torchrun", dry_run=True)
    script = next(script.path for script in launched.scripts if script.stage == "pretrain")
    assert "--nnodes 2 --nproc-per-node 8" in script.read_text(encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "HEAD"}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "HEAD: set it to the name of the first node" in done.stderr


def test_part_needs_the_corpus(recipe: Path, tmp_path: Path) -> None:
    done = langgraft("run", recipe, "--part", "1/2", "--runs", tmp_path / "runs")
    assert "--part is for the corpus: give --only corpus with it" in done.sentence()
    done = langgraft("run", recipe, "--only", "corpus", "--part", "3/2", "--runs", tmp_path / "runs")
    assert "write which of how many, such as 3/16" in done.sentence()


def test_a_stage_cleaned_in_parts_is_the_same(finished: Finished, tmp_path: Path) -> None:
    for part in ("2/2", "1/2"):
        done = langgraft("run", finished.recipe, "--only", "corpus", "--part", part, "--runs", tmp_path, "--json")
        assert done.code == 0, done.err
    assert json.loads(done.out)["target"]["documents"]["read"] == 400
    assert langgraft("run", finished.recipe, "--only", "corpus", "--runs", tmp_path).code == 0
    for name in ("target/train.jsonl.gz", "source/test.jsonl.gz", "target/dropped.jsonl.gz"):
        made = Finished(finished.recipe, tmp_path).stage("corpus") / "text" / name
        assert made.read_bytes() == (finished.stage("corpus") / "text" / name).read_bytes()
    done = langgraft("run", finished.recipe, "--only", "corpus", "--part", "1/2", "--runs", tmp_path, "--json")
    assert (done.code, json.loads(done.out)) == (0, {})
