"""The doctor on runs and recipes: planted defects are named, the pico run is healthy."""

import fcntl
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Finished, langgraft

from langgraft.doctor import training
from langgraft.doctor.checks import diagnose
from langgraft.doctor.subject import subject_of
from langgraft.evaluation.cautions import Finding
from langgraft.evaluation.prompts import shipped
from langgraft.runs import MARKER


@pytest.fixture
def sick(finished: Finished, tmp_path: Path) -> Finished:
    """A copy of the pico run that a test may spoil."""
    return finished.copy(tmp_path)


def _found(run: Path, *only: str, **options: Any) -> list[Finding]:
    return diagnose(subject_of(run), only=only, **options)


def _change(sick: Finished, change: dict[str, Any]) -> None:
    """Change the report: `a.b.c` -> value."""
    path = sick.run / "report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    for key, value in change.items():
        inner, *way = report, *key.split(".")
        for name in way[:-1]:
            inner = inner.setdefault(name, {})
        inner[way[-1]] = value
    path.write_text(json.dumps(report, ensure_ascii=False), encoding="utf-8")


# Six hundred steps of training on a real model would be needed for answers in Cantonese.
UNTAUGHT = {"language", "gain"}


def test_a_healthy_run_has_no_findings(finished: Finished) -> None:
    assert [finding for finding in _found(finished.run) if finding.check not in UNTAUGHT] == []
    assert [f for f in diagnose(subject_of(finished.recipe, runs=finished.runs)) if f.check not in UNTAUGHT] == []


def test_text_that_leaked_is_named(sick: Finished) -> None:
    assert _found(sick.run, "leak") == []
    folder = sick.stage("corpus") / "text" / "target"
    held = gzip.decompress((folder / "test.jsonl.gz").read_bytes()).splitlines(keepends=True)
    train = gzip.decompress((folder / "train.jsonl.gz").read_bytes())
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(train + b"".join(held[:7])))
    (finding,) = _found(sick.run, "leak")
    assert finding.figure.startswith("7 training documents")
    (folder / "train.jsonl.gz").write_bytes(b"no gzip")
    (finding,) = _found(sick.run, "leak")
    assert (finding.check, "is damaged" in finding.problem) == ("leak", True)


def test_answers_in_english_are_named(sick: Finished) -> None:
    english = "The market opens early in the morning every day of the week."
    own = [{"language": "yue", "prompt": p.text, "base": "", "adapted": english} for p in shipped("yue")]
    _change(sick, {"generations": own})
    (finding,) = _found(sick.run, "language")
    assert "does not answer in Cantonese, mostly in English" in finding.problem
    assert finding.figure == "8 of 8 answers"
    for entry in own[:4]:
        entry["adapted"] = "我哋聽日去邊度食飯呀？佢話唔知喎。"
    _change(sick, {"generations": own})
    assert _found(sick.run, "language") == []


def test_rows_that_were_never_trained_are_named(sick: Finished) -> None:
    shutil.copy(sick.stage("surgery") / "model" / "model.safetensors", sick.stage("pretrain") / "model")
    (finding,) = _found(sick.run, "untrained-rows")
    assert finding.figure == "50 of 50 rows"


@pytest.mark.parametrize(
    ("change", "check", "problem"),
    [
        ({"bits_per_byte.target.change": {"mean": -0.01, "low": -0.03, "high": 0.01}}, "gain", "no better than before"),
        ({"bits_per_byte.source.change": {"mean": 0.09, "low": 0.05, "high": 0.13}}, "forgetting", "forgotten"),
        ({"tokens.target.saved": 0.01}, "fertility", "hardly used"),
        (
            {
                "tokenizer.new_tokens": 0,
                "tokens.target.adapted.bytes_per_token": 1.3,
                "tokens.source.adapted.bytes_per_token": 4.2,
            },
            "fertility",
            "no tokens were added",
        ),
        ({"bits_per_byte.target.documents": 4}, "little-data", "too few held-out"),
        ({"training.tokens": 300}, "little-data", "hardly trained"),
        ({"training.target_bytes": 10**9}, "little-data", "over and over"),
        (
            {"gates": [{"name": "g", "passed": False, "value": "3", "bound": "2", "stage": "surgery"}]},
            "gates",
            "gate failed: g",
        ),
    ],
)
def test_what_the_report_shows_is_named(sick: Finished, change: dict[str, Any], check: str, problem: str) -> None:
    _change(sick, {"bits_per_byte.target.change": {"mean": -0.3, "low": -0.35, "high": -0.25}})
    names = ("gates", "gain", "forgetting", "fertility", "little-data")
    assert _found(sick.run, *names) == []
    _change(sick, change)
    (finding,) = _found(sick.run, *names)
    assert finding.check == check
    assert problem in finding.problem
    assert finding.fix


