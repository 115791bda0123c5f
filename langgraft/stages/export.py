"""export: artefacts other tools read, each proven equal to what was trained."""

from pathlib import Path
from typing import Any

from langgraft.errors import ModelError, RecipeError
from langgraft.evaluation.bpb import score
from langgraft.exporting.formats import export_adapter, export_gguf, export_hf
from langgraft.exporting.gguf_pre import pre_for
from langgraft.exporting.llamacpp import library
from langgraft.exporting.ollama import export_ollama
from langgraft.exporting.parity_lines import parity_lines
from langgraft.exporting.prove import prove_all, table_lines
from langgraft.exporting.reload import reload_check
from langgraft.recipe import Export, Recipe
from langgraft.runs import Inputs
from langgraft.stages.learning import lora_options
from langgraft.stages.pretrain import phases_of
from langgraft.store import read_json
from langgraft.text import language
from langgraft.tokenizer.pretokenizer import repair, splits_at_marks
from langgraft.training.adapter import load_adapter
from langgraft.training.modes import Phase, no_adapter

RELOAD_TEXTS = 20


def check(section: Export, recipe: Recipe) -> None:
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: an adapter is asked for that cannot hold what is trained, or GGUF in no format, for a base whose
            tokenizer cannot be written as GGUF, or for a repaired pre-tokenizer that llama.cpp lacks where no mismatch
            is accepted.
        InputError: there are fewer lines to check parity on than asked for.
        LanggraftError: a GGUF file is asked for, and llama-cpp-python, which proves it, is not installed.
    """
    parity_lines(section.parity_lines)
    if "adapter" in section.to and recipe.align is not None:
        raise RecipeError(
            "export.to has `adapter`, which holds what pretraining changed of the base, but [align] trains the merged "
            "model further; leave it out"
        )
    if "adapter" in section.to:
        reason = _no_adapter(recipe)
        if reason is not None:
            raise RecipeError(f"export.to has `adapter`, which holds LoRA and new rows, but {reason}; leave it out")
    gguf = "gguf" in section.to or "ollama" in section.to
    if gguf and not section.quant:
        raise RecipeError('export.quant is empty, so there is no GGUF file to write; name formats such as ["f16"]')
    if gguf:
        library()
        _check_tokenizer(Path(recipe.model.base).expanduser() / "tokenizer.json", section, recipe)


def _no_adapter(recipe: Recipe) -> str | None:
    """Why what the recipe trains is more than one adapter on the base can hold; None when it is not."""
    pretrain, sft = recipe.pretrain, recipe.sft
    if sft is None:
        return no_adapter(phases_of(pretrain), lora_options(pretrain.lora)) if pretrain else None
    if pretrain is not None:
        return "[sft] trains further what [pretrain] has made, and an adapter is one training on the base"
    reason = no_adapter((Phase(sft.mode),), lora_options(sft.lora))
    return None if reason is None else reason.replace("pretrain.", "sft.")


def _check_tokenizer(path: Path, section: Export, recipe: Recipe) -> None:
    """Refuse (where the base is a folder) now rather than after the training."""
    document = read_json(path) if path.is_file() else None
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(model, dict):
        return
    if model.get("type") in ("Unigram", "WordPiece", "WordLevel"):
        raise RecipeError(
            f"{path} is a {model['type']} tokenizer, which llama.cpp does not run in a causal model; leave `gguf` out "
            "of export.to"
        )
    extends = recipe.tokenizer is not None and recipe.tokenizer.method != "none" and recipe.tokenizer.repair_marks
    pre = document.get("pre_tokenizer")
    if pre is None or section.accept_mismatch or not extends:
        return
    if not language(recipe.model.language).marks or not splits_at_marks(pre):
        return
    try:
        pre_for({**document, "pre_tokenizer": repair(pre)})
    except ModelError as error:
        raise RecipeError(
            f"export.to has `gguf`, and the repaired pre-tokenizer of {path} has no match: {error}"
        ) from error


def run(section: Export, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/hf`, `out/adapter` and `out/gguf`; every check becomes a gate."""
    model = inputs.trained / "model"
    lines = parity_lines(section.parity_lines)
    summary: dict[str, Any] = {"files": [], "parity": [], "gates": []}
    if "hf" in section.to:
        summary["gates"] += export_hf(model, out / "hf")["gates"]
        summary["gates"] += _reloaded(model, out / "hf", lines, inputs)
    if "adapter" in section.to:
        made = export_adapter(inputs.trained / "adapter", out / "adapter")
        summary["gates"] += made["gates"]
        summary["gates"].append(_on_the_base(model, out / "adapter", lines, inputs))
    for kind in ("gguf", "ollama"):
        if kind in section.to:
            _gguf(kind, model, out / kind, lines, section, inputs, summary)
    for gate in summary["gates"]:
        inputs.log.say(f"  {'pass' if gate['passed'] else 'FAIL'}  {gate['name']}: {gate['value']}")
    summary["files"] = [
        {"name": str(file.relative_to(out)), "bytes": file.stat().st_size}
        for file in sorted(out.rglob("*"))
        if file.is_file()
    ]
    return summary


