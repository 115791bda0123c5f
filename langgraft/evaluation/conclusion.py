"""The verdict at length: one paragraph on gain, what was kept, what text costs now, answers, and the price paid."""

from typing import Any

from langgraft.evaluation.words import (
    dig,
    duration,
    number,
    percent,
    result_of,
    sentence,
    size,
    source_name,
    target_name,
    text_in,
)

NONE = "no measurable difference"


def conclusion(report: dict[str, Any]) -> str:
    """Plain sentences from the figures that are there; empty where nothing was measured.

    A change whose 95% interval holds zero is called no measurable difference, whatever its mean.
    """
    parts = (_gain(report), _kept(report), _cheaper(report), _answers(report), _price(report))
    return " ".join(f"{sentence(part)}." for part in parts if part)


def difference(change: dict[str, Any], worse: str, better: str) -> str:
    """A relative change in words, with its interval: negative is `better`.

    >>> difference({"mean": -0.3, "low": -0.35, "high": -0.25}, "more", "fewer")
    '30.0% fewer (95% interval 25.0% to 35.0%)'
    """
    mean, low, high = (change.get(key) for key in ("mean", "low", "high"))
    if mean is None:
        return ""
    if low is None or high is None:
        return f"{percent(abs(mean), fine=True)} {better if mean < 0 else worse} (no interval was measured)"
    signed = f"{percent(low, signed=True, fine=True)} to {percent(high, signed=True, fine=True)}"
    if low <= 0 <= high:
        return f"{NONE} ({percent(mean, signed=True, fine=True)}, 95% interval {signed})"
    ends = sorted((abs(low), abs(high)))
    plain = f"{percent(ends[0], fine=True)} to {percent(ends[1], fine=True)}"
    return f"{percent(abs(mean), fine=True)} {better if mean < 0 else worse} (95% interval {plain})"


def _gain(report: dict[str, Any]) -> str:
    side = dig(report, "bits_per_byte", "target") or {}
    change = side.get("change") or {}
    said = difference(change, "more bits per byte than the base", "fewer bits per byte than the base")
    if not said:
        return ""
    on = f"on {number(side['documents'])} held-out documents of {target_name(report)}" if side.get("documents") else ""
    text = text_in(target_name(report))
    if said.startswith(NONE):
        return f"{on or f'for {text}'}, the adapted model predicts {text} as well as the base: {said}".strip(", ")
    return f"{on}{', ' if on else ''}the adapted model needs {said}"


def _kept(report: dict[str, Any]) -> str:
    change = dig(report, "bits_per_byte", "source", "change") or {}
    said = difference(change, "more bits per byte than before", "fewer bits per byte than before")
    name = source_name(report)
    if not said:
        return f"whether {name} was kept was not measured" if dig(report, "bits_per_byte", "target") else ""
    if said.startswith(NONE):
        return f"{name} is kept: {said}"
    return f"{name} takes {said}"


def _cheaper(report: dict[str, Any]) -> str:
    saved = dig(report, "tokens", "target", "saved")
    if saved is None:
        return ""
    text = text_in(target_name(report))
    if abs(saved) < 0.0005:
        return f"{text} takes as many tokens as before"
    if saved < 0:
        return f"{text} takes {percent(-saved)} more tokens than before"
    more = (
        f", so {number(1 / (1 - saved))} times as much of it fits into the same number of tokens" if saved < 1 else ""
    )
    return f"{text} takes {percent(saved)} fewer tokens{more}"


def _answers(report: dict[str, Any]) -> str:
    """How many answers are in the new language, of the base and of the run's result."""
    code, counts = dig(report, "language", "code"), []
    items = [item.get("written_in") or {} for item in report.get("generations") or [] if item.get("language") == code]
    for key_of in (lambda _: "base", result_of):
        marks = [dig(item, key_of(item), "right") for item in items]
        judged = [mark for mark in marks if mark is not None]
        counts.append((sum(judged), len(judged)))
    (before, of_before), (after, of_after) = counts
    if not of_after or not of_before:
        return ""
    name = target_name(report)
    return (
        f"of the answers side by side, {after} of {of_after} are or may be in {name}; of the base's, "
        f"{before} of {of_before}"
    )


def _price(report: dict[str, Any]) -> str:
    parts = {"": "training", "on parallel text": "align", "on conversations": "sft"}
    found = {what: report.get(part) or {} for what, part in parts.items()}
    tokens, text, seconds = (
        sum(part.get(key) or 0 for part in found.values()) for key in ("tokens", "target_bytes", "seconds")
    )
    if not tokens:
        return ""
    on = f" ({size(text)} of new text)" if text else ""
    took = f" in {duration(seconds)}" if seconds else ""
    counts = {what: part.get("tokens") for what, part in found.items() if what}
    of_them = "".join(f", {number(count)} of them {what}" for what, count in counts.items() if count)
    return f"this took {number(tokens)} tokens of training{on}{took}{of_them}"
