"""A run's report as the facts of a model card, and as the hub's `model-index`."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langgraft.exporting.card import model_card
from langgraft.exporting.manifest import MANIFEST, read_manifest
from langgraft.store import atomic_write, sha256_file, write_json

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HELD_OUT = "held-out text of the training corpus"
LIMITS = (
    "Judged by the figures in this card alone; nothing was measured on harmful content or on other languages.",
    "A model that predicts a language well may still write things that are wrong.",
)


def facts_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """What `model_card` takes, from report.json (docs/report.md); a figure that is missing leaves no trace."""
    language, source = report.get("language") or {}, report.get("source_language") or {}
    names = {"target": language.get("name") or "target", "source": source.get("name") or "source"}
    base = str(report.get("base") or "")
    training = report.get("training") or {}
    facts: dict[str, Any] = {
        "name": report.get("name"),
        "summary": (report.get("verdict") or {}).get("paragraph"),
        "language": [code for code in (language.get("code"), source.get("code")) if code] or None,
        "base_model": base if HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        "new_tokens": (report.get("tokenizer") or {}).get("new_tokens"),
        "bits_per_byte": _bits(report, names),
        "fertility": _fertility(report, names),
        "gates": [
            {"name": gate["name"], "passed": gate["passed"], "detail": str(gate.get("value") or "")}
            for gate in report.get("gates") or []
            if gate.get("passed") is not None
        ],
        "data": [
            {"source": name, "license": ", ".join(side.get("licenses") or {}) or "not named", "documents": documents}
            for side in (report.get("corpus") or {}).values()
            for name, documents in (side.get("sources") or {}).items()
        ]
        + _pairs(report)
        + _chats(report),
        "training": {key: training[key] for key in ("tokens", "steps", "seconds", "device") if training.get(key)},
        "limits": LIMITS,
        "versions": (report.get("machine") or {}).get("versions"),
        "results": list(_results(report, names)),
    }
    return {key: value for key, value in facts.items() if value}


def _pairs(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parallel text as data of the card."""
    pairs = (report.get("align") or {}).get("pairs") or {}
    licenses = ", ".join(pairs.get("licenses") or {}) or "not named"
    return [
        {"source": f"{name} (parallel)", "license": licenses, "documents": count}
        for name, count in (pairs.get("sources") or {}).items()
    ]


