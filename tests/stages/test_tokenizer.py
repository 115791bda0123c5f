"""The tokenizer stage: proven or stopped; and keeping the base's tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Finished

from langgraft.pipeline import plan
from langgraft.recipe_file import load_recipe
from langgraft.stages import tokenizer as stage
from langgraft.store import sha256_file
from langgraft.tokenizer.prove import Gate


def test_new_tokens_and_gates_are_in_the_summary(finished: Finished) -> None:
    marker = json.loads((finished.stage("tokenizer") / "stage.json").read_text(encoding="utf-8"))
    summary = marker["summary"]
    assert summary["new_tokens"] == 50
    assert [gate["name"] for gate in summary["gates"] if not gate["passed"]] == []
    assert any("1,0" in gate["value"] for gate in summary["gates"])  # of more than a million code points
    assert summary["dev"]["adapted"]["tokens"] < summary["dev"]["base"]["tokens"]


def test_a_failed_proof_stops_the_run(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = finished.copy(tmp_path, without=("tokenizer", "surgery", "pretrain", "evaluate", "export"))
    monkeypatch.setattr(stage, "prove", lambda *_, **__: [Gate("old ids unchanged", False, "3 changed", "0")])
    done = copy.again()
    assert done.code == 1
    assert "the extended tokenizer is not safe to use: old ids unchanged" in done.sentence()
    assert "FAIL  old ids unchanged: 3 changed" in done.err
    assert not list(copy.run.glob("tokenizer-*/stage.json"))
    assert not list(copy.run.glob("surgery-*"))


def test_the_bases_tokenizer_can_be_kept(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = finished.copy(tmp_path, without=("tokenizer", "surgery", "pretrain", "evaluate", "export"))
    monkeypatch.setattr(stage, "prove", lambda *_, **__: [])
    done = copy.again("--set", "tokenizer.method=none", "--until", "evaluate", "--set", "pretrain.tokens=128")
    assert done.code == 0, done.err
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    assert report["tokenizer"]["new_tokens"] == 0
    assert report["tokens"]["target"]["saved"] == 0


@pytest.fixture
def donor(finished: Finished, tmp_path: Path) -> Path:
    """A donor folder; the finished run's own tokenizer serves, as it knows the language."""
    folder = tmp_path / "donor"
    folder.mkdir()
    shutil.copy(finished.stage("tokenizer") / "tokenizer" / "tokenizer.json", folder / "tokenizer.json")
    return folder


@pytest.mark.parametrize("method", ["merge", "train", "added"])
def test_other_methods_run(
    finished: Finished, donor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    copy = finished.copy(tmp_path / "runs", without=("tokenizer", "surgery", "pretrain", "evaluate", "export"))
    monkeypatch.setattr(stage, "prove", lambda *_, **__: [])
    given = [] if method != "merge" else ["--set", f"tokenizer.donor={donor}"]
    options = ["--set", f"tokenizer.method={method}", "--set", "tokenizer.new_tokens=30", *given]
    done = copy.again(*options, "--until", "surgery")
    assert done.code == 0, done.err
    summary = json.loads((copy.stage("tokenizer") / "stage.json").read_text(encoding="utf-8"))["summary"]
    assert summary["method"] == method
    assert 25 < summary["new_tokens"] <= 30  # a character that needs two new tokens may not fit at the end
    assert summary["dev"]["adapted"]["tokens"] < summary["dev"]["base"]["tokens"]
    rows = json.loads((copy.stage("surgery") / "stage.json").read_text(encoding="utf-8"))["summary"]
    assert rows["new_tokens"] == summary["new_tokens"]


def test_the_donors_content_is_part_of_the_fingerprint(finished: Finished, donor: Path, tmp_path: Path) -> None:
    overrides = ["tokenizer.method=merge", f"tokenizer.donor={donor}"]

    def record() -> dict[str, Any]:
        planned = plan(load_recipe(finished.recipe, overrides), tmp_path / "runs")
        return next(item.record for item in planned if item.stage.name == "tokenizer")

    before = record()
    assert before["inputs"]["tokenizer.donor"] == sha256_file(donor / "tokenizer.json")
    (donor / "tokenizer.json").write_text("{}")
    assert record()["inputs"]["tokenizer.donor"] != before["inputs"]["tokenizer.donor"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["tokenizer.method=merge"], "tokenizer.donor is not set; method `merge` needs a donor tokenizer"),
        (
            ["tokenizer.method=merge", "tokenizer.donor=gone"],
            "tokenizer.donor: base `gone` does not exist; give a folder",
        ),
        (
            ["tokenizer.method=merge", "tokenizer.donor=owner/model", "tokenizer.new_tokens=auto"],
            'tokenizer.new_tokens = "auto" is for methods that learn from text',
        ),
        (["model.language=tr", "corpus.source=[]"], "Turkish and English are both written in Latin letters"),
        (["tokenizer.donor=gone"], "tokenizer.donor is set, but method `continue` uses none"),
    ],
)
def test_a_donor_that_does_not_fit(finished: Finished, tmp_path: Path, options: list[str], sentence: str) -> None:
    copy = finished.copy(tmp_path / "runs")
    done = copy.again(*(word for option in options for word in ("--set", option)))
    assert done.code == 2
    assert sentence in done.sentence()
