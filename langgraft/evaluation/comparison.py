"""Finished runs side by side: the same figures of each, and which run is better beyond noise."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraft.errors import InputError
from langgraft.evaluation import words
from langgraft.evaluation.dots import Dot, dot_chart
from langgraft.evaluation.page import Table, template
from langgraft.evaluation.report_measures import gather
from langgraft.evaluation.words import dig
from langgraft.store import atomic_write

MOST = 6  # runs, as many as there are colours
NO_DIFFERENCE = "no measurable difference"


def compare_runs(reports: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The same figures of several runs.

    A run is better beyond noise if its figure differs from every other's by more than the root of the summed
    squares of their intervals' halves: the 95% interval of a difference, with the runs taken as independent. Figures
    of the same documents vary together, so what is called a difference here is one.

    Args:
        reports: what `report.json` of each run holds.
        names: how to call them, all different.

    Returns:
        `runs` (names), `rows` (list of `{label, unit, better, values, best, verdict}`; a value is
        `{mean, low, high}`, a number, or None), `notes` (why runs cannot be compared in everything) and `warnings`
        by run.

    Raises:
        InputError: fewer than two runs, too many, or two of one name.
    """
    if not 2 <= len(reports) <= MOST or len(set(names)) < len(names):
        raise InputError(f"name between two and {MOST} different runs to compare, not {', '.join(names) or 'none'}")
    notes = list(notes_on(reports))
    rows = [_judged(row, names, comparable=not notes) for row in rows_of_runs(reports)]
    from langgraft.evaluation.cautions import cautions

    return {
        "runs": list(names),
        "bases": [report.get("base") for report in reports],
        "languages": [words.target_name(report) for report in reports],
        "rows": rows,
        "notes": notes,
        "warnings": {name: [f.problem for f in cautions(r)] for name, r in zip(names, reports, strict=True)},
        "verdict": _verdict(rows, names, notes),
    }


def write_comparison(found: dict[str, Any], folder: Path) -> Path:
    """Write `comparison.json` and `comparison.html` into `folder`; returns the page."""
    return write_both(found, render_comparison(found), Path(folder), "comparison")


def write_both(found: dict[str, Any], page: str, folder: Path, name: str) -> Path:
    """Write what was found about several runs as JSON, and its page; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"{name}.json", json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    path = folder / f"{name}.html"
    atomic_write(path, page)
    return path


def head_of(found: dict[str, Any]) -> dict[str, Any]:
    """What `runs_head.html` shows."""
    warnings = [(name, list(dict.fromkeys(said))) for name, said in found["warnings"].items() if said]
    return {"runs": found["runs"], "verdict": found["verdict"], "notes": found["notes"], "warnings": warnings}


def render_comparison(found: dict[str, Any]) -> str:
    """The page of a comparison."""
    return template("comparison.html").render(
        **head_of(found),
        facts=list(zip(found["runs"], found["bases"], found["languages"], strict=True)),
        charts=_charts(found),
        table_of=_table(found),
    )


def notes_on(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What stands in the way of comparing bits per byte: other text, another base, another language."""
    for key, what in (("base", "bases"), ("language", "languages")):
        if len({json.dumps(report.get(key), sort_keys=True) for report in reports}) > 1:
            yield f"The runs have different {what}; figures are shown, but no run is called better."
    for side in ("target", "source"):
        known = {(dig(r, "bits_per_byte", side, "documents"), dig(r, "bits_per_byte", side, "bytes")) for r in reports}
        if len(known) > 1:
            language = words.target_name(reports[0]) if side == "target" else words.source_name(reports[0])
            yield f"Bits per byte of {language} were measured on different text; no run is called better."


