"""The report of a run, gathered from the stages that are done."""

from datetime import datetime
from pathlib import Path
from typing import Any

from langgraft.recipe import Recipe
from langgraft.runs import MARKER, machine, versions
from langgraft.store import read_json
from langgraft.text import language

# What the evaluate stage may have measured (docs/evaluation.md), under the names that the report has for it.
MEASURED = (
    "bits_per_byte", "tokens", "choice", "minimal_pairs", "chat", "generation", "code_mixed", "translation",
    "classification", "summarisation", "tasks", "generations",
)  # fmt: skip


def collect(recipe: Recipe, folders: dict[str, Path]) -> dict[str, Any]:
    """Build the report from each done stage's `stage.json`; sections of stages that did not run are absent."""
    markers = {name: read_json(folder / MARKER) for name, folder in folders.items()}
    done = {name: marker["summary"] for name, marker in markers.items()}
    target, source = language(recipe.model.language), language(recipe.model.source_language)
    report: dict[str, Any] = {
        "name": recipe.name,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "langgraft": versions().get("langgraft", ""),
        "base": recipe.model.base,
        "language": {"code": target.code, "name": target.name, "scripts": list(target.scripts)},
        "source_language": {"code": source.code, "name": source.name},
        "machine": machine(),
        "stages": [
            {"name": name, "seconds": marker["seconds"], "folder": folders[name].name}
            for name, marker in markers.items()
        ],
        "gates": [{**gate, "stage": name} for name, summary in done.items() for gate in summary.get("gates", [])],
    }
    if "corpus" in done:
        report["corpus"] = {
            side: _corpus(done["corpus"][side]) for side in ("target", "source") if done["corpus"].get(side)
        }
    if "tokenizer" in done:
        keys = ("method", "new_tokens", "vocab_size", "sample", "pre_tokenizer_repaired")
        report["tokenizer"] = {key: done["tokenizer"][key] for key in keys}
    if "pretrain" in done:
        metrics = folders["pretrain"] / "metrics.jsonl"
        report["training"] = {**done["pretrain"], "curve": _curve(metrics)}
        if "retention" in done["pretrain"]:
            report["training"]["retention_curve"] = _retention(
                folders["pretrain"] / "retention.jsonl", done["pretrain"]["retention"]
            )
        report["machine"]["device"] = done["pretrain"]["device"]
    if "align" in done:
        report["align"] = {**done["align"], "curve": _curve(folders["align"] / "metrics.jsonl")}
    if "sft" in done:
        report["sft"] = {**done["sft"], "curve": _curve(folders["sft"] / "metrics.jsonl")}
        report["machine"]["device"] = done["sft"]["device"]
    if "evaluate" in done:
        report.update({key: done["evaluate"][key] for key in MEASURED if done["evaluate"].get(key) is not None})
    if "export" in done:
        report["export"] = {key: done["export"][key] for key in ("files", "parity")}
    if "publish" in done:
        report["publish"] = done["publish"]
    return report


def _corpus(side: dict[str, Any]) -> dict[str, Any]:
    """One language's counts: all splits together, drops by reason, licences."""
    return {
        **{key: sum(split[key] for split in side["splits"].values()) for key in ("documents", "characters", "bytes")},
        "dropped": {reason: facts["documents"] for reason, facts in side["dropped"].items()},
        "licenses": side["licenses"],
        "sources": side["sources"],
        "splits": side["splits"],
        "invalid_utf8": side["invalid_utf8"]["count"],
        "damaged": side["files"]["damaged"],
        "encodings": side["files"]["encodings"],
    }


def _curve(metrics: Path) -> list[dict[str, Any]]:
    import json

    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return [{key: row[key] for key in ("step", "loss", "learning_rate", "tokens")} for row in rows]


def _retention(records: Path, section: dict[str, Any]) -> list[dict[str, Any]]:
    """The measurements on the way, each with whether it lies on the way to the model that is the result."""
    import json

    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").split("\n") if line]
    return [
        {
            "step": row["step"],
            "attempt": row["attempt"],
            "values": row["values"],
            "generations": row["details"].get("generations", []),
            "kept": row["step"] <= section["result_step"]
            and all(row["step"] <= back["to"] for back in section["rollbacks"][row["attempt"] :]),
        }
        for row in rows
    ]
