"""Several runs of one recipe with other seeds as one result: what the recipe reaches, and how far chance moves it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from langgraft.errors import InputError
from langgraft.evaluation import words
from langgraft.evaluation.cautions import cautions
from langgraft.evaluation.comparison import cell, head_of, mean_of, notes_on, rows_of_runs, write_both
from langgraft.evaluation.page import Table, template
from langgraft.evaluation.report_measures import VERDICTS, change_text
from langgraft.evaluation.stats import Better, Interval, verdict

LEVEL = 0.95


def aggregate_runs(
    reports: Sequence[dict[str, Any]], names: Sequence[str], fields: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Mean and spread of every figure over runs with other seeds.

    The 95% interval of a mean has two parts, summed in squares: Student's t over the runs, and the mean half of the
    runs' own intervals over documents or items, since all runs share those and more seeds say nothing of others. With
    two or three runs t is wide (12.7 and 4.3 standard errors): that is what so few runs can say.

    Args:
        reports: what `report.json` of each run holds.
        names: how to call them, all different.
        fields: the recipe's fields of each run, to see that only seeds differ.

    Returns:
        `runs`, `rows` (list of `{label, unit, better, values, mean, spread, low, high, change}`: `spread` is the
        standard deviation over runs, `change` against the base has `{mean, spread, low, high, verdict}` or is None),
        `seeds` (by run, what differs), `notes`, `warnings` by run, `bases`, `languages` and `verdict`.

    Raises:
        InputError: fewer than two runs, two of one name, or runs that differ in more than their seeds.
    """
    if len(reports) < 2 or len(set(names)) < len(names):
        raise InputError(f"name two or more different runs to take together, not {', '.join(names) or 'none'}")
    seeds = _seeds(fields, names)
    rows = [_together(row) for row in rows_of_runs(reports)]
    notes = [note for note in notes_on(reports) if "different text" in note]
    if fields and not any(seeds.values()):
        notes.append("All runs were made with the same seeds: their spread says nothing of other seeds.")
    return {
        "runs": list(names),
        "bases": [report.get("base") for report in reports],
        "languages": [words.target_name(report) for report in reports],
        "seeds": seeds,
        "rows": rows,
        "notes": notes,
        "warnings": {name: [f.problem for f in cautions(r)] for name, r in zip(names, reports, strict=True)},
        "verdict": _verdict(rows, len(reports)),
    }


def write_aggregate(found: dict[str, Any], folder: Path) -> Path:
    """Write `aggregate.json` and `aggregate.html` into `folder`; returns the page."""
    return write_both(found, render_aggregate(found), Path(folder), "aggregate")


def render_aggregate(found: dict[str, Any]) -> str:
    """The page of several runs taken together."""
    return template("aggregate.html").render(
        **head_of(found),
        facts=[(name, ", ".join(f"{key} {value}" for key, value in of.items())) for name, of in found["seeds"].items()],
        table_of=_table(found),
    )


def over_runs(values: Sequence[Any]) -> dict[str, float]:
    """Mean over runs, their standard deviation, and the interval that `aggregate_runs` describes.

    Args:
        values: of each run a number, or `{mean, low, high}`; at least two.
    """
    from scipy import stats

    means = np.array([mean_of(value) for value in values], dtype=np.float64)
    spread = float(means.std(ddof=1)) if np.ptp(means) else 0.0  # rounding is no spread
    runs = float(stats.t.ppf((1 + LEVEL) / 2, len(means) - 1)) * spread / math.sqrt(len(means))
    within = [(v["high"] - v["low"]) / 2 for v in values if isinstance(v, dict) and v.get("high") is not None]
    half = math.hypot(runs, sum(within) / len(within) if within else 0.0)
    mean = float(means.mean())
    return {"mean": mean, "spread": spread, "low": mean - half, "high": mean + half}


def _together(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a comparison, its runs taken together; figures that some run lacks have no mean."""
    found = {key: row[key] for key in ("label", "unit", "better")} | {"values": [mean_of(v) for v in row["values"]]}
    whole: dict[str, float | None] = {"mean": None, "spread": None, "low": None, "high": None}
    if all(value is not None for value in found["values"]):
        whole = {**whole, **over_runs(row["values"])}
    changes = row["values"] if row["unit"] == "change" else row.get("changes") or [None]
    change = None
    if row["better"] is not None and all(mean_of(one) is not None for one in changes) and len(changes) > 1:
        found_change = over_runs(changes)
        interval = Interval(found_change["mean"], found_change["low"], found_change["high"])
        change = {**found_change, "verdict": verdict(interval, cast(Better, row["better"]))}
    return {**found, **whole, "change": change}


def _seeds(fields: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By run, the fields that differ; all of them are seeds."""
    different = {
        key for of in fields for key in of if len({json.dumps(one.get(key), sort_keys=True) for one in fields}) > 1
    }
    others = sorted(key for key in different if key.rpartition(".")[2] != "seed")
    if others:
        values = ", ".join(f"{one.get(others[0], 'the default')}" for one in fields)
        raise InputError(
            f"these runs differ in more than their seeds: {others[0]} is {values}; "
            "leave out --aggregate to compare them side by side"
        )
    every = fields or [{}] * len(names)
    return {name: {key: of.get(key, 0) for key in sorted(different)} for name, of in zip(names, every, strict=True)}


def _verdict(rows: Sequence[dict[str, Any]], runs: int) -> str:
    """A sentence on each language, in words that a change within noise gets too."""
    said = []
    for row in rows:
        change = row["change"]
        if row["unit"] == "change" and change is not None:
            figure = " to ".join(words.percent(change[key], signed=True, fine=True) for key in ("low", "high"))
            mean = words.percent(change["mean"], signed=True, fine=True)
            said.append(f"{row['label'].split(',')[0]}: {VERDICTS[change['verdict']]}, {mean} bits per byte ({figure})")
    return f"{runs} runs. {'; '.join(said)}." if said else f"{runs} runs; they share no figures with a change."


def _table(found: Mapping[str, Any]) -> Table:
    columns = (("What", "text"), ("Mean", "number"), ("Spread", "number"), ("Runs", "text"), ("Change", "text"))
    return Table("Over all runs, with 95% intervals", columns, tuple(_cells(found["rows"])))


def _cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        unit = str(row["unit"])
        each = ", ".join(str(cell(value, unit)) for value in row["values"])
        spread = "–" if row["spread"] is None else cell(row["spread"], unit).removeprefix("+")
        said = VERDICTS[row["change"]["verdict"]] if row["change"] else "–"
        if row["change"] and unit != "change":
            said = change_text({"changes": {"all": row["change"]}}, ["all"], unit)
        yield words.sentence(row["label"]), cell(row, unit), spread, each, said
