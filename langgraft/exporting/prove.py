"""The gates on a GGUF file that was just written, and what happens to one that fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraft.errors import LanggraftError
from langgraft.exporting.manifest import FAILED, write_manifest
from langgraft.exporting.parity import kl_divergence, quant_warning, token_gate, token_parity

KL_TEXTS = 10
# Largest mean divergence in nats: a proof for 16 and 8 bits, a guard against broken files below. k-quants of two and
# three bits may be this bad on a small model, so they are shown and not judged.
KL_BOUNDS = {
    "f32": 1e-3,
    "f16": 1e-3,
    "bf16": 1e-2,
    "q8_0": 0.05,
    "q6_k": 0.1,
    **dict.fromkeys(("q5_1", "q5_0", "q5_k_m", "q5_k_s"), 0.3),
    **dict.fromkeys(("q4_1", "q4_0", "q4_k_m", "q4_k_s"), 1.0),
}


def prove_gguf(
    model: Path,
    facts: dict[str, Any],
    lines: Sequence[str],
    *,
    accept_mismatch: float = 0.0,
    divergence: bool = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """Run a GGUF file in llama.cpp against the hub folder it was made from.

    A file that fails is renamed to end in `.failed`: nothing called `.gguf` is left that was found wrong.

    Args:
        facts: what `export_gguf` says of the file: `path`, `quant`, `bytes`.
        lines: text for the token ids; some of its longer lines serve for the divergence.
        divergence: compare predictions too, which loads the model in 32 bits.

    Returns:
        `row` (`name, bytes, lines, mismatches, only_normalisation, kl, top1, answers, answers_changed`)`, gates,
        warning`.

    Raises:
        LanggraftError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot load the file.
    """
    path = Path(facts["path"])
    try:
        proof = _proof(model, path, facts, lines, accept_mismatch, divergence, threads)
    except LanggraftError:
        _refuse(path)
        raise
    if not all(gate["passed"] for gate in proof["gates"]):
        _refuse(path)
    return proof


def _refuse(path: Path) -> None:
    path.replace(path.with_name(path.name + FAILED))


def _proof(
    model: Path,
    path: Path,
    facts: dict[str, Any],
    lines: Sequence[str],
    accept_mismatch: float,
    divergence: bool,
    threads: int | None,
) -> dict[str, Any]:
    quant = facts["quant"]
    tokens = token_parity(model, path, lines)
    row = {"name": quant, "bytes": facts["bytes"], "lines": tokens["lines"]}
    row["mismatches"] = tokens["mismatches"] - tokens["only_normalisation"]
    row["only_normalisation"] = tokens["only_normalisation"]
    gates = [token_gate(tokens, quant, accept_mismatch=accept_mismatch)]
    warning = None
    if divergence:
        long = [line for line in lines if len(line) > 8] or list(lines)
        texts = long[:: max(len(long) // KL_TEXTS, 1)][:KL_TEXTS]
        found = kl_divergence(model, path, texts, threads=threads, answers=KL_TEXTS)
        row |= {"kl": found["mean"], "top1": found["top1_agreement"]}
        row |= {key: found[key] for key in ("answers", "answers_changed")}
        bound = KL_BOUNDS.get(quant)
        gates.append(
            {
                "name": f"llama.cpp predicts the same ({quant})",
                "passed": bound is None or found["mean"] <= bound,
                "value": f"mean KL {found['mean']:.1e} nats, same first choice at {found['top1_agreement']:.1%}",
                "bound": "none" if bound is None else f"{bound:g}",
                "detail": "",
            }
        )
        warning = quant_warning(quant, found)
    return {"row": row, "gates": gates, "warning": warning}


def prove_all(model: Path, summary: dict[str, Any], lines: Sequence[str], **options: Any) -> dict[str, Any]:
    """`prove_gguf` for every file of `export_gguf`'s summary, then the manifest if all passed.

    Returns:
        `table` (rows)`, gates, warnings`; `options` as `prove_gguf` takes them.
    """
    proven = [prove_gguf(model, facts, lines, **options) for facts in summary["files"].values()]
    gates = [gate for one in proven for gate in one["gates"]]
    if all(gate["passed"] for gate in gates):
        write_manifest(Path(summary["folder"]), summary["format"], [*summary["gates"], *gates])
    warnings = [one["warning"] for one in proven if one["warning"]]
    return {"table": [one["row"] for one in proven], "gates": gates, "warnings": warnings}


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table of formats, for a terminal."""
    lines = ["format        size  lines differ    mean KL  first choice  answers change"]
    for row in rows:
        line = f"{row['name']:<8} {row['bytes'] / 1e6:>6.0f} MB  {row['mismatches']:>5} of {row['lines']:>4}"
        if "kl" in row:
            line += f"  {row['kl']:>9.1e}  {row['top1']:>12.1%}  {row['answers_changed']:>8} of {row['answers']:>2}"
        lines.append(line)
    return lines
