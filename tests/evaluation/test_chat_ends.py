"""Answers that do not come to an end are counted, compared with the base's, and named."""

import json
from pathlib import Path
from typing import Any

import pytest
from constant import constant_model

from langgraft.doctor.checks import diagnose
from langgraft.doctor.subject import subject_of
from langgraft.evaluation.cautions import cautions
from langgraft.evaluation.chat_ends import QUESTIONS, ChatEnds
from langgraft.evaluation.models import Measured
from langgraft.evaluation.suite import Way, evaluate
from langgraft.tokenizer.template import template_of


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("constant")
    found = {name: constant_model(folder / name, piece) for name, piece in (("ends", "<|im_end|>"), ("never", "a"))}
    plain = constant_model(folder / "plain", "a")
    config = json.loads((plain / "tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    return {**found, "plain": plain}


def found_of(models: dict[str, Path], names: list[str], scores: Path) -> dict[str, Any]:
    chosen = [Measured(name, str(models[one]), "folder") for name, one in zip(("base", "adapted"), names, strict=False)]
    found = evaluate(chosen, [ChatEnds(QUESTIONS[:10], 6)], scores, way=Way(200), device="cpu", threads=1)
    return dict(found["chat"]["ends"])


def test_a_model_that_lost_the_end_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    lost = found_of(models, ["ends", "never"], tmp_path / "lost")
    assert [lost["models"][name]["mean"] for name in ("base", "adapted")] == [1, 0]
    assert 0 < lost["models"]["adapted"]["high"] < 0.4  # ten answers cannot say "never"
    assert 0.6 < lost["models"]["base"]["low"] < 1
    assert lost["changes"]["adapted"]["verdict"] == "loss"
    assert lost["examples"][0] == {"message": QUESTIONS[0], "written": {"base": "", "adapted": "aaaaaa"}}
    (finding,) = cautions({"chat": {"ends": lost}})
    assert (finding.check, finding.where) == ("ends", "chat.ends")
    assert finding.figure == "0% of 10 answers end; the base 100%"
    same = found_of(models, ["ends", "ends"], tmp_path / "same")
    assert same["changes"]["adapted"]["verdict"] == "no measurable difference"
    assert cautions({"chat": {"ends": same}}) == []
    # A base that never ended its answers lost nothing; a model fine-tuned from a base without a template must.
    assert cautions({"chat": {"ends": found_of(models, ["never", "never"], tmp_path / "before")}}) == []


def test_models_without_a_template_are_left_out(models: dict[str, Path], tmp_path: Path) -> None:
    none = found_of(models, ["plain", "plain"], tmp_path / "none")
    assert (none["models"], none["changes"]) == ({}, {})
    tuned = found_of(models, ["plain", "never"], tmp_path / "tuned")
    assert set(tuned["models"]) == {"adapted"}
    assert tuned["changes"] == {}
    assert [finding.check for finding in cautions({"chat": {"ends": tuned}})] == ["ends"]


def test_the_doctor_asks_a_model_itself(models: dict[str, Path]) -> None:
    def found(model: str, base: str | None = None) -> list[str]:
        subject = subject_of(models[model], base=str(models[base]) if base else None)
        return [finding.check for finding in diagnose(subject, only=["endless"])]

    assert found("never") == ["endless"]
    assert found("never", "ends") == ["endless"]
    assert found("never", "never") == []
    assert found("ends") == []
    assert template_of(models["plain"]) is None
    assert found("plain") == []
