"""The paragraph says what the figures say, and no more; warnings stand where a figure asks for them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.evaluation.cautions import cautions
from langgraft.evaluation.conclusion import conclusion, difference
from langgraft.evaluation.words import dig

EXAMPLE = Path(__file__).parent / "example_report.json"


@pytest.fixture
def example() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return loaded


def test_the_paragraph_tells_gain_kept_cheaper_and_price(example: dict[str, Any]) -> None:
    text = conclusion(example)
    for piece in (
        "On 1,000 held-out documents of Cantonese, the adapted model needs 29.0% fewer bits per byte than the base "
        "(95% interval 28.3% to 29.7%).",
        "English takes 0.6% more bits per byte than before (95% interval 0.4% to 0.8%).",
        "Cantonese text takes 53% fewer tokens, so 2.13 times as much of it fits into the same number of tokens.",
        "1 of 1 are or may be in Cantonese; of the base's, 0 of 1.",
        "This took 4,232,320 tokens of training (812 kB of new text) in 2 h 5 min, 2,000,000 of them on parallel text, "
        "1,966,080 of them on conversations.",
    ):
        assert piece in text, piece


def test_the_price_is_that_of_every_training(example: dict[str, Any]) -> None:
    example["align"] = {"tokens": 1_000, "seconds": 120.0, "target_bytes": 2_000}
    example["sft"] = {"tokens": 500, "seconds": 60.0}
    assert (
        "This took 267,740 tokens of training (814 kB of new text) in 31 min, 1,000 of them on parallel text, "
        "500 of them on conversations."
    ) in conclusion(example)
    del example["training"], example["align"]
    assert conclusion(example).endswith("This took 500 tokens of training in 1 min, 500 of them on conversations.")


def test_answers_are_those_of_the_last_model(example: dict[str, Any]) -> None:
    """What pretraining's model wrote is no longer what the run gives."""
    for item in example["generations"]:
        item["tuned"] = "hello"
        item["written_in"] = item.get("written_in", {}) | {"tuned": {"language": "en", "right": False}}
    example["generations"] *= 6
    assert "0 of 12 are or may be in Cantonese; of the base's, 0 of 6." in conclusion(example)
    assert "language" in {finding.check for finding in cautions(example)}


@given(st.floats(-0.9, 2), st.floats(0, 1), st.floats(0, 1))
def test_a_change_is_called_one_only_beyond_its_interval(mean: float, below: float, above: float) -> None:
    low, high = mean - below, mean + above
    text = difference({"mean": mean, "low": low, "high": high}, "more", "fewer")
    assert ("no measurable difference" in text) == (low <= 0 <= high)
    if low > 0:
        assert " more " in text
    if high < 0:
        assert " fewer " in text


def test_what_was_not_measured_is_said_or_left_out(example: dict[str, Any]) -> None:
    assert conclusion({}) == ""
    del example["bits_per_byte"]["source"]
    assert "Whether English was kept was not measured." in conclusion(example)
    assert "no interval was measured" in difference({"mean": -0.1}, "more", "fewer")
    assert difference({}, "more", "fewer") == ""
    example["bits_per_byte"]["target"]["change"] = {"mean": -0.01, "low": -0.03, "high": 0.01}
    assert "predicts Cantonese text as well as the base: no measurable difference" in conclusion(example)
    example["tokens"]["target"]["saved"] = 0.0
    assert "Cantonese text takes as many tokens as before." in conclusion(example)
    example["tokens"]["target"]["saved"] = -0.2
    assert "Cantonese text takes 20% more tokens than before." in conclusion(example)


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("gates", [{"name": "a", "passed": False, "value": "1", "bound": "0"}], "gates"),
        ("bits_per_byte.target.change", {"mean": 0.1, "low": 0.05, "high": 0.15}, "gain"),
        ("bits_per_byte.source.change", {"mean": 0.1, "low": 0.05, "high": 0.15}, "forgetting"),
        ("bits_per_byte.source", None, "unmeasured"),
        ("bits_per_byte.source.change", {"mean": 0.0, "low": -0.2, "high": 0.2}, "wide-intervals"),
        ("bits_per_byte.source.documents", 3, "little-data"),
        ("training.tokens", 2048, "little-data"),
        ("training.target_bytes", 10**10, "little-data"),
        ("tokens.target.saved", 0.0, "fertility"),
        ("tokenizer.new_tokens", 0, "fertility"),
        (
            "generations",
            [{"language": "yue", "written_in": {"adapted": {"language": "en", "right": False}}}] * 4,
            "language",
        ),
    ],
)
def test_every_warning_has_its_figure(example: dict[str, Any], key: str, value: Any, check: str) -> None:
    assert cautions(example) == []
    *way, last = key.split(".")
    inner = dig(example, *way) if way else example
    inner[last] = value
    if key == "tokenizer.new_tokens":
        example["tokens"]["target"]["adapted"]["bytes_per_token"] = 1.2
    if key == "training.target_bytes":
        example["corpus"]["target"]["splits"] = {"train": {"bytes": 10**6}}
    found = cautions(example)
    assert [finding.check for finding in found] == [check]
    assert found[0].problem
    assert found[0].fix


def test_an_empty_report_warns_of_nothing() -> None:
    assert cautions({}) == []


def test_few_or_undecided_answers_are_not_judged(example: dict[str, Any]) -> None:
    wrong = {"language": "yue", "written_in": {"adapted": {"language": "en", "right": False}}}
    none = {"language": "yue", "written_in": {"adapted": {"language": None, "right": None}}}
    example["generations"] = [wrong] * 3 + [none] * 5
    assert cautions(example) == []
