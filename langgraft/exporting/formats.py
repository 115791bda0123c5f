"""Model folder -> artefacts other tools read. Each export writes whole files or nothing."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langgraft.base import check_causal_lm, check_tokenizer_fits, tokenizer_size
from langgraft.errors import ModelError
from langgraft.exporting.folder_gates import adapter_gates, folder_gates, made_model
from langgraft.exporting.gguf_families import EMBEDDING, read_config
from langgraft.exporting.gguf_quants import K_QUANTS, QUANTS, fallback_note, quantise
from langgraft.exporting.gguf_vocab import SPECIAL, is_spm
from langgraft.exporting.gguf_writer import write_gguf
from langgraft.exporting.llamacpp import library
from langgraft.exporting.manifest import MANIFEST, write_manifest
from langgraft.exporting.pre_rates import choose_pre
from langgraft.exporting.weights import open_weights, weight_files
from langgraft.methods import check_options, resolve
from langgraft.store import TEMPORARY, read_json, sha256_file, staged_folder, write_json
from langgraft.tokenizer.files import is_byte_level
from langgraft.tokenizer.spm_model import MODEL

# Copied byte for byte where present. Everything else in a model folder (optimizer state, logs, checkpoints,
# manifests of the run) stays behind.
_COPIED = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "chat_template.jinja", "generation_config.json"),
    *("special_tokens_map.json", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "README.md"),
)
_PATTERNS = ("langgraft_*.json", "additional_chat_templates/*.jinja")
# Where the model was made is nobody's business; a hub folder must not carry paths of a machine.
_PRIVATE = (
    "_name_or_path",
    "name_or_path",
    "_model_name_or_path",
    "is_local",
    "local_files_only",
    "_commit_hash",
)


def export_hf(model: Path, out: Path) -> dict[str, Any]:
    """Write a clean hub folder that `AutoModelForCausalLM` and `AutoTokenizer` load with nothing of ours.

    Weights and tokenizer.json are copied byte for byte; tokenizer_config.json names PreTrainedTokenizerFast,
    which takes tokenizer.json as it is; training files stay behind. An older `out` is replaced at the end.

    A SentencePiece BPE tokenizer without `tokenizer.model` gets one, made from its merges. `langgraft_export.json`
    is written last: `langgraft verify OUT` compares.

    Returns:
        `format, folder, files` (name -> `{bytes, sha256}`)`, parameters, tokens, rows, gates`.

    Raises:
        ModelError: the folder is no causal language model, lacks files, needs code of its own, is `out`, or fails a
            check of `folder_gates`: there is no row for a token, a stored head is lost, special ids disagree, ...
        TokenizerError: the tokenizer does not fit the model.
        DiskFullError: no space is left; `out` is untouched.
    """
    model, out = Path(model), Path(out)
    config = _check(model, out)
    weights = open_weights(model)
    with staged_folder(out) as staging:
        copied = [*weight_files(model), *(name for name in _COPIED if (model / name).is_file())]
        found = (str(path.relative_to(model)) for pattern in _PATTERNS for path in sorted(model.glob(pattern)))
        copied += [name for name in found if name != MANIFEST]
        for name in copied:
            (staging / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(model / name, staging / name)
        write_json(staging / "config.json", _without(config, _PRIVATE))
        settings = tokenizer_config(model)
        write_json(staging / "tokenizer_config.json", settings)
        if "special_tokens_map.json" not in copied:
            named = {f"{name}_token": settings.get(f"{name}_token") for name in SPECIAL}
            write_json(staging / "special_tokens_map.json", {key: text for key, text in named.items() if text})
        if "generation_config.json" not in copied:
            ids = {f"{name}_token_id": config.get(f"{name}_token_id") for name in ("bos", "eos", "pad")}
            write_json(staging / "generation_config.json", {k: i for k, i in ids.items() if i is not None})
        _same_weights(model, staging)
        if is_spm(read_json(staging / "tokenizer.json")) and not (staging / MODEL).is_file():
            (staging / MODEL).write_bytes(made_model(staging))
        gates = passed(folder_gates(staging), model)
        files = write_manifest(staging, "hf", gates)
    return {
        "format": "hf",
        "folder": str(out),
        "files": files,
        "gates": gates,
        "parameters": weights.parameters,
        "tokens": tokenizer_size(read_json(out / "tokenizer.json")),
        "rows": config.get("vocab_size"),
    }


def passed(gates: list[dict[str, Any]], model: Path) -> list[dict[str, Any]]:
    """The gates, all passed.

    Raises:
        ModelError: one failed.
    """
    for gate in gates:
        if not gate["passed"]:
            raise ModelError(f"{model} cannot be exported: {gate['name']}: {gate['value']}")
    return gates


def _check(model: Path, out: Path) -> dict[str, Any]:
    if not (model / "config.json").is_file():
        raise ModelError(f"{model} has no config.json: it is no model folder")
    if model.resolve() == out.resolve():
        raise ModelError(f"the export cannot replace the model it is made from ({model}); choose another folder")
    check_causal_lm(model)
    check_tokenizer_fits(model)
    config: dict[str, Any] = read_json(model / "config.json")
    if config.get("auto_map"):
        raise ModelError(
            f"{model} needs code of its own (auto_map in config.json), so plain transformers cannot load it"
        )
    shapes = open_weights(model).shapes
    rows = config.get("vocab_size")
    if EMBEDDING in shapes and rows is not None and shapes[EMBEDDING][0] != rows:
        raise ModelError(
            f"{model}: config.json says vocab_size {rows:,}, the embedding has "
            f"{shapes[EMBEDDING][0]:,} rows; resize the model again, both must agree"
        )
    return config


def _without(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def tokenizer_config(model: Path) -> dict[str, Any]:
    """What tokenizer_config.json says in an export: the model's, with the class that takes tokenizer.json as it is."""
    path = model / "tokenizer_config.json"
    values = read_json(path) if path.is_file() else {}
    # A class of its own may rebuild the tokenizer from code and ignore parts of tokenizer.json.
    return {**_without(values, (*_PRIVATE, "auto_map")), "tokenizer_class": "PreTrainedTokenizerFast"}


