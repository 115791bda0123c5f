"""A chart of dots with intervals, one row of dots for each thing measured; the mark of chance where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from langgraft.evaluation.charts import segment, svg, text_at, tick_text, ticks


@dataclass(frozen=True)
class Dot:
    """A figure of one model; `kind` is a CSS class ("base" or "adapted"), `low` and `high` its interval."""

    label: str
    kind: str
    value: float
    low: float | None = None
    high: float | None = None


def dot_chart(
    name: str,
    title: str,
    axis: str,
    rows: Sequence[tuple[str, Sequence[Dot], float | None]],
    *,
    width: int,
    top: float | None = None,
    unit: str = "share",
) -> Markup:
    """Draw a row for each thing measured: its label above, under it a dot and an interval for each model.

    Args:
        name: id of the drawing, unique on the page.
        title: what is shown, for screen readers; the description lists every value.
        axis: label of the axis.
        rows: label, dots, and the level of chance or None.
        width: natural width in px.
        top: end of the axis; the largest value if None.
        unit: "share" writes ticks as percentages.
    """
    left, right, head, line = 8, 14, 21, 15
    end = top or max(max(dot.high or dot.value for dot in dots) for _, dots, _ in rows) * 1.05 or 1.0
    scale = (width - left - right) / end

    def written(value: float) -> str:
        return f"{100 * value:.0f}%" if unit == "share" else tick_text(round(value, 3))

    height = sum(head + line * len(dots) + 8 for _, dots, _ in rows)
    body: list[Markup] = []
    for tick in ticks(0, end, 5 if width > 500 else 4):
        x = left + tick * scale
        body.append(segment(x, 4, x, height + 2, "grid"))
        body.append(text_at(x, height + 17, written(tick), anchor="middle", kind="tick"))
    y = 0.0
    for label, dots, chance in rows:
        body.append(text_at(0, y + 15, label, kind="group"))
        y += head
        if chance is not None:
            x = left + chance * scale
            body.append(segment(x, y - 1, x, y + line * len(dots) + 1, "chance"))
        for dot in dots:
            body += _dot(dot, left, scale, y + line / 2, end)
            y += line
        y += 8
    body.append(text_at(left, height + 34, axis, kind="axis"))
    spoken = "; ".join(
        f"{label}: " + ", ".join(f"{dot.label} {written(dot.value)}" for dot in dots) for label, dots, _ in rows
    )
    return svg(name, title, f"{axis}. {spoken}.", width, height + 40, body)


def _dot(dot: Dot, left: float, scale: float, y: float, end: float) -> list[Markup]:
    parts = []
    if dot.low is not None and dot.high is not None:
        low, high = left + max(dot.low, 0) * scale, left + min(dot.high, end) * scale
        parts.append(segment(low, y, high, y, f"range {dot.kind}"))
    circle = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.5" class="point {}"/>')
    return [*parts, circle.format(left + dot.value * scale, y, dot.kind)]
