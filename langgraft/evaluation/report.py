"""The face of a run: one self-contained HTML page, and the same figures as JSON.

The page needs no network, no script and no font of its own. Every figure on it is in the report's dict; a
section that is missing there is left out of the page.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langgraft.errors import InputError
from langgraft.evaluation import report_curves, report_figures, report_measures, report_texts, words
from langgraft.evaluation.cautions import cautions
from langgraft.evaluation.conclusion import conclusion
from langgraft.evaluation.page import template
from langgraft.evaluation.words import dig
from langgraft.store import atomic_write

SCHEMA = 1
"""Version of report.json (docs/report.md, report.schema.json); it rises when a key changes its meaning."""

SECTIONS: dict[str, type] = {
    "language": dict,
    "source_language": dict,
    "machine": dict,
    "bits_per_byte": dict,
    "tokens": dict,
    "choice": dict,
    "minimal_pairs": dict,
    "chat": dict,
    "generation": dict,
    "code_mixed": dict,
    "translation": dict,
    "classification": list,
    "summarisation": dict,
    "tasks": list,
    "generations": list,
    "training": dict,
    "align": dict,
    "sft": dict,
    "corpus": dict,
    "tokenizer": dict,
    "gates": list,
    "export": dict,
    "publish": dict,
    "stages": list,
}


def render(report: dict[str, Any]) -> str:
    """Make the HTML page of a run.

    Args:
        report: what `report.json` holds: `name`, `created`, `langgraft`, `base`, and any of `SECTIONS`
            (docs/report.md). A missing section, or a missing figure, is left out of the page.
            `tests/evaluation/example_report.json` shows every field.

    Returns:
        A complete page that asks the network for nothing.

    Raises:
        InputError: `report` is no dict, or one of its sections is of the wrong kind.
    """
    return _render(_checked(report))


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write `report.json` and `report.html` into `folder`, each by rename; nothing if it cannot be drawn.

    `schema`, `verdict` and `warnings` are added to the JSON: the same words as on the page.
    Figures that are not finite numbers become null: JSON has no word for them, and they mean "not measured".

    Raises:
        InputError: as `render`.
        DiskFullError: no space is left; older files are untouched.
    """
    known = _checked(report)
    page = _render(known)
    status, text = words.verdict(known)
    known |= {
        "schema": SCHEMA,
        "verdict": {"status": status, "text": text, "paragraph": conclusion(known)},
        "warnings": [asdict(finding) for finding in cautions(known)],
    }
    figures = json.dumps(known, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(Path(folder) / "report.json", figures)
    atomic_write(Path(folder) / "report.html", page)


def _checked(report: Any) -> dict[str, Any]:
    """`report` with every section of the right kind, and null in place of numbers that are none."""
    if not isinstance(report, dict):
        raise InputError(f"a report must be a dict of sections, not {type(report).__name__}")
    for name, kind in SECTIONS.items():
        value = report.get(name)
        if value is not None and not isinstance(value, kind):
            raise InputError(f"section {name!r} of the report must be a {kind.__name__}, not {value!r:.60}")
    known: dict[str, Any] = _finite(report)
    return known


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _render(report: dict[str, Any]) -> str:
    status, text = words.verdict(report)
    return template("report.html").render(
        name=report.get("name") or "Language report",
        facts=_facts(report),
        target=words.target_name(report),
        source=words.source_name(report),
        verdict={"status": status, "text": text},
        conclusion=conclusion(report),
        cautions=cautions(report),
        cards=words.cards(report),
        bits=report_figures.bits(report),
        tokens=report_figures.tokens(report),
        example=report_texts.example(report),
        tokenizer=report_texts.tokenizer(report),
        measures=report_measures.sections(report),
        training=report_curves.training(report),
        align=report_curves.align(report),
        generations=report_texts.generations(report),
        answers=report_texts.answer_counts(report),
        gates=report_figures.gates(report),
        corpus=report_figures.corpus(report),
        export=report_figures.export(report),
        stages=report_figures.stages(report),
        machine=report_figures.machine(report),
        created=report.get("created"),
        version=report.get("langgraft"),
    )


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The line under the title: base model, languages, date and version."""
    scripts = dig(report, "language", "scripts") or []
    language = f"{words.target_name(report)} ({', '.join(scripts)})" if scripts else words.target_name(report)
    facts = (
        ("Base model", report.get("base")),
        ("New language", language if report.get("language") else None),
        ("Old language", words.source_name(report) if report.get("source_language") else None),
        ("Made", str(report["created"]).replace("T", " ") if report.get("created") else None),
        ("langgraft", report.get("langgraft")),
    )
    return [(label, str(value)) for label, value in facts if value]
