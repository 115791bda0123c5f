"""The report's figures as tables and bar charts: bits per byte, tokens, checks, text, files, times, machine.

Each function takes the report's dict with any part of it missing, and returns None (or nothing) where there
is nothing to show.
"""

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from langgraft.evaluation import words
from langgraft.evaluation.charts import Bar, bar_chart
from langgraft.evaluation.page import Table
from langgraft.evaluation.words import dig, number

METRICS = (
    ("tokens_per_character", "Tokens per character", "lower is cheaper"),
    ("bytes_per_token", "Bytes per token", "higher is cheaper"),
    ("tokens_per_word", "Tokens per word", "lower is cheaper"),
)


def of_both(report: dict[str, Any], section: str) -> list[tuple[str, dict[str, Any]]]:
    """Both languages' names with what a section holds of them, those that are there."""
    named = (("target", words.target_name(report)), ("source", words.source_name(report)))
    found = ((name, dig(report, section, side)) for side, name in named)
    return [(words.sentence(name), figures) for name, figures in found if figures]


def bits(report: dict[str, Any]) -> dict[str, Any] | None:
    """Bits per byte of both languages: chart and table."""
    sides = of_both(report, "bits_per_byte")
    groups = [(name, bars) for name, side in sides if (bars := _bars(side, "mean"))]
    if not groups:
        return None
    lines = (
        ("Base", lambda side: _with_interval(side.get("base"), _bits_text)),
        ("Adapted", lambda side: _with_interval(side.get("adapted"), _bits_text)),
        ("Change", lambda side: _with_interval(side.get("change"), _signed)),
        ("Documents", lambda side: number(side.get("documents"))),
        ("Bytes of text", lambda side: number(side.get("bytes"))),
    )
    table = Table(
        "The figures, with 95% intervals",
        (("Bits per byte", "text"), *((name, "number") for name, _ in sides)),
        tuple((label, *(write(side) for _, side in sides)) for label, write in lines),
    )
    title, unit = "Bits per byte, base against adapted", "bits per byte (lower is better)"
    chart = bar_chart("chart-bits", title, unit, groups, width=360, write=_bits_text)
    return {"chart": chart, "table": table}


def _bars(models: dict[str, dict[str, Any]], key: str) -> list[Bar]:
    """One bar each for base and adapted, where `key` was measured."""
    return [
        Bar(kind, kind, models[kind][key], models[kind].get("low"), models[kind].get("high"))
        for kind in ("base", "adapted")
        if dig(models, kind, key) is not None
    ]


def _with_interval(interval: dict[str, Any] | None, write: Callable[[float], str]) -> str:
    """A figure and, in a line below it, its interval, as far as they were measured."""
    if not interval or interval.get("mean") is None:
        return "–"
    low, high = interval.get("low"), interval.get("high")
    if low is None or high is None:
        return write(interval["mean"])
    return Markup('{} <span class="sub">{} to {}</span>').format(write(interval["mean"]), write(low), write(high))


def _signed(share: float) -> str:
    return words.percent(share, signed=True, fine=True)


def _bits_text(bits: float) -> str:
    """Three decimals: the bounds on a kept language are tenths of a percent."""
    return f"{bits:.3f}"


def tokens(report: dict[str, Any]) -> dict[str, Any] | None:
    """What text costs in tokens: charts and table."""
    sides = of_both(report, "tokens")
    charts = []
    for key, title, hint in METRICS:
        groups = [(name, bars) for name, side in sides if (bars := _bars(side, key))]
        if groups:
            chart = bar_chart(f"chart-{key}", title, f"{title.lower()} ({hint})", groups, width=320)
            charts.append((title, chart))
    rows = tuple(
        (
            name,
            number(dig(side, "base", "tokens")),
            number(dig(side, "adapted", "tokens")),
            "–" if side.get("saved") is None else words.percent(side["saved"]),
        )
        for name, side in sides
    )
    columns = (("Language", "text"), ("Base", "number"), ("Adapted", "number"), ("Saved", "number"))
    table = Table("Tokens for the same held-out text", columns, rows) if rows else None
    return {"charts": charts, "table": table} if charts or table else None