def _reloaded(model: Path, folder: Path, lines: list[str], inputs: Inputs) -> list[dict[str, Any]]:
    """Load the folder where langgraft cannot be imported; compare bits per byte and ids with ours."""
    texts = [line for line in lines if line.strip()][:RELOAD_TEXTS]
    inputs.log.say("export: loading the hub folder in a fresh process without langgraft")
    theirs = reload_check(folder, texts=texts)
    ours = score(model, texts, threads=inputs.compute.threads, device="cpu").bits_per_byte
    difference = abs(theirs["bits_per_byte"] - ours)
    return [
        {
            "name": "plain transformers gives the same bits per byte",
            "passed": bool(theirs["ok"]) and difference <= 1e-4,
            "value": f"{difference:.1e} apart" + ("" if theirs["ok"] else ", weights missing or ids differ"),
            "bound": "1e-4",
        },
        {
            "name": "AutoTokenizer gives the ids of tokenizer.json",
            "passed": bool(theirs["ids_equal"]),
            "value": f"{len(theirs['differing'])} of {len(texts)} lines differ",
            "bound": "0",
        },
    ]


def _on_the_base(model: Path, adapter: Path, lines: list[str], inputs: Inputs) -> dict[str, Any]:
    """Load the exported adapter on the untouched base; compare its bits per byte with the model's."""
    texts = [line for line in lines if line.strip()][:RELOAD_TEXTS]
    inputs.log.say("export: loading the adapter on the base")
    loaded = load_adapter(adapter, inputs.base(), merge=True)
    rest: dict[str, Any] = {"threads": inputs.compute.threads, "device": "cpu"}
    theirs = score(model, texts, model=loaded, **rest).bits_per_byte
    difference = abs(theirs - score(model, texts, **rest).bits_per_byte)
    return {
        "name": "the adapter on the base gives the same bits per byte",
        "passed": difference <= 1e-4,
        "value": f"{difference:.1e} apart",
        "bound": "1e-4",
    }


def _gguf(
    kind: str,
    model: Path,
    out: Path,
    lines: list[str],
    section: Export,
    inputs: Inputs,
    summary: dict[str, Any],
) -> None:
    """Write the GGUF files; token parity and divergence of each in a real llama.cpp become gates and a table."""
    accept, threads = section.accept_mismatch, inputs.compute.threads or None
    write = export_gguf if kind == "gguf" else export_ollama
    quant = tuple(section.quant) if kind == "gguf" else tuple(section.quant[-1:])
    made = write(model, out, quant=quant, accept_mismatch=accept, name=inputs.name)
    proven = prove_all(model, made, lines, accept_mismatch=accept, threads=threads)
    summary["parity"] += proven["table"]
    known = {gate["name"] for gate in summary["gates"]}
    summary["gates"] += [
        gate for gate in (*made["gates"], *proven["gates"]) if gate["name"] not in known or not gate["passed"]
    ]
    notes = dict.fromkeys(note for facts in made["files"].values() for note in facts["notes"])
    for text in (*table_lines(proven["table"]), *notes, *(f"warning: {text}" for text in proven["warnings"])):
        inputs.log.say(f"export: {text}")
    summary["warnings"] = [*summary.get("warnings", []), *proven["warnings"]]