def _metrics(sick: Finished, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"step": step, **row}) for step, row in enumerate(rows, start=1)]
    (sick.stage("pretrain") / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_loss_that_went_wrong_is_named(sick: Finished) -> None:
    good = [{"loss": 6 - step / 10, "tokens_per_second": 100} for step in range(30)]
    _metrics(sick, good)
    assert _found(sick.run, "loss", "slow") == []
    _metrics(sick, [*good[:20], {"loss": float("nan")}, *good[20:]])
    assert _found(sick.run, "loss")[0].figure == "first at step 21"
    _metrics(sick, [*good, *({"loss": 7.5} for _ in range(6))])
    assert "diverges" in _found(sick.run, "loss")[0].problem
    _metrics(sick, [{"loss": 5.0, "tokens_per_second": 100 if step < 20 else 30} for step in range(40)])
    assert _found(sick.run, "loss", "slow")[0].check == "slow"
    (sick.stage("pretrain") / "metrics.jsonl").write_text('{"step": 1, "lo', encoding="utf-8")
    assert ["could not be judged" in f.problem for f in _found(sick.run, "loss", "slow")] == [True]


def test_training_far_below_the_processor_is_named(sick: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    _metrics(sick, [{"loss": 5.0, "tokens_per_second": 0.5} for _ in range(10)])
    assert _found(sick.run, "speed") == []  # too small a model to judge
    monkeypatch.setattr(training, "SMALLEST", 0)
    assert "0% of the speed of matrix products" in _found(sick.run, "speed")[0].figure
    _change(sick, {"machine.cpu": "another"})
    assert _found(sick.run, "speed") == []


def test_a_lock_that_was_left_or_hangs_is_named(sick: Finished) -> None:
    lock = sick.run / ".lock"
    lock.write_text("process 12 on there (pico)", encoding="utf-8")
    (finding,) = _found(sick.run, "lock", "stages")
    assert "was killed" in finding.problem
    with lock.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _found(sick.run, "lock") == []
        os.utime(sick.run / "log.txt", (1, 1))
        (finding,) = _found(sick.run, "lock")
        assert "hangs" in finding.problem
    lock.write_text("", encoding="utf-8")
    assert _found(sick.run, "lock") == []


def test_unfinished_stale_and_missing_results_are_named(sick: Finished) -> None:
    assert _found(sick.run, "stages") == []
    (sick.stage("evaluate") / "results.json").unlink()
    assert "result of evaluate is missing" in _found(sick.run, "stages")[0].problem
    shutil.rmtree(sick.stage("evaluate"))
    (sick.run / "evaluate-00000000").mkdir()
    assert "evaluate did not finish" in _found(sick.run, "stages")[0].problem
    (sick.run / "evaluate-00000000").rmdir()
    marker = sick.stage("surgery") / MARKER
    record = json.loads(marker.read_text(encoding="utf-8"))
    record["record"]["fields"]["surgery.seed"] = 1
    marker.write_text(json.dumps(record), encoding="utf-8")
    problems = [finding.problem for finding in _found(sick.run, "stages")]
    assert problems == ["pretrain is stale: it was made from an older surgery"]
    shutil.rmtree(sick.stage("surgery") / "model")
    assert any("result of surgery is missing" in finding.problem for finding in _found(sick.run, "stages"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("yue.jsonl", "none.jsonl", "does not exist"),
        ("[pretrain]", "[pretrain]\nreplay_ratio = 0.0", "no replay"),
        ("learning_rate = 1e-3", "learning_rate = 0.1", "learning_rate is very high"),
        ("new_tokens = 50", "new_tokens = 500", "too little training for so many new tokens"),
    ],
)
def test_what_a_recipe_risks_is_named(finished: Finished, tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = finished.recipe.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    found = diagnose(subject_of(path, runs=tmp_path / "runs"))
    assert [problem in finding.problem for finding in found] == [True]


def test_sections_that_are_missing_are_named(finished: Finished, tmp_path: Path) -> None:
    text = finished.recipe.read_text(encoding="utf-8")
    path = tmp_path / "recipe.toml"
    path.write_text(text[: text.index("[evaluate]")] + text[text.index("[compute]") :], encoding="utf-8")
    assert [f.problem for f in diagnose(subject_of(path, runs=tmp_path))] == ["nothing will be measured"]
    path.write_text(text[: text.index("[pretrain]")], encoding="utf-8")
    assert [f.problem for f in diagnose(subject_of(path, runs=tmp_path))] == [
        "nothing will be measured", "nothing will be trained"
    ]  # fmt: skip
    one = text.index("[[corpus.source]]")
    path.write_text(text[:one] + text[text.index("[corpus]\n") :].replace("source_dev = 6\nsource_test = 6\n", ""))
    assert [f.problem for f in diagnose(subject_of(path, runs=tmp_path))] == ["forgetting will not be measured"]


def test_the_command_takes_a_folder_of_runs(sick: Finished) -> None:
    _change(sick, {"bits_per_byte.target.change": {"mean": -0.3, "low": -0.35, "high": -0.25}, "generations": []})
    done = langgraft("doctor", "--runs", sick.runs, "--json")
    assert done.code == 0, done.err
    (sick.run / ".lock").write_text("process 12 on there (pico)", encoding="utf-8")
    assert langgraft("doctor", "--runs", sick.runs).code == 1