def gates(report: dict[str, Any]) -> Table | None:
    """Every check with its result."""
    rows = tuple(
        (
            str(gate.get("name") or "unnamed"),
            words.gate_status(gate),
            _figure(gate.get("value")),
            _figure(gate.get("bound")),
            str(gate.get("stage") or "–"),
        )
        for gate in words.all_gates(report)
    )
    columns = (
        ("Check", "text"),
        ("Result", "status"),
        ("Measured", "number"),
        ("Allowed", "number"),
        ("Stage", "text"),
    )
    return Table("Every check of this run", columns, rows) if rows else None


def _figure(value: Any) -> str:
    """A figure that may already be text."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value) if plain or value is None else str(value)


def corpus(report: dict[str, Any]) -> list[Table]:
    """The text that was kept and dropped."""
    sides = of_both(report, "corpus")
    if not sides:
        return []
    heads = tuple((name, "number") for name, _ in sides)
    totals = tuple(
        (label, *(number(side.get(key)) for _, side in sides))
        for key, label in (("documents", "Documents"), ("characters", "Characters"), ("bytes", "Bytes"))
        if any(side.get(key) is not None for _, side in sides)
    )
    tables = [Table("Text that was kept", (("Kept", "text"), *heads), totals)] if totals else []
    for key, caption, head in (
        ("dropped", "Documents that were dropped, by reason", "Reason"),
        ("licenses", "Documents by licence", "Licence"),
        ("sources", "Documents by source", "Source"),
    ):
        names = list(dict.fromkeys(name for _, side in sides for name in side.get(key) or {}))
        rows = tuple((str(name), *(_figure((side.get(key) or {}).get(name)) for _, side in sides)) for name in names)
        if rows:
            tables.append(Table(caption, ((head, "text"), *heads), rows))
    return tables


def export(report: dict[str, Any]) -> list[Table]:
    """Exported files and their parity."""
    section = report.get("export") or {}
    files = tuple((str(file.get("name")), words.size(file.get("bytes"))) for file in section.get("files") or [])
    parity = tuple(
        (
            str(row.get("name")),
            "open" if row.get("mismatches") is None else "fail" if row["mismatches"] else "pass",
            number(row.get("mismatches")),
            number(row.get("lines")),
            number(row.get("kl")),
        )
        for row in section.get("parity") or []
    )
    parity_columns = (
        ("File", "text"),
        ("Result", "status"),
        *((head, "number") for head in ("Lines that differ", "Lines compared", "KL, nats")),
    )
    tables = (
        Table("Exported files", (("File", "text"), ("Size", "number")), files),
        Table("Exported model against the original, token for token", parity_columns, parity),
    )
    return [table for table in tables if table.rows]


def stages(report: dict[str, Any]) -> Table | None:
    """Time each stage took."""
    stages = [stage for stage in report.get("stages") or [] if stage.get("seconds") is not None]
    total = sum(stage["seconds"] for stage in stages)
    if not stages:
        return None
    rows = [
        (
            str(stage.get("name")),
            words.duration(stage["seconds"]),
            words.percent(stage["seconds"] / (total or 1)),
        )
        for stage in stages
    ]
    rows.append(("All stages", words.duration(total), words.percent(1.0)))
    columns = (("Stage", "text"), ("Time", "number"), ("Share", "number"))
    return Table("Time each stage took", columns, tuple(rows))


def machine(report: dict[str, Any]) -> Table | None:
    """The machine and the versions."""
    machine = report.get("machine") or {}
    memory = machine.get("memory_gb")
    rows = [
        ("Processor", machine.get("cpu")),
        ("Cores", machine.get("cores")),
        ("Memory", None if memory is None else f"{number(memory)} GB"),
        ("Device", machine.get("device")),
        *(dict(machine.get("versions") or {}).items()),
    ]
    shown = tuple((str(label), str(value)) for label, value in rows if value is not None)
    return Table("Machine and versions", (("What", "text"), ("Value", "text")), shown) if shown else None
