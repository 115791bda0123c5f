"""What was measured beyond bits per byte: every measure of the evaluation drawn and tabled in the same way.

A measure is `{"models": {name: {mean, low, high}}, "changes": {name: {mean, low, high, verdict}}, "better"}`, with
`chance`, `items` and others beside them where they apply (docs/evaluation.md); see `gather` for where they stand.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from langgraft.evaluation import words
from langgraft.evaluation.dots import Dot, dot_chart
from langgraft.evaluation.page import Table
from langgraft.evaluation.words import dig, number, percent

VERDICTS = {"gain": "better", "loss": "worse", "no measurable difference": "no measurable difference"}
KINDS = {"multiple_choice": "multiple choice", "entailment": "entailment", "sentiment": "sentiment"}
SETTINGS = {"source": "source", "target": "target", "translate_test": "translate-test"}
FIGURES = {
    "right_language": "right language", "script_purity": "script purity", "repetition": "repetition",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A measure with its name on the page; `unit` is "share", "score" (0 to 100) or "bits"."""

    label: str
    measure: Mapping[str, Any]
    unit: str = "share"


def sections(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups of measures for the page: title, what it says, charts (wide and narrow) and a table."""
    made = []
    for key, title, text, measured in gather(report):
        shown = [one for one in measured if dig(dict(one.measure), "models")]
        if shown:
            charts = _charts(key, title, shown)
            group = {"title": title, "text": text, "charts": charts, "table": _table(title, shown)}
            made.append({**group, "signatures": _signatures(shown)})
    return made


def gather(report: dict[str, Any]) -> Iterator[tuple[str, str, str, list[Measured]]]:
    """Every group of measures: its key, title, explanation, and the measures themselves."""
    target, source = words.target_name(report), words.source_name(report)
    names = {"target": target, "source": source, "to_target": f"into {target}", "to_source": f"into {source}"}
    choice = report.get("choice") or {}
    found = [Measured(f"translation {names.get(d, d)}", m) for d, m in (choice.get("translation") or {}).items()]
    found += [Measured(f"continuation, {names.get(s, s)}", m) for s, m in (choice.get("continuation") or {}).items()]
    yield (
        "choice",
        "Choosing the right text",
        "The model scores several texts, one of which is right: the translation of a sentence, or what really came "
        "next. The short upright line is chance: what blind guessing reaches.",
        found,
    )
    pairs = [Measured(str(name), m) for name, m in (report.get("minimal_pairs") or {}).items()]
    yield "pairs", "Right and wrong sentences", "Of two sentences that differ in one point, which is likelier?", pairs
    yield "tests", "Tests", "Tasks with a known answer; translate-test puts the text into the source language first.", [
        *_classification(report), *_tasks(report)
    ]  # fmt: skip
    written = [
        Measured(f"{names.get(side, side)}: {FIGURES[key]}", {**figures[key], "items": figures.get("prompts")})
        for side, figures in (report.get("generation") or {}).items()
        for key in FIGURES
        if figures.get(key)
    ]
    ends = dig(report, "chat", "ends")
    written += [Measured("chat answers that come to an end", ends)] if dig(report, "chat", "ends", "models") else []
    yield "writing", "How it writes", "Counted in what the models wrote. Of repetition, less is better.", written
    made = [
        Measured(f"{names.get(direction, direction)}, {name}", figures[key], "score")
        for direction, figures in (report.get("translation") or {}).items()
        for key, name in (("chrf", "chrF"), ("bleu", "BLEU"))
        if figures.get(key)
    ]
    made += [
        Measured(f"{name} ({SETTINGS.get(of.get('setting'), 'summaries')}), {metric}", of[key], "score")
        for name, of in (report.get("summarisation") or {}).items()
        for key, metric in (("chrf", "chrF"), ("rouge_l", "ROUGE-L"))
        if of.get(key)
    ]
    yield "scores", "Translating and summing up", "Overlap with a reference, from 0 to 100; higher is better.", made
    yield from _tuned(dig(report, "sft", "answers") or {})
    mixed = report.get("code_mixed")
    yield (
        "mixed",
        "Mixed languages",
        "Bits per byte of text that mixes both languages; fewer are better.",
        ([Measured(f"{target} mixed with {source}", mixed, "bits")] if mixed else []),
    )


def _signatures(measured: Sequence[Measured]) -> str:
    """How scores were made, for whoever wants the same ones again."""
    found: dict[str, list[str]] = {}
    for one in measured:
        if one.measure.get("signature"):
            found.setdefault(str(one.measure["signature"]), []).append(_title(one.label))
    return "; ".join(f"{' and '.join(labels)}: {signature}" for signature, labels in found.items())


def _tuned(answers: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[Measured]]]:
    """What instruction tuning changed on conversations that were held out."""
    bits = answers.get("bits_per_byte")
    text = "Answers of held-out conversations, before and after instruction tuning; fewer bits are better."
    yield "sft-bits", "Instruction tuning", text, [Measured("bits per byte of answers", bits, "bits")] if bits else []
    kinds = (("ends", "answers that come to an end"), ("right_language", "answers in the language of the reference"))
    written = [Measured(label, answers[key]) for key, label in kinds if answers.get(key)]
    yield "sft-answers", "Answers to held-out questions", "Before and after instruction tuning.", written


def _classification(report: dict[str, Any]) -> Iterator[Measured]:
    for task in report.get("classification") or []:
        kind, setting = KINDS.get(task.get("kind"), task.get("kind")), SETTINGS.get(task.get("setting"))
        of = ", ".join(str(part) for part in (kind, setting) if part)
        extra = {key: task[key] for key in ("items", "chance") if task.get(key) is not None}
        yield Measured(f"{task.get('name')} ({of})", {**extra, **(task.get("accuracy") or {})})


def _tasks(report: dict[str, Any]) -> Iterator[Measured]:
    """lm-evaluation-harness gives a standard error; 1.96 of them to each side are the interval."""
    for task in report.get("tasks") or []:
        models = {}
        for name, one in (task.get("models") or {}).items():
            value, error = one.get("value"), one.get("stderr")
            bounds = (
                {} if error is None or value is None else {"low": value - 1.96 * error, "high": value + 1.96 * error}
            )
            models[name] = {"mean": value, **bounds}
        measure = {"models": models, "changes": task.get("changes"), "better": task.get("better")}
        label = f"{task.get('task')}, {task.get('metric')}"
        yield Measured(label, {**measure, "items": task.get("samples")})


def _title(label: str) -> str:
    """A capital at the start, but not for names of tasks, which are written as they are."""
    return label if "_" in label.split(",")[0] else words.sentence(label)


def _written(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "bits":
        return f"{value:.3f}"
    return number(value) if unit == "score" else percent(value)


def _charts(key: str, title: str, measured: Sequence[Measured]) -> list[tuple[str, Markup]]:
    """One drawing for a wide screen and one for a phone."""
    rows = []
    for one in measured:
        dots = [
            Dot(name, "base" if place == 0 else "adapted", found["mean"], found.get("low"), found.get("high"))
            for place, (name, found) in enumerate(one.measure["models"].items())
            if found.get("mean") is not None
        ]
        if dots:
            rows.append((_title(one.label), dots, one.measure.get("chance")))
    unit = measured[0].unit
    if not rows:
        return []
    axis = {"share": "share of items", "score": "score, 0 to 100", "bits": "bits per byte"}[unit]
    top = {"share": 1.0, "score": 100.0, "bits": None}[unit]
    return [
        (shape, dot_chart(f"chart-{key}-{shape}", title, axis, rows, width=width, top=top, unit=unit))
        for shape, width in (("wide", 760), ("narrow", 340))
    ]


def _table(title: str, measured: Sequence[Measured]) -> Table:
    names = list(dict.fromkeys(name for one in measured for name in one.measure["models"]))
    with_chance = any(one.measure.get("chance") is not None for one in measured)
    with_items = any(one.measure.get("items") is not None for one in measured)
    columns = [("What", "text"), *((words.sentence(name), "number") for name in names), ("Change", "text")]
    columns += [("Chance", "number")] if with_chance else []
    columns += [("Items", "number")] if with_items else []
    rows = []
    for one in measured:
        row: list[Any] = [_title(one.label)]
        row += [_figure(one.measure["models"].get(name), one.unit) for name in names]
        row.append(change_text(one.measure, names, one.unit))
        row += [_written(one.measure.get("chance"), one.unit)] if with_chance else []
        row += [number(one.measure.get("items"))] if with_items else []
        rows.append(tuple(row))
    return Table(f"{title}: the figures, with 95% intervals", tuple(columns), tuple(rows))


def _figure(found: Mapping[str, Any] | None, unit: str) -> Any:
    if not found or found.get("mean") is None:
        return "–"
    if found.get("low") is None or found.get("high") is None:
        return _written(found["mean"], unit)
    low, high = _written(found["low"], unit), _written(found["high"], unit)
    return Markup('{} <span class="sub">{} to {}</span>').format(_written(found["mean"], unit), low, high)


def change_text(measure: Mapping[str, Any], names: Sequence[str], unit: str) -> Any:
    """The last model against the first, in words."""
    found = dict(measure.get("changes") or {}).get(names[-1]) if names else None
    if not found or found.get("mean") is None:
        return "–"
    verdict = VERDICTS.get(found.get("verdict"), "")
    points = {"share": 100.0, "score": 1.0, "bits": 100.0}[unit]
    ending = {"share": " points", "score": "", "bits": "%"}[unit]

    def signed(value: float) -> str:
        return f"{value * points:+.1f}".replace("-", "−")

    if found.get("low") is None or found.get("high") is None:
        return f"{verdict} {signed(found['mean'])}{ending}".strip()
    return Markup('{} <span class="sub">{}{} ({} to {})</span>').format(
        verdict or "–", signed(found["mean"]), ending, signed(found["low"]), signed(found["high"])
    )
