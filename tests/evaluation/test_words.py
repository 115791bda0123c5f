"""What a report says: plain figures, honest verdicts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.evaluation import words
from langgraft.evaluation.words import cards, direction, duration, number, percent, size, verdict


def change(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"change": {"mean": mean, "low": low, "high": high}}


def good() -> dict[str, Any]:
    return {
        "language": {"code": "yue", "name": "Cantonese"},
        "source_language": {"code": "en", "name": "English"},
        "bits_per_byte": {"target": change(-0.29, -0.3, -0.28), "source": change(0.006, 0.004, 0.008)},
        "tokens": {"target": {"saved": 0.53}},
        "gates": [{"name": "English bits per byte at most 1.5% above the base", "passed": True, "bound": "+1.5%"}],
    }


@pytest.mark.parametrize(
    "share, options, text",
    [
        (0.534, {}, "53%"),
        (-0.0062, {}, "−0.6%"),
        (0.0062, {"signed": True}, "+0.6%"),
        (-0.00001, {"signed": True}, "0%"),
        (0.0999, {}, "10%"),
        (0.534, {"fine": True}, "53.4%"),
    ],
)
def test_percent(share: float, options: dict[str, bool], text: str) -> None:
    assert percent(share, **options) == text


@pytest.mark.parametrize(
    "value, text",
    [(None, "–"), (0, "0"), (12345, "12,345"), (3.5931, "3.59"), (158.1, "158"), (14.25, "14.2"),
     (-2.5, "−2.50"), (0.0001, "0.0001"), (0.0, "0.00"), (2_000_000.0, "2,000,000")],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(None, "–"), (0.42, "0.4 s"), (12.3, "12 s"), (59.6, "1 min"), (75, "1 min 15 s"), (840, "14 min"),
     (3599, "1 h"), (3675, "1 h 1 min"), (7200, "2 h")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "count, text",
    [(None, "–"), (12, "12 bytes"), (1500, "1.5 kB"), (999_700, "1.0 MB"), (271_000_000, "271 MB"),
     (4_200_000_000, "4.2 GB")],
)  # fmt: skip
def test_size(count: float | None, text: str) -> None:
    assert size(count) == text


@given(st.floats(-1e12, 1e12))
def test_figures_never_show_a_negative_zero(value: float) -> None:
    assert percent(value, signed=True) not in ("−0%", "+0%", "−0.0%", "+0.0%")


def test_everything_passed() -> None:
    assert verdict(good()) == (
        "pass",
        "Cantonese text now takes 53% fewer tokens and is predicted 29% better; "
        "English is within 0.6% of the base; every check passed.",
    )


def test_a_failed_gate_is_named_and_the_loss_is_called_one() -> None:
    report = good()
    report["bits_per_byte"]["source"] = change(0.042, 0.038, 0.046)
    report["gates"][0]["passed"] = False
    status, text = verdict(report)
    assert status == "fail"
    assert "English is predicted 4.2% worse" in text
    assert "1 of 1 checks failed: “English bits per byte at most 1.5% above the base”." in text


def test_an_old_language_that_got_better_is_said_to() -> None:
    report = good()
    report["bits_per_byte"]["source"] = change(-0.095, -0.115, -0.077)
    assert "English is predicted 9.5% better" in verdict(report)[1]
    report["bits_per_byte"]["source"] = change(-0.01, -0.03, 0.01)
    assert "English is within 1.0% of the base" in verdict(report)[1]


def test_many_failed_gates_are_counted() -> None:
    report = good()
    report["gates"] = [{"name": f"gate {index}", "passed": False} for index in range(5)]
    assert "5 of 5 checks failed: “gate 0”, “gate 1”, “gate 2” and 2 more." in verdict(report)[1]


def test_a_gain_that_chance_explains_is_not_claimed() -> None:
    report = good()
    report["bits_per_byte"]["target"] = change(-0.01, -0.03, 0.01)
    status, text = verdict(report)
    assert status == "fail"
    assert "shows no measurable difference in how well it is predicted" in text
    report["bits_per_byte"]["target"] = change(0.05, 0.03, 0.07)
    assert "is predicted 5.0% worse" in verdict(report)[1]


def test_more_tokens_and_as_many_tokens() -> None:
    report = good()
    report["tokens"]["target"]["saved"] = -0.04
    assert "takes 4.0% more tokens" in verdict(report)[1]
    assert {card.key: card.status for card in cards(report)}["cheaper"] == "fail"
    report["tokens"]["target"]["saved"] = 0.0
    assert "takes as many tokens as before" in verdict(report)[1]
    assert {card.key: card.status for card in cards(report)}["cheaper"] == "open"


def test_a_run_that_stopped_early_claims_nothing_more() -> None:
    report = good()
    del report["bits_per_byte"]
    status, text = verdict(report)
    assert status == "pass"
    assert text == (
        "Cantonese text now takes 53% fewer tokens; how well it is predicted was not measured; "
        "every check so far passed."
    )
    del report["tokens"]
    assert verdict(report) == ("open", "No model has been measured yet; every check so far passed.")
    assert verdict({"name": "x"}) == ("open", "Nothing has been measured in this run yet.")


def test_without_gates_the_verdict_says_so() -> None:
    report = good()
    report["gates"] = []
    status, text = verdict(report)
    assert status == "open"
    assert text.endswith("no checks were made.")


def test_unjudged_gates_are_counted() -> None:
    report = good()
    report["gates"].append({"name": "in-context probe", "passed": None})
    status, text = verdict(report)
    assert status == "open"
    assert text.endswith("1 of 2 checks passed, 1 not judged.")


def test_an_unchanged_source_language() -> None:
    report = good()
    report["bits_per_byte"]["source"] = change(0.0, 0.0, 0.0)
    assert "English is unchanged;" in verdict(report)[1]


def test_without_a_bound_only_a_measurable_loss_is_left_open() -> None:
    report = good()
    report["gates"] = []
    status = {card.key: card.status for card in cards(report)}
    assert status == {"better": "pass", "kept": "open", "cheaper": "pass"}
    assert "English is predicted 0.6% worse" in verdict(report)[1]
    report["bits_per_byte"]["source"] = change(0.001, -0.002, 0.004)
    assert {card.key: card.status for card in cards(report)}["kept"] == "pass"


def test_a_gate_marked_for_a_card_decides_it() -> None:
    report = good()
    report["gates"] = [
        {"name": "saves at least 60%", "card": "cheaper", "passed": False, "bound": "60%"},
        {"name": "keeps English", "card": "kept", "passed": False, "bound": "+0.5%"},
        {"name": "gains enough", "card": "better", "passed": False, "bound": "−40%"},
    ]
    made = {card.key: card for card in cards(report)}
    assert {card.status for card in made.values()} == {"fail"}
    assert "asked for: 60%" in made["cheaper"].notes
    assert "allowed: +0.5%" in made["kept"].notes


def test_a_change_without_an_interval_is_shown_but_not_judged() -> None:
    report = {"bits_per_byte": {"target": {"change": {"mean": -0.1}}, "source": {"change": {"mean": 0.1}}}}
    assert [card.status for card in cards(report)] == ["open", "open"]
    assert verdict(report)[1].startswith("Text in the new language now is predicted 10% better")


def test_tokenizer_gates_count_once() -> None:
    gate = {"name": "ids unchanged", "passed": True}
    report = {"gates": [gate], "tokenizer": {"gates": [gate, {"name": "round trip", "passed": True}]}}
    assert [found["name"] for found in words.all_gates(report)] == ["ids unchanged", "round trip"]
    assert words.all_gates(report)[1]["stage"] == "tokenizer"


@pytest.mark.parametrize(
    "code, scripts, text, expected",
    [
        ("fa", None, "", "rtl"),
        ("xx", ["Arabic"], "latin", "rtl"),
        ("en", None, "سلام", "ltr"),
        ("qqq", None, "سلام a", "rtl"),
        (None, None, "hello", "ltr"),
        (None, None, "", "ltr"),
    ],
)
def test_direction(code: str | None, scripts: list[str] | None, text: str, expected: str) -> None:
    assert direction(code, scripts, text) == expected