def rows_of_runs(reports: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Figures that at least one run has: `label`, `unit`, `better`, `values` by run; those with intervals are judged.

    Measures also have `changes`: by run, how the last model differs from the first.
    """
    target, source = words.target_name(reports[0]), words.source_name(reports[0])

    def row(label: str, unit: str, better: str | None, of: Callable[[dict[str, Any]], Any]) -> Iterator[dict[str, Any]]:
        values = [of(report) for report in reports]
        if any(value is not None for value in values):
            yield {"label": label, "unit": unit, "better": better, "values": values}

    def measured(side: str, key: str) -> Callable[[dict[str, Any]], Any]:
        return lambda report: dig(report, "bits_per_byte", side, key)

    for side, name in (("target", target), ("source", source)):
        yield from row(f"{name}, bits per byte", "bits", None, measured(side, "adapted"))
        yield from row(f"{name}, change against the base", "change", "lower", measured(side, "change"))
    yield from row(f"{target}, tokens per character", "number", "lower",
                   lambda r: dig(r, "tokens", "target", "adapted", "tokens_per_character"))  # fmt: skip
    yield from row(f"{target}, tokens saved", "share", "higher", lambda r: dig(r, "tokens", "target", "saved"))
    beyond = [{one.label: one for _, _, _, group in gather(r) for one in group} for r in reports]
    for label in dict.fromkeys(label for of in beyond for label in of):
        one = next(of[label] for of in beyond if label in of)
        values = [_last(of[label].measure) if label in of else None for of in beyond]
        changes = [_last_change(of[label].measure) if label in of else None for of in beyond]
        better = one.measure.get("better", "higher")
        yield {"label": label, "unit": one.unit, "better": better, "values": values, "changes": changes}
    yield from row("Checks failed", "number", "lower", _failed)
    yield from row("New tokens", "number", None, lambda r: dig(r, "tokenizer", "new_tokens"))
    yield from row("Training tokens", "number", None, lambda r: dig(r, "training", "tokens"))
    yield from row("Training time", "seconds", None, lambda r: dig(r, "training", "seconds"))
    yield from row("Time of all stages", "seconds", None, _seconds)


def _failed(report: dict[str, Any]) -> int | None:
    gates = words.all_gates(report)
    return sum(words.gate_status(gate) == "fail" for gate in gates) if gates else None


def _seconds(report: dict[str, Any]) -> float | None:
    times = [stage["seconds"] for stage in report.get("stages") or [] if stage.get("seconds") is not None]
    return sum(times) if times else None


def _last(measure: Mapping[str, Any]) -> Any:
    models = list((measure.get("models") or {}).values())
    return models[-1] if models else None


def _last_change(measure: Mapping[str, Any]) -> Any:
    changes = list((measure.get("changes") or {}).values())
    return changes[-1] if changes else None


def mean_of(value: Any) -> float | None:
    """A figure's mean, or the figure itself where it has no interval."""
    return value.get("mean") if isinstance(value, dict) else value


def _judged(row: dict[str, Any], names: Sequence[str], *, comparable: bool) -> dict[str, Any]:
    """A row with `best` (a run's name, or None) and `verdict`, where its values have intervals."""
    row = {key: value for key, value in row.items() if key != "changes"} | {"best": None, "verdict": ""}
    known = [
        (name, value)
        for name, value in zip(names, row["values"], strict=True)
        if isinstance(value, dict) and all(value.get(key) is not None for key in ("mean", "low", "high"))
    ]
    if not comparable or row["better"] is None or len(known) < 2:
        return row
    known.sort(key=lambda item: item[1]["mean"], reverse=row["better"] == "higher")
    (name, best), *others = known
    if all(_apart(best, other) for _, other in others):
        return row | {"best": name, "verdict": f"{name} is better"}
    close = [name, *(other_name for other_name, other in others if not _apart(best, other))]
    return row | {"verdict": f"{NO_DIFFERENCE} between {joined(close)}"}


def _apart(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    halves = [(value["high"] - value["low"]) / 2 for value in (one, other)]
    return abs(one["mean"] - other["mean"]) > math.hypot(*halves)


def joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verdict(rows: Sequence[dict[str, Any]], names: Sequence[str], notes: Sequence[str]) -> str:
    """One sentence for each language."""
    if notes:
        return "These runs cannot be ranked: " + notes[0]
    said = [f"{row['label'].split(',')[0]}: {row['verdict']}" for row in rows if row["unit"] == "change"]
    judged = [text for text in said if not text.endswith(": ")]
    return "; ".join(judged) + "." if judged else f"{joined(names)} have no figures with intervals in common."


def _charts(found: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """A chart of every unit that has intervals, wide and narrow."""
    charts = []
    for unit, axis, top in (
        ("bits", "bits per byte (lower is better)", None),
        ("share", "share of items (further right is better)", 1.0),
        ("score", "score, 0 to 100 (further right is better)", 100.0),
    ):
        rows = []
        for row in found["rows"]:
            dots = [
                Dot(name, f"run{number}", value["mean"], value.get("low"), value.get("high"))
                for number, (name, value) in enumerate(zip(found["runs"], row["values"], strict=True))
                if isinstance(value, dict) and value.get("mean") is not None
            ]
            if row["unit"] == unit and dots:
                rows.append((words.sentence(row["label"]), dots, None))
        for shape, width in (("wide", 760), ("narrow", 340)) if rows else ():
            name = f"compare-{unit}-{shape}"
            charts.append((shape, axis, dot_chart(name, axis, axis, rows, width=width, top=top, unit=unit)))
    return charts


def _table(found: dict[str, Any]) -> Table:
    columns = (("What", "text"), *((name, "number") for name in found["runs"]), ("Beyond noise", "text"))
    rows = tuple(
        (words.sentence(row["label"]), *(cell(value, row["unit"]) for value in row["values"]), row["verdict"])
        for row in found["rows"]
    )
    return Table("All figures, with 95% intervals", columns, rows)


def cell(value: Any, unit: str) -> Any:
    """A figure of a row, with its interval where it has one."""
    from markupsafe import Markup

    def written(figure: float) -> str:
        if unit == "bits":
            return f"{figure:.3f}"
        if unit == "change":
            return words.percent(figure, signed=True, fine=True)
        if unit == "seconds":
            return words.duration(figure)
        return words.percent(figure) if unit == "share" else words.number(figure)

    mean = mean_of(value)
    if mean is None:
        return "–"
    if not isinstance(value, dict) or value.get("low") is None or value.get("high") is None:
        return written(mean)
    return Markup('{} <span class="sub">{} to {}</span>').format(
        written(mean), written(value["low"]), written(value["high"])
    )