def clean_config(model: Path) -> dict[str, Any]:
    """A model's config without what tells of the machine it was made on."""
    return _without(read_json(model / "config.json"), _PRIVATE)


def _same_weights(model: Path, copy: Path) -> None:
    """Guard against a copy that went wrong on the way to the device."""
    for name in weight_files(model):
        if sha256_file(model / name) != sha256_file(copy / name):
            raise ModelError(f"{name} changed while it was copied; is {model} still being written?")


def export_adapter(model: Path, out: Path, *, base: str | None = None) -> dict[str, Any]:
    """Write a clean adapter folder: LoRA, new rows and tokenizer of the adapter folder `model`, nothing else.

    Args:
        base: the base's name for whoever loads it, such as its hub id; by default the name that the adapter has,
            without the folders of this machine.

    Returns:
        `format, folder, files` (name -> `{bytes, sha256}`)`, base, new_rows, gates`.

    Raises:
        ModelError: `model` is no adapter folder, is damaged, or is `out`.
        DiskFullError: no space is left; `out` is untouched.
    """
    from langgraft.training.adapter import CONFIG, FACTS, WEIGHTS, copy_side_files, read_adapter

    model, out = Path(model), Path(out)
    facts, _ = read_adapter(model)
    if model.resolve() == out.resolve():
        raise ModelError(f"the export cannot replace the adapter it is made from ({model}); choose another folder")
    name = base or (Path(facts.base).name if Path(facts.base).expanduser().exists() else facts.base)
    with staged_folder(out) as staging:
        shutil.copyfile(model / WEIGHTS, staging / WEIGHTS)
        copy_side_files(model, staging)
        write_json(staging / CONFIG, {**read_json(model / CONFIG), "base_model_name_or_path": name})
        write_json(staging / FACTS, {**read_json(model / FACTS), "base": name})
        write_json(staging / "tokenizer_config.json", tokenizer_config(model))
        rows = facts.rows - facts.first_row
        gates = adapter_gates(rows)
        files = write_manifest(staging, "adapter", gates)
    return {"format": "adapter", "folder": str(out), "files": files, "base": name, "new_rows": rows, "gates": gates}


def export_merged(model: Path, out: Path, *, base: str | None = None, dtype: str = "float32") -> dict[str, Any]:
    """Write a hub folder of base, LoRA and new rows in one, from the adapter folder `model`.

    Args:
        base: folder, hub id, GGUF file or `package:NAME`; by default the one the adapter names.
        dtype: float32, bfloat16 or float16.

    Returns:
        What `export_hf` returns.

    Raises:
        ModelError: `model` is no adapter folder, the base is another one, or the format is unknown.
        DiskFullError: no space is left; `out` is untouched.
    """
    from langgraft.training.adapter import merge_adapter

    model, out = Path(model), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}merge-", dir=out.parent) as scratch:
        merged = merge_adapter(model, Path(scratch) / out.name, base=base, dtype=dtype)
        return {**export_hf(merged, out), "format": "merged"}