def _chats(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Conversations as data of the card; how many were learned from is known of all together."""
    section = report.get("sft") or {}
    count = (section.get("chat") or {}).get("documents")
    return [
        {"source": f"{Path(entry['path']).name} (conversations)", "license": entry.get("license") or "not named",
         "documents": count if len(section["data"]) == 1 else None}
        for entry in section.get("data") or []
    ]  # fmt: skip


def write_run_card(report: Mapping[str, Any], folder: Path) -> Path:
    """Write the model card of a finished run to README.md in the hub folder `folder`; untouched where it is the same.

    The export's manifest lists it then, as it does every other file.

    Raises:
        ModelError: the folder is damaged.
    """
    path, text = Path(folder) / "README.md", model_card(folder, facts_of(report))
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)
    if (path.parent / MANIFEST).is_file():
        manifest = read_manifest(path.parent)
        entry = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        if manifest["files"].get(path.name) != entry:
            manifest["files"][path.name] = entry
            write_json(path.parent / MANIFEST, manifest)
    return path


def _bits(report: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for side, found in (report.get("bits_per_byte") or {}).items():
        if found.get("base") and found.get("adapted"):
            base = found["base"]["mean"]
            row = {"text": names.get(side, side), "base": base, "model": found["adapted"]["mean"]}
            change = found.get("change") or {}
            # The card's interval is that of the difference in bits; the report's is relative to the base.
            row |= {key: change[key] * base for key in ("low", "high") if change.get(key) is not None}
            rows.append(row)
    return rows


def _fertility(report: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for side, name in names.items():
        found = (report.get("tokens") or {}).get(side) or {}
        base, model = ((found.get(kind) or {}).get("tokens_per_character") for kind in ("base", "adapted"))
        if base is not None and model is not None:
            rows.append({"text": name, "unit": "tokens per character", "base": base, "model": model})
    return rows


def _results(report: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Entries of `model-index`, as keyword arguments of huggingface_hub's EvalResult; the adapted model's figures."""
    codes = {side: (report.get(key) or {}).get("code") for side, key in SIDES.items()}
    for side, found in (report.get("bits_per_byte") or {}).items():
        if found.get("adapted"):
            yield _result(
                f"{HELD_OUT}, {names.get(side, side)}", codes.get(side), "bits_per_byte",
                "Bits per byte (lower is better)", found["adapted"],
            )  # fmt: skip
    choice = report.get("choice") or {}
    for kind, by in choice.items():
        for side, measure in by.items():
            last = _last(measure)
            if last:
                name = f"{kind} choice, {side.replace('_', ' ')}, made from {HELD_OUT}"
                yield _result(name, None, "accuracy", "Accuracy", last, task="multiple-choice")
    for name, measure in (report.get("minimal_pairs") or {}).items():
        if last := _last(measure):
            yield _result(f"{name}, minimal pairs", None, "accuracy", "Accuracy", last, task="multiple-choice")
    yield from _written(report, names)
    for task in report.get("classification") or []:
        last = _last(task.get("accuracy") or {})
        if last:
            yield _result(f"{task.get('name')} ({task.get('setting')})", task.get("language"), "accuracy", "Accuracy",
                          last, task="text-classification")  # fmt: skip
    for task in report.get("tasks") or []:
        models = task.get("models") or {}
        last = models[list(models)[-1]] if models else {}
        if last.get("value") is not None:
            metric = str(task.get("metric"))
            yield _result(str(task.get("task")), None, metric, metric, {"mean": last["value"]})


def _written(report: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What the model wrote, against references: translations and summaries, with how they were scored."""
    target, source = names["target"], names["source"]
    ways = {"to_target": f"{source} to {target}", "to_source": f"{target} to {source}"}
    made = [
        ("translation", f"held-out parallel text, {ways.get(way, way)}", scores)
        for way, scores in (report.get("translation") or {}).items()
    ]
    made += [
        ("summarization", f"{name} ({scores.get('setting', 'target')})", scores)
        for name, scores in (report.get("summarisation") or {}).items()
    ]
    for task, dataset, scores in made:
        for metric, title in SCORES.items():
            last = _last(scores.get(metric) or {})
            if last:
                how = {"signature": scores[metric].get("signature"), "shots": scores.get("shots")}
                yield _result(dataset, None, metric, title, last, task=task, how=how)


SIDES = {"target": "language", "source": "source_language"}
SCORES = {"chrf": "chrF", "bleu": "BLEU", "rouge_l": "ROUGE-L"}


def _last(measure: Mapping[str, Any]) -> Mapping[str, Any]:
    models = measure.get("models") or {}
    found: Mapping[str, Any] = models[list(models)[-1]] if models else {}
    return found if found.get("mean") is not None else {}


def _result(
    dataset: str,
    config: str | None,
    metric: str,
    metric_name: str,
    figure: Mapping[str, Any],
    *,
    task: str = "text-generation",
    how: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One entry; `figure` has its mean and perhaps its interval, `how` tells how it was made."""
    interval = {f"interval_95_{key}": round(figure[key], 6) for key in ("low", "high") if figure.get(key) is not None}
    entry = {
        "task_type": task,
        "dataset_type": re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-"),
        "dataset_name": dataset,
        "dataset_config": config,
        "dataset_split": "test",
        "metric_type": metric,
        "metric_name": metric_name,
        "metric_value": round(figure["mean"], 6),
        "metric_args": {**interval, **{k: v for k, v in (how or {}).items() if v is not None}} or None,
    }
    return {key: value for key, value in entry.items() if value is not None}
