"""The report's training section: what was trained, and the curves."""

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from langgraft.evaluation import words
from langgraft.evaluation.charts import Line, Panel, curve_chart, smooth, thin
from langgraft.evaluation.retention_chart import retention_section
from langgraft.evaluation.words import dig, number


def training(report: dict[str, Any]) -> dict[str, Any] | None:
    """Steps, tokens, time and speed, and the curves."""
    section = report.get("training")
    if not section:
        return None
    replay, speed = section.get("replay_ratio"), section.get("tokens_per_second")
    text, seconds = section.get("target_bytes"), section.get("seconds")
    facts = (
        ("Steps", words.count(section.get("steps"))),
        ("Tokens", words.count(section.get("tokens"))),
        ("New-language text", None if text is None else words.size(text)),
        ("Replay of the old language", None if replay is None else words.percent(replay)),
        ("Time", None if seconds is None else words.duration(seconds)),
        ("Speed", None if speed is None else f"{number(speed)} tokens/s"),
    )
    kept = [(label, value) for label, value in facts if value is not None]
    charts = _curves(report, section.get("curve") or [])
    retention = retention_section(report)
    return {"facts": kept, "charts": charts, "retention": retention} if kept or charts or retention else None


def align(report: dict[str, Any]) -> dict[str, Any] | None:
    """What was trained on parallel text, in which formats, and what translating costs before and after."""
    section = report.get("align")
    if not section:
        return None
    pairs, replay = section.get("pairs") or {}, section.get("replay_ratio")
    shares = {name: part.get("share") for name, part in (section.get("formats") or {}).items()}
    left_out = [
        f"{number(count)} {reason.replace('_', ' ')}" for reason, count in (pairs.get("left_out") or {}).items()
    ]
    text = [f"{name.replace('_', ' ')} {words.percent(share)}" for name, share in shares.items() if share is not None]
    facts = (
        ("Pairs learned from", words.count(pairs.get("used"))),
        ("Pairs left out", ", ".join(left_out) or None),
        ("New text", ", ".join(text) or None),
        ("Steps", words.count(section.get("steps"))),
        ("Tokens", words.count(section.get("tokens"))),
        ("Replay of the old language", None if replay is None else words.percent(replay)),
        *_translation(report, section.get("translation") or {}),
    )
    kept = [(label, value) for label, value in facts if value is not None]
    return {"facts": kept} if kept else None


def _translation(report: dict[str, Any], found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Bits per byte of held-out translations, each way."""
    for way, name in (("to_target", words.target_name(report)), ("to_source", words.source_name(report))):
        before, after = (dig(found, way, "models", one, "mean") for one in ("before", "after"))
        verdict = dig(found, way, "changes", "after", "verdict")
        if before is not None and after is not None:
            text = f"{number(before)} to {number(after)} bits per byte of unseen pairs"
            yield f"Translation into {name}", f"{text}: {verdict}" if verdict else text


def _curves(report: dict[str, Any], curve: Sequence[dict[str, Any]]) -> list[tuple[str, Markup]]:
    """The curve drawn twice, for a wide screen and for a phone; the page shows one of them."""
    panels = _panels(report, curve)
    if not panels:
        return []
    losses = _series(curve, "loss")
    text = f"Steps {number(curve[0].get('step'))} to {number(curve[-1].get('step'))}."
    if losses:
        text += f" Training loss from {number(losses[0][1])} to {number(losses[-1][1])} nats per token."
    for line in (line for panel in panels[1:] for line in panel.lines if line.label):
        text += f" {line.label}: {number(line.points[0][1])} to {number(line.points[-1][1])} bits per byte."
    shapes = (("wide", 860), ("narrow", 360))
    return [
        (shape, curve_chart(f"chart-loss-{shape}", "Training curve", text, panels, width=width))
        for shape, width in shapes
    ]


def _panels(report: dict[str, Any], curve: Sequence[dict[str, Any]]) -> list[Panel]:
    """Loss, bits per byte on held-out text, and learning rate: those the curve holds."""
    panels = []
    losses = _series(curve, "loss")
    if losses:
        raw = Line("raw", "raw", tuple(thin(losses)))
        window = max(3, len(losses) // 12)
        mean = Line("smoothed", "adapted-line", tuple(thin(smooth(losses, window))))
        panels.append(Panel("Training loss", 170, (raw, mean) if len(losses) > 4 else (raw,)))
    held_out = tuple(
        Line(words.sentence(name), kind, tuple(thin(points)), marked=len(points) <= 60)
        for side, name, kind in (
            ("target", words.target_name(report), "adapted-line"),
            ("source", words.source_name(report), "base-line"),
        )
        if (points := _held_out(curve, side))
    )
    if held_out:
        panels.append(Panel("Held-out bits per byte", 110, held_out, ticks=3))
    rates = _series(curve, "learning_rate")
    if rates:
        line = Line("", "rate", tuple(thin(rates)))
        panels.append(Panel("Learning rate", 46, (line,), ticks=2, from_zero=True))
    return panels


def _series(curve: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the points that have both."""
    return [
        (point["step"], point[key])
        for point in curve
        if point.get("step") is not None and isinstance(point.get(key), int | float)
    ]


def _held_out(curve: Sequence[dict[str, Any]], side: str) -> list[tuple[float, float]]:
    """Held-out bits per byte: a number is the new language's, a dict may hold both."""
    flat = []
    for point in curve:
        value = point.get("bits_per_byte")
        both = value if isinstance(value, dict) else {"target": value}
        flat.append({"step": point.get("step"), side: both.get(side)})
    return _series(flat, side)