def export_gguf(
    model: Path,
    out: Path,
    *,
    quant: tuple[str, ...] = ("f16", "q8_0"),
    pre: str | None = None,
    accept_mismatch: float = 0.0,
    name: str | None = None,
) -> dict[str, Any]:
    """Write `out/<name>-<quant>.gguf` for every quant; each file appears only when it is whole.

    Args:
        quant: names of `gguf_quants.QUANTS`; k-quants need llama-cpp-python.
        pre: `tokenizer.ggml.pre`, where the choice made from the tokenizer is not wanted.
        accept_mismatch: share of the parity lines that may get other token ids, where llama.cpp has no
            pre-tokenizer that splits as the tokenizer does.
        name: the model's name; by default the name of its folder.

    Returns:
        `format, folder, files` (quant -> what `write_gguf` returns)`, gates`.

    Raises:
        ModelError: no or an unknown quant, the model cannot be expressed in GGUF, or a check of `folder_gates` fails.
        LanggraftError: a k-quant is wanted and llama-cpp-python is not installed.
        DiskFullError: no space is left.
    """
    model, out = Path(model), Path(out)
    wanted = (quant,) if isinstance(quant, str) else tuple(dict.fromkeys(quant))
    unknown = [kind for kind in wanted if kind not in QUANTS]
    if unknown or not wanted:
        raise ModelError(f"unknown GGUF type `{', '.join(unknown) or 'none'}`; choose from {', '.join(QUANTS)}")
    title = name or model.resolve().name
    read_config(model)
    gates = passed(folder_gates(model, model_file=False), model)
    reason = None
    if pre is None and _is_byte_level(model):
        pre, reason = choose_pre(model, accept_mismatch=accept_mismatch)
    files = _write_all(model, out, title, wanted, pre)
    for facts in files.values():
        facts["pre_reason"] = reason or facts["pre_reason"]
        note = fallback_note(facts["quant"], facts["fallback"])
        facts["notes"] = [*facts["notes"], *([note] if note else [])]
    return {"format": "gguf", "folder": str(out), "files": files, "gates": gates}


def _write_all(model: Path, out: Path, title: str, wanted: tuple[str, ...], pre: str | None) -> dict[str, Any]:
    """One file for every quant; k-quants are made by llama.cpp from one of 16 bits, kept only if it is wanted."""
    files = {
        kind: write_gguf(model, out / f"{title}-{kind}.gguf", quant=kind, pre=pre, name=title)
        for kind in wanted
        if kind not in K_QUANTS
    }
    rest = [kind for kind in wanted if kind in K_QUANTS]
    if rest:
        library()
        with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}quants-", dir=_made(out)) as scratch:
            source = files.get("f16") or write_gguf(model, Path(scratch) / "f16.gguf", pre=pre, name=title)
            for kind in rest:
                path = out / f"{title}-{kind}.gguf"
                made = quantise(Path(source["path"]), path, kind)
                files[kind] = {**source, **made, "path": str(path), "quant": kind}
    return {kind: files[kind] for kind in wanted}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_byte_level(model: Path) -> bool:
    path = model / "tokenizer.json"
    document = read_json(path) if path.is_file() else {}
    return is_byte_level(document) and document.get("model", {}).get("type") == "BPE"


# name -> "module:function", as `langgraft.methods.resolve` takes it; called as (model, out, **options).
EXPORTS: Mapping[str, str] = {
    "hf": "langgraft.exporting.formats:export_hf",
    "gguf": "langgraft.exporting.formats:export_gguf",
    "nemo-data": "langgraft.exporting.nemo:export_nemo_data",
    "ollama": "langgraft.exporting.ollama:export_ollama",
    "adapter": "langgraft.exporting.formats:export_adapter",
    "merged": "langgraft.exporting.formats:export_merged",
    "megatron": "langgraft.exporting.megatron:export_megatron",
    "onnx": "langgraft.exporting.onnx:export_onnx",
}


def export(model: Path, out: Path, *, to: str = "hf", **options: Any) -> dict[str, Any]:
    """Export a model folder by the name of a format in `EXPORTS`, with that format's options.

    Raises:
        RecipeError: unknown format or option.
    """
    function = resolve(EXPORTS, to, what="export")
    check_options(function, options, what=f"export `{to}`")
    summary: dict[str, Any] = function(Path(model), Path(out), **options)
    return summary
