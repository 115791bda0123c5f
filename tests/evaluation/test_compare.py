"""Base against adapted: the same texts for both, and gates that fail at their bounds."""

from pathlib import Path
from typing import Any

import pytest
from command import Finished
from pico import CANTONESE, sentences

from langgraft.errors import CorpusError
from langgraft.evaluation.compare import Bounds, compare, gates
from langgraft.text import language


def side(change: float, *, low: float | None = None, high: float | None = None, saved: float = 0.0) -> dict[str, Any]:
    """A comparison with these figures."""
    interval = {"mean": change, "low": change if low is None else low, "high": change if high is None else high}
    return {"bits_per_byte": {"change": interval}, "tokens": {"saved": saved}}


def judged(target: dict[str, Any], source: dict[str, Any] | None, **bounds: float) -> list[bool]:
    return [gate["passed"] for gate in gates(target, source, Bounds(**bounds), "Cantonese", "English")]


def test_a_gain_must_reach_its_bound_and_be_certain() -> None:
    assert judged(side(-0.28), None, target_gain=0.28) == [True]
    assert judged(side(-0.279), None, target_gain=0.28) == [False]
    assert judged(side(-0.30, low=-0.6, high=0.01), None, target_gain=0.28) == [False]


def test_a_loss_must_stay_within_its_bound() -> None:
    assert judged(side(-1), side(0.015), source_loss=0.015) == [True]
    assert judged(side(-1), side(0.016), source_loss=0.015) == [False]
    assert judged(side(-1), None, source_loss=0.015) == []


def test_tokens_saved_must_reach_the_bound() -> None:
    assert judged(side(0, saved=0.5), None, tokens_saved=0.5) == [True]
    assert judged(side(0, saved=0.49), None, tokens_saved=0.5) == [False]


def test_no_bound_is_no_gate_and_every_gate_says_what_it_found() -> None:
    assert judged(side(0.5), side(0.5)) == []
    (gate,) = gates(side(-0.3), None, Bounds(target_gain=0.28), "Cantonese", "English")
    assert gate["name"] == "Cantonese bits per byte at least 28% below the base"
    assert gate["value"] == "-30.0% (-30.0% to -30.0%)"


def test_a_model_against_itself_does_not_change(pico: Path) -> None:
    found = compare(pico, pico, CANTONESE, language("yue"), resamples=200, threads=1)
    assert found["bits_per_byte"]["change"]["mean"] == 0
    assert found["bits_per_byte"]["change"]["high"] == 0
    assert found["tokens"]["saved"] == 0
    assert found["bits_per_byte"]["bytes"] == sum(len(text.encode()) for text in CANTONESE)


def test_a_trained_model_is_better_and_cheaper(finished: Finished) -> None:
    base, adapted = finished.recipe.parent.parent / "base", finished.stage("pretrain") / "model"
    found = compare(base, adapted, sentences(30), language("yue"), resamples=200, threads=1)
    bits = found["bits_per_byte"]
    assert bits["change"]["mean"] == pytest.approx(bits["adapted"]["mean"] / bits["base"]["mean"] - 1)
    assert bits["change"]["high"] < 0
    assert found["tokens"]["saved"] > 0
    assert len(found["example"]["adapted"]) < len(found["example"]["base"])


def test_no_text_is_refused(pico: Path) -> None:
    with pytest.raises(CorpusError):
        compare(pico, pico, [], language("yue"))
