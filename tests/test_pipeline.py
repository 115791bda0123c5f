"""Plan, run, resume: what is stale and why, and the same bits after being killed anywhere."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command import ROOT, Finished, langgraft, leftovers, process
from pico import pico_recipe

from langgraft import external, pipeline
from langgraft.pipeline import NAMES, plan, run
from langgraft.recipe import ComputeSection, Recipe
from langgraft.recipe_file import load_recipe
from langgraft.store import lock

KILL = Path(__file__).with_name("kill_at.py")


def states(finished: Finished, *overrides: str) -> dict[str, tuple[str, str]]:
    """State and reason of every stage."""
    planned = plan(load_recipe(finished.recipe, overrides), finished.runs)
    return {item.stage.name: (item.state, item.reason) for item in planned}


STAGES = tuple(name for name in NAMES if name not in ("align", "sft", "publish"))  # what the pico recipe has
ALL_DONE = dict.fromkeys(STAGES, ("done", ""))


def test_all_six_stages_run_and_report(finished: Finished) -> None:
    report = json.loads((finished.run / "report.json").read_text(encoding="utf-8"))
    assert [stage["name"] for stage in report["stages"]] == list(STAGES)
    sections = {
        "corpus",
        "tokenizer",
        "training",
        "bits_per_byte",
        "tokens",
        "generations",
        "export",
        "gates",
        "machine",
    }
    assert sections <= set(report)
    assert all(gate["passed"] for gate in report["gates"])
    assert report["bits_per_byte"]["target"]["change"]["mean"] < 0
    assert "<html" in (finished.run / "report.html").read_text(encoding="utf-8")
    assert json.loads((finished.runs.parent / "stdout.json").read_text(encoding="utf-8")) == report


def test_the_exported_folder_loads_with_plain_transformers(finished: Finished) -> None:
    script = (
        "import sys; sys.modules['langgraft'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, info = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)\n"
        "assert not info['missing_keys'] and not info['unexpected_keys'], info\n"
        "ids = AutoTokenizer.from_pretrained(sys.argv[1])('我哋今日去飲茶', return_tensors='pt')\n"
        "print(model(**ids).logits.shape[-1], model.get_input_embeddings().num_embeddings)\n"
    )
    folder = finished.stage("export") / "hf"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, folder], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    logits, rows = done.stdout.split()
    assert logits == rows


def test_llama_cpp_gives_the_same_tokens(finished: Finished) -> None:
    pytest.importorskip("llama_cpp")
    report = json.loads((finished.run / "report.json").read_text(encoding="utf-8"))
    assert [(entry["name"], entry["mismatches"]) for entry in report["export"]["parity"]] == [("f16", 0)]


def test_a_finished_run_is_done_and_running_it_again_changes_nothing(finished: Finished, tmp_path: Path) -> None:
    assert states(finished) == ALL_DONE
    copy = finished.copy(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in copy.run.rglob("stage.json")}
    assert copy.again().code == 0
    assert {path: path.stat().st_mtime_ns for path in copy.run.rglob("stage.json")} == before


@pytest.mark.parametrize("command", [["plan", "RECIPE", "--runs", "RUNS"], ["--help"]])
def test_planning_and_help_import_nothing_heavy(finished: Finished, command: list[str]) -> None:
    script = (
        "import sys\nfrom langgraft.cli import main\n"
        "try:\n    main()\nexcept SystemExit as error:\n    assert not error.code, error.code\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'pyarrow', 'gguf', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    arguments = [{"RECIPE": str(finished.recipe), "RUNS": str(finished.runs)}.get(word, word) for word in command]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_field_is_named_and_only_what_depends_on_it_runs(finished: Finished) -> None:
    assert states(finished, "pretrain.learning_rate=5e-4") == {
        **dict.fromkeys(("corpus", "tokenizer", "surgery"), ("done", "")),
        "pretrain": ("run", "pretrain.learning_rate: 0.001 -> 0.0005"),
        "evaluate": ("run", "pretrain runs again"),
        "export": ("run", "pretrain runs again"),
    }


def test_a_field_left_at_its_default_is_named_with_that_default(finished: Finished) -> None:
    assert states(finished, "surgery.init=mean")["surgery"] == ("run", 'surgery.init: "subword_mean" -> "mean"')
    assert states(finished, "evaluate.gates.target_gain=0.5")["evaluate"][0] == "run"
    assert states(finished, "evaluate.gates.target_gain=0.5")["export"] == ("done", "")


def test_setting_a_value_back_is_done_without_running(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    assert copy.again("--set", "evaluate.resamples=100").code == 0
    assert states(copy, "evaluate.resamples=100") == ALL_DONE
    assert states(copy) == ALL_DONE
    assert len(list(copy.run.glob("evaluate-*"))) == 2


def test_setting_a_default_equals_leaving_it_out(finished: Finished) -> None:
    assert states(finished, "pretrain.weight_decay=0.1", "surgery.pad_to_multiple_of=64") == ALL_DONE


OTHER_COMPUTE = {
    "device": "cpu",
    "dtype": "bfloat16",
    "threads": 2,
    "workers": 2,
    "micro_batch_rows": 1,
    "checkpoint_every": 7,
    "keep_checkpoints": 5,
    "attention": "eager",
    "compile": "true",
    "activation_checkpointing": "true",
    "report_to": '["tensorboard"]',
    "async_checkpoints": "true",
    "nodes": 2,
    "processes_per_node": 2,
    "tensor_parallel": 2,
    "fsdp": 2,
    "data_parallel_replicas": 2,
    "slurm": '{partition = "gpu"}',
}


@pytest.mark.parametrize("field", ComputeSection.model_fields)
def test_compute_changes_nothing(finished: Finished, field: str) -> None:
    value = OTHER_COMPUTE[field]  # a new field needs a value here
    assert getattr(load_recipe(finished.recipe).compute, field) != value
    assert states(finished, f"compute.{field}={value}") == ALL_DONE


def test_a_changed_corpus_file_is_named(finished: Finished) -> None:
    file = finished.recipe.with_name("yue.jsonl")
    content, facts = file.read_bytes(), file.stat()
    try:
        file.write_bytes(content + '{"text": "佢話聽日會落雨。"}\n'.encode())
        found = states(finished)
    finally:
        file.write_bytes(content)
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert found["corpus"] == ("run", f"corpus.target {file} has other content")
    assert found["tokenizer"] == ("run", "corpus runs again")
    assert states(finished) == ALL_DONE


def test_changed_weights_of_the_base_are_named(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "identity", lambda _base, _hash: {"files": {"model.safetensors": "other"}})
    found = states(finished)
    assert found["corpus"] == ("done", "")
    assert found["tokenizer"] == ("run", "model.base has other content")


def test_a_new_version_of_a_stage_is_named(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = tuple(
        replace(stage, version=stage.version + 1) if stage.name == "surgery" else stage for stage in pipeline.STAGES
    )
    monkeypatch.setattr(pipeline, "STAGES", newer)
    found = states(finished)
    version = newer[2].version
    assert found["surgery"] == ("run", f"langgraft's surgery stage changed (version {version - 1} -> {version})")
    assert found["pretrain"] == ("run", "surgery runs again")


def test_identities_are_only_a_cache(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    for damage in ("{", "[]", ""):
        (copy.run / ".identities.json").write_text(damage)
        assert states(copy) == ALL_DONE


def test_a_section_that_another_needs_is_asked_for(finished: Finished) -> None:
    data = load_recipe(finished.recipe).model_dump()
    without = Recipe.model_validate({**data, "pretrain": None})
    with pytest.raises(pipeline.RecipeError, match=r"\[evaluate\] needs \[pretrain\]"):
        plan(without, finished.runs)


def test_killed_in_corpus_and_in_tokenizer(finished: Finished, tmp_path: Path) -> None:
    """Two kills one after the other, as the tokenizer's proof takes most of a run's time."""
    copy = Finished(finished.recipe, tmp_path)
    for moment, stage in (("in_corpus", "corpus"), ("in_tokenizer", "tokenizer")):
        assert process(moment, "run", copy.recipe, "--runs", tmp_path, script=KILL).code == -9
        assert not (copy.stage(stage) / "stage.json").exists()
        resumes = ("resume", "did not finish; goes on where it stopped")
        assert states(copy)[stage] == (resumes if stage == "corpus" else ("run", "did not finish; starts again"))
    assert process("run", copy.recipe, "--runs", tmp_path).code == 0
    assert copy.weights() == finished.weights()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("moment", "stage", "going_on"),
    [
        ("in_pretrain", "pretrain", None),
        ("in_checkpoint", "pretrain", "going on from step 4 of 12"),
        ("in_export", "export", None),
    ],
)
def test_killed_later(finished: Finished, tmp_path: Path, moment: str, stage: str, going_on: str | None) -> None:
    missing = ("pretrain", "evaluate", "export") if stage == "pretrain" else ("export",)
    copy = finished.copy(tmp_path, without=missing)
    assert process(moment, "run", copy.recipe, "--runs", tmp_path, script=KILL).code == -9
    assert not (copy.stage(stage) / "stage.json").exists()
    assert leftovers(tmp_path) != [] or moment == "in_pretrain"
    state, reason = states(copy)[stage]
    assert (state, reason.split(";")[0]) == ("resume" if stage == "pretrain" else "run", "did not finish")
    done = copy.again()
    assert done.code == 0, done.err
    assert ("going on from" in done.err) == (going_on is not None)
    assert going_on is None or going_on in done.err
    assert copy.weights() == finished.weights()
    assert states(copy) == ALL_DONE
    assert leftovers(tmp_path) == []


def test_what_killed_processes_left_anywhere_is_removed(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    (copy.run / ".tmp-report.html-1").write_text("half")
    (copy.run / "cache" / ".tmp-base-1" / "deep").mkdir(parents=True)
    (copy.stage("pretrain") / "packed" / ".tmp-target-1").mkdir()
    assert copy.again().code == 0
    assert leftovers(tmp_path) == []


def test_interrupted_in_pretrain(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    done = process("in_pretrain_interrupted", "run", copy.recipe, "--runs", tmp_path, script=KILL)
    assert done.code == 130
    assert done.sentence() == "stopped at step 3 by SIGINT; run the same command to go on"
    again = copy.again("--until", "pretrain")
    assert again.code == 0
    assert "going on from step 3 of 12" in again.err
    assert copy.weights() == finished.weights()


def test_interrupted_in_corpus(finished: Finished, tmp_path: Path) -> None:
    done = process("in_corpus_interrupted", "run", finished.recipe, "--runs", tmp_path, script=KILL)
    assert done.code == 130
    assert done.sentence() == "interrupted; run the same command to go on"
    assert leftovers(tmp_path) == []


def test_a_second_process_says_who_holds_the_run(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    with lock(copy.run, what="pico"):
        done = process("run", copy.recipe, "--runs", tmp_path)
    assert done.code == 2
    assert f"is in use by process {os.getpid()} on" in done.sentence()
    assert copy.again().code == 0


def test_only_and_until(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("surgery", "evaluate", "export"))
    assert langgraft("run", copy.recipe, "--runs", tmp_path, "--until", "surgery").code == 0
    assert not list(copy.run.glob("evaluate-*"))
    assert langgraft("run", copy.recipe, "--runs", tmp_path, "--only", "evaluate").code == 0
    assert not list(copy.run.glob("export-*"))
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    assert "bits_per_byte" in report
    assert "export" not in report


def test_only_a_stage_whose_needs_are_missing(finished: Finished, tmp_path: Path) -> None:
    done = langgraft("run", finished.recipe, "--runs", tmp_path / "new", "--only", "surgery")
    assert done.code == 2
    assert done.sentence() == "stage `surgery` needs `corpus`, which is not done; run without --only first"
    assert not (tmp_path / "new").exists()


def test_a_stage_that_fails_leaves_no_marker(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("surgery", "pretrain", "evaluate", "export"))
    tokenizer = copy.stage("tokenizer") / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8")[:-10], encoding="utf-8")
    done = copy.again()
    assert done.code == 2
    assert str(tokenizer) in done.sentence()
    assert not list(copy.run.glob("surgery-*/stage.json"))
    assert states(copy)["surgery"][0] == "run"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(finished: Finished, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "langgraft-test", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        copy = finished.copy(disk, without=("pretrain", "evaluate", "export"))
        kilobytes = sum(path.stat().st_blocks for path in disk.rglob("*")) // 2
        for room in (60, 250, 600):
            resize = ["mount", "-o", f"remount,size={kilobytes + room}k", str(disk)]
            subprocess.run(resize, capture_output=True, check=True)
            done = copy.again("--until", "pretrain")
            assert done.code == 2, (room, done.err)
            assert "no space left on the device" in done.sentence()
            assert not (copy.stage("surgery").parent / "report.json.tmp").exists()
            assert not list(copy.run.glob("pretrain-*/stage.json"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], capture_output=True, check=True)
        assert copy.again("--until", "pretrain").code == 0
        assert copy.weights() == finished.weights()
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=True)


def test_no_space_in_the_first_stage(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = pico_recipe(tmp_path, pico)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = langgraft("run", recipe, "--runs", tmp_path / "runs")
    assert done.code == 2
    assert "no space left on the device" in done.sentence()
    assert not list((tmp_path / "runs").rglob("stage.json"))
    assert leftovers(tmp_path / "runs") == []


def test_a_method_of_the_users_own_is_part_of_the_fingerprint(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "my_start.py"
    module.write_text("def ones(old, tokens, *, generator):\n    return old[:1].repeat(len(tokens), 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    copy = finished.copy(tmp_path / "runs", without=("pretrain", "evaluate", "export"))
    start = "surgery.init=my_start:ones"
    assert copy.again("--set", start, "--until", "surgery").code == 0
    assert states(copy, start)["surgery"] == ("done", "")
    module.write_text(module.read_text() + "# changed\n")
    assert states(copy, start)["surgery"] == ("run", "surgery.init has other content")


def test_run_from_python_returns_the_report(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    report = run(load_recipe(copy.recipe), copy.runs)
    assert report["name"] == "pico"
    pipeline.check_gates(report)
    report["gates"][0]["passed"] = False
    with pytest.raises(pipeline.GateError, match="gate failed: "):
        pipeline.check_gates(report)
