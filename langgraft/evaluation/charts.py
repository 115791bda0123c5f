"""Charts as inline SVG: horizontal bars with whiskers, and curves over training steps or sizes.

Colours come from the page's CSS variables through classes, so one drawing serves light, dark and print. Sizes
are in the SVG's own units; the page scales a drawing to at most its natural width, so that labels stay
readable on a phone.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from langgraft.evaluation.words import number

MAX_POINTS = 400
"""Most points of a curve that are drawn: more cannot be told apart and only make the page heavy."""


@dataclass(frozen=True)
class Bar:
    """One bar; `kind` is a CSS class ("base" or "adapted"), `low` and `high` are its whisker."""

    label: str
    kind: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """One series over steps; `kind` is its CSS class, `marked` draws a dot at each point."""

    label: str
    kind: str
    points: tuple[tuple[float, float], ...]
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """One strip of a curve chart with a scale of its own."""

    title: str
    height: int
    lines: tuple[Line, ...]
    ticks: int = 4
    from_zero: bool = False


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2, 2.5 or 5 times a power of ten) from `low` to `high`."""
    if not high - low > 1e-12:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick without the zeros it does not need: `2.5`, `0.0001` -> `1e-4`, `12000` -> `12,000`."""
    if value and abs(value) < 0.001:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:,.6g}" if abs(value) < 1000 else f"{value:,.0f}"


def svg(name: str, title: str, description: str, width: int, height: float, body: Sequence[Markup]) -> Markup:
    """Wrap a drawing so that screen readers get its title and description."""
    return Markup(
        '<svg class="chart" id="{0}" role="img" aria-labelledby="{0}-t {0}-d" viewBox="0 0 {1} {2:.0f}" '
        'style="max-width:{3}px"><title id="{0}-t">{4}</title><desc id="{0}-d">{5}</desc>\n{6}\n</svg>'
    ).format(name, width, height, round(width * 1.3), title, description, Markup("\n").join(body))


def text_at(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> Markup:
    """A line of text."""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, kind, text)


def segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)


def bar_chart(
    name: str,
    title: str,
    unit: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    *,
    width: int = 400,
    write: Callable[[float], str] = number,
) -> Markup:
    """Draw horizontal bars from zero, grouped, each with its value printed and its whisker if it has one.

    Args:
        name: id of the drawing, unique on the page.
        title: what is shown, for screen readers; the description lists every value.
        unit: label of the axis.
        groups: label of each group and its bars.
        width: natural width in px.
        write: how a value is printed.
    """
    thick, gap, head, left, right = 18, 5, 24, 62, 46
    top = max((bar.high or bar.value for _, bars in groups for bar in bars), default=0)
    top = top if top > 1e-12 else 1.0
    scale = (width - left - right) / top
    height = sum(head + len(bars) * (thick + gap) + 6 for _, bars in groups)
    body = []
    for tick in ticks(0, top, 4):
        x = left + tick * scale
        body.append(segment(x, 8, x, height + 2, "grid"))
        body.append(text_at(x, height + 17, tick_text(tick), anchor="middle", kind="tick"))
    y = 0.0
    for label, bars in groups:
        body.append(text_at(0, y + 17, label, kind="group"))
        y += head
        for bar in bars:
            body += _bar(bar, y, left, scale, thick, write)
            y += thick + gap
        y += 6
    body.append(text_at(left, height + 35, unit, kind="axis"))
    spoken = "; ".join(
        f"{label}: " + ", ".join(f"{bar.label} {write(bar.value)}{_spoken(bar, write)}" for bar in bars)
        for label, bars in groups
    )
    return svg(name, title, f"{unit}. {spoken}.", width, height + 42, body)


def _spoken(bar: Bar, write: Callable[[float], str]) -> str:
    if bar.low is None or bar.high is None:
        return ""
    return f" (95% interval {write(bar.low)} to {write(bar.high)})"


def _bar(bar: Bar, y: float, left: float, scale: float, thick: int, write: Callable[[float], str]) -> list[Markup]:
    """A bar, its name before it, its whisker over its end and its value after it."""
    end, middle = left + bar.value * scale, y + thick / 2
    parts = [
        text_at(left - 8, middle + 4.5, bar.label, anchor="end", kind="name"),
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="2" class="{}"/>').format(
            left, y, max(bar.value * scale, 0), thick, bar.kind
        ),
    ]
    if bar.low is not None and bar.high is not None:
        low, high = left + bar.low * scale, left + bar.high * scale
        parts += [
            segment(low, middle, high, middle, "whisker"),
            segment(low, middle - 5, low, middle + 5, "whisker"),
            segment(high, middle - 5, high, middle + 5, "whisker"),
        ]
        end = max(end, high)
    return [*parts, text_at(end + 6, middle + 4.5, write(bar.value), kind="value")]


def smooth(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Mean over the `window` points around each point, as many of them as there are near the ends."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    half = window // 2
    smoothed = []
    for index, (x, _) in enumerate(points):
        first, last = max(index - half, 0), min(index + half + 1, len(points))
        smoothed.append((x, (sums[last] - sums[first]) / (last - first)))
    return smoothed


def thin(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Every n-th point, so that at most about `most` are left; the last one always is."""
    if len(points) <= most:
        return list(points)
    stride = math.ceil(len(points) / most)
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def curve_chart(
    name: str, title: str, description: str, panels: Sequence[Panel], *, width: int, axis: str = "training step"
) -> Markup:
    """Draw panels one under another over the same steps.

    Args:
        name: id of the drawing, unique on the page.
        title: what is shown, for screen readers.
        description: the curve in words, for screen readers.
        panels: at least one, each with at least one point.
        width: natural width in px; the number of ticks follows it.
        axis: what the steps are.
    """
    left, right, head, between = 50, 20, 24, 12
    steps = [x for panel in panels for line in panel.lines for x, _ in line.points]
    first, last = min(steps), max(steps)
    across = (width - left - right) / ((last - first) or 1)
    origin = left if last > first else (left + width - right) / 2

    def at(step: float) -> float:
        return origin + (step - first) * across

    height = sum(head + panel.height + between for panel in panels)
    body = []
    rounds = ticks(first, last, 8 if width > 500 else 4)
    marks = [(tick, at(tick)) for tick in rounds]
    y = 0.0
    for panel in panels:
        top, bottom = y + head, y + head + panel.height
        body += [segment(x, top, x, bottom, "grid") for _, x in marks]
        body += _panel(panel, top, left, width - right, at)
        y = bottom + between
    body += [text_at(x, height + 6, tick_text(tick), anchor="middle", kind="tick") for tick, x in marks]
    body.append(text_at(width - right, height + 24, axis, anchor="end", kind="axis"))
    return svg(name, title, description, width, height + 30, body)


