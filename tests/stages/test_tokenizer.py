"""The tokenizer stage: proven or stopped; and keeping the base's tokenizer."""

import json
from pathlib import Path

import pytest
from command import Finished

from langgraft.stages import tokenizer as stage
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
