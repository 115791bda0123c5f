"""The report's part on retention: what was watched while training went on, and what came of it."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from langgraft.evaluation import words
from langgraft.evaluation.charts import Line, Panel, curve_chart, thin
from langgraft.evaluation.words import dig, number

PANELS = (
    # title, and the side and value of each line; values are shares
    ("Change of held-out bits per byte, %", (("target", "target_change"), ("source", "source_change"))),
    ("In-context recall in the old language, %", (("", "in_context"),)),
    (
        "Prompts continued in their own language, %",
        (("target", "target_right_language"), ("source", "source_right_language")),
    ),
    ("New tokens predicted where the text has them, %", (("", "new_tokens_predicted"),)),
)
BROKEN = "a bound was broken"  # where it is not said which
KINDS = {"target": "adapted-line", "source": "base-line", "": "adapted-line"}


def retention_section(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the page shows of a run that was watched: sentences, the chart in two widths, samples; else None."""
    section, curve = dig(report, "training", "retention"), dig(report, "training", "retention_curve")
    rows = [row for row in curve or [] if isinstance(row.get("step"), int) and row.get("values")]
    if not section or not rows:
        return None
    names = {"target": words.target_name(report), "source": words.source_name(report), "": ""}
    charts = [
        (shape, _chart(f"chart-retention-{shape}", rows, section, names, width))
        for shape, width in (("wide", 860), ("narrow", 360))
    ]
    return {
        "said": said(section),
        "charts": [(shape, chart) for shape, chart in charts if chart],
        "samples": _samples(report, rows),
    }


def said(section: dict[str, Any]) -> list[str]:
    """What happened, a sentence each: `section` is `retention` of the stage's summary."""
    found = [
        f"At step {number(back.get('at'))} {back.get('why') or BROKEN}: training went back to step "
        f"{number(back.get('to'))} and on from there with {words.percent(back.get('ratio') or 0)} replay."
        for back in section.get("rollbacks") or []
    ]
    stopped = section.get("stopped")
    if stopped:
        found.append(
            f"Stopped early at step {number(stopped.get('at'))}: {stopped.get('why') or BROKEN}. The model is that of "
            f"step {number(stopped.get('result_step'))}."
        )
    if not found:
        found.append(
            f"Measured {number(section.get('measurements'))} times; no bound was broken. The model is that of step "
            f"{number(section.get('result_step'))}."
        )
    return found


def _chart(
    name: str, curve: Sequence[dict[str, Any]], section: dict[str, Any], names: dict[str, str], width: int
) -> Markup | None:
    panels = []
    for title, series in PANELS:
        lines = []
        for side, key in series:
            kept, thrown = _ways(curve, key)
            if kept:
                label = words.sentence(names[side]) if side else ""
                lines.append(Line(label, KINDS[side], tuple(thin(kept)), marked=True))
            # What was turned back from, or thrown away at a stop, is drawn faintly and has no name.
            lines += [Line("", "raw", tuple(thin(points)), marked=True) for points in thrown]
        if lines:
            panels.append(Panel(title, 96, tuple(lines), ticks=3))
    if not panels:
        return None
    text = f"{len(curve)} measurements. {' '.join(said(section))}"
    return curve_chart(name, "What was kept while training went on", text, panels, width=width)


def _ways(
    curve: Sequence[dict[str, Any]], key: str
) -> tuple[list[tuple[float, float]], list[list[tuple[float, float]]]]:
    """Points on the way to the model, and those of each way that was left, from where it left."""
    known = [row for row in curve if isinstance(row["values"].get(key), int | float)]
    kept = [(row["step"], 100 * row["values"][key]) for row in known if row.get("kept")]
    thrown = []
    for attempt in sorted({row.get("attempt") or 0 for row in known}):
        left = [
            (row["step"], 100 * row["values"][key])
            for row in known
            if not row.get("kept") and (row.get("attempt") or 0) == attempt
        ]
        if left:
            thrown.append([*[point for point in kept if point[0] < left[0][0]][-1:], *left])
    return kept, thrown


def _samples(report: dict[str, Any], curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the first prompt of each language was continued at the first, middle and last measurement that counts."""
    rows = [row for row in curve if row["kept"] and row.get("generations")]
    if not rows:
        return []
    chosen = [rows[at] for at in sorted({0, len(rows) // 2, len(rows) - 1})]
    target = dig(report, "language", "code")
    found = []
    for code in dict.fromkeys(sample.get("language") for sample in chosen[0]["generations"]):
        written = [
            (row["step"], sample)
            for row in chosen
            if (sample := next((each for each in row["generations"] if each.get("language") == code), None))
        ]
        scripts = dig(report, "language", "scripts") if code == target else None
        prompt = str(written[0][1].get("prompt") or "")
        found.append(
            {
                "prompt": prompt,
                "lang": code or "und",
                "dir": words.direction(code, scripts, prompt),
                "texts": [(f"step {number(step)}", str(sample.get("text") or "")) for step, sample in written],
            }
        )
    return found