def _panel(panel: Panel, y: float, left: float, edge: float, at: Callable[[float], float]) -> list[Markup]:
    """One panel: its title and legend, its scale, its lines."""
    values = [value for line in panel.lines for _, value in line.points]
    low, high = (0.0 if panel.from_zero else min(values)), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (low if panel.from_zero else low - margin), high + margin
    up = panel.height / (high - low)
    parts = [text_at(0, y - 9, panel.title, kind="group")]
    for tick in ticks(low, high, panel.ticks):
        ty = y + panel.height - (tick - low) * up
        parts.append(segment(left, ty, edge, ty, "grid"))
        parts.append(text_at(left - 7, ty + 4, tick_text(tick), anchor="end", kind="tick"))
    parts += _legend([line for line in panel.lines if line.label], edge, y - 9)
    for line in panel.lines:
        drawn = [(at(px), y + panel.height - (py - low) * up) for px, py in line.points]
        parts += _line(line, drawn)
    return parts


def _legend(lines: Sequence[Line], edge: float, y: float) -> list[Markup]:
    """Names of the lines with a stroke of each, ending at `edge`."""
    parts = []
    for line in reversed(lines):
        parts.append(text_at(edge, y, line.label, anchor="end", kind="name"))
        # Widths cannot be measured here: about 7 units a letter, twice that for full-width ones.
        letters = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line.label)
        edge -= 6.9 * letters + 8
        parts.append(segment(edge - 18, y - 4, edge, y - 4, line.kind))
        edge -= 32
    return parts


def _line(line: Line, drawn: Sequence[tuple[float, float]]) -> list[Markup]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    parts = [Markup('<polyline points="{}" class="{}"/>').format(path, line.kind)] if len(drawn) > 1 else []
    if line.marked or len(drawn) == 1:
        dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" class="dot {}"/>')
        parts += [dot.format(x, y, line.kind) for x, y in drawn]
    return parts
