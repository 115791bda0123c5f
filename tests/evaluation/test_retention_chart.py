"""The report's part on retention: what happened in sentences, and curves with what was thrown away."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from langgraft.evaluation.report import render
from langgraft.evaluation.retention_chart import retention_section, said


@pytest.fixture
def example() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(__file__).parent / "example_report.json").read_text(encoding="utf-8"))
    return loaded


def test_what_happened_is_said(example: dict[str, Any]) -> None:
    page = render(example)
    assert "At step 200 in-context recall fell by 40% (28% to 52%)" in page
    assert "training went back to step 100 and on from there with 35% replay." in page
    assert "Stopped early at step 400: English bits per byte rose by 6.1%" in page
    assert "The model is that of step 300." in page
    assert "去咗街市買餸" in page  # the last sample on the way to the model


def test_a_quiet_run_says_so() -> None:
    facts = {"measurements": 5, "result_step": 80, "stopped": None, "rollbacks": []}
    assert said(facts) == ["Measured 5 times; no bound was broken. The model is that of step 80."]


def test_curves_have_what_counts_and_faintly_what_was_thrown_away(example: dict[str, Any]) -> None:
    section = retention_section(example)
    assert section is not None
    (_, wide), (_, narrow) = section["charts"]
    assert wide.count("<polyline") == narrow.count("<polyline") == 18  # six series, and two ways of each that were left
    assert len(re.findall(r'<polyline [^>]*class="raw"', wide)) == 12
    assert "Change of held-out bits per byte, %" in wide
    assert [step for step, _ in section["samples"][0]["texts"]] == ["step 0", "step 200", "step 300"]


def test_without_a_watch_nothing_is_shown(example: dict[str, Any]) -> None:
    for name in ("retention", "retention_curve"):
        part = {**example["training"]}
        del part[name]
        assert retention_section({**example, "training": part}) is None
    assert "What was kept on the way" not in render({**example, "training": part})
