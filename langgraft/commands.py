"""What the single-stage commands do: the library's functions on folders, outside any recipe."""

import contextlib
import importlib.util
import shlex
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.base import locate, materialise, tokenizer_folder
from langgraft.corpus.document import Input
from langgraft.corpus.stream import texts_of
from langgraft.errors import RecipeError
from langgraft.methods import suggest
from langgraft.progress import Log
from langgraft.store import TEMPORARY

NO_LLAMA_CPP = "not checked: llama-cpp-python is not installed; pip install 'langgraft[llamacpp]'"
VERIFY_DOCUMENTS = 100  # of each language, in which a gate compares base and extended model


@contextlib.contextmanager
def based(name: str) -> Iterator[Path]:
    """A hub folder for any base; one made from GGUF lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        yield materialise(locate(name), Path(scratch) / "base")


def reader_options(pairs: Sequence[str], inputs: Sequence[str]) -> list[dict[str, Any]]:
    """`name=value` and `INPUT:name=value` pairs as each input's options; those of one input go before those of all.

    Values are as in TOML, anything else is a string.

    Raises:
        RecipeError: a pair has no equals sign, or its input is not there.
    """
    for_all: dict[str, Any] = {}
    for_one: dict[str, dict[str, Any]] = {name: {} for name in inputs}
    for pair in pairs:
        one = max((name for name in inputs if pair.startswith(f"{name}:")), key=len, default="")
        name, equals, value = pair.removeprefix(f"{one}:").partition("=")
        if not equals:
            raise RecipeError(f"--option {pair} must be name=value, such as --option code=keep")
        if ":" in name:
            wrong = name.rpartition(":")[0]
            raise RecipeError(
                f"--option {pair}: {wrong} is no input; write it as among the inputs: {', '.join(inputs)}"
            )
        options = for_one[one] if one else for_all
        try:
            options[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name.strip()] = value
    return [{**for_all, **for_one[name]} for name in inputs]


def corpus_command(
    inputs: Sequence[Input],
    out: Path,
    language: str,
    *,
    quality: bool,
    reference: Sequence[str],
    fineweb: Path | None,
    show_dropped: bool,
    **options: Any,
) -> dict[str, Any]:
    """`langgraft corpus`: the text, its data card and its page; `options` are those of `prepare`."""
    from langgraft.corpus.card import write_card
    from langgraft.corpus.prepare import prepare
    from langgraft.corpus.thresholds import thresholds
    from langgraft.evaluation.corpus_page import write_page

    log, clean = Log(), [Input(path) for path in reference]
    bounds = thresholds(language, wanted=quality, reference=clean, fineweb=fineweb)
    summary = prepare(inputs, out, language=language, thresholds=bounds, log=log, **options)
    write_card(out)
    write_page(out)
    log.say(f"wrote {out}: README.md (data card), corpus.html")
    for line in dropped_lines(summary) if show_dropped else ():
        log.say(line)
    return summary


def dropped_lines(summary: dict[str, Any], characters: int | None = 120) -> Iterator[str]:
    """What `prepare` left out: each reason with its number of documents and a few examples, for people.

    An example is one line of at most so many `characters`, or the whole text for None.
    """

    def shown(example: dict[str, str]) -> str:
        measured = f" ({example['measured']})" if "measured" in example else ""
        text = example["text"] if characters is None else " ".join(example["text"].split())[:characters]
        return f"    {example['id']}{measured}: {text}"

    for side in filter(None, (summary["target"], summary["source"])):
        for reason, facts in side["dropped"].items():
            yield f"{reason}: {facts['documents']:,} documents"
            yield from map(shown, facts["examples"])
        for reason, facts in side["dropped_lines"].items():
            yield f"{reason}: {facts['lines']:,} lines left out of {facts['documents']:,} documents"
            yield from map(shown, facts["examples"])


@contextlib.contextmanager
def tokenizer_of(name: str) -> Iterator[Path]:
    """A folder with the tokenizer of any base; one made from GGUF lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        yield tokenizer_folder(name, Path(scratch) / "tokenizer")


def tokenizer_base(name: str) -> contextlib.AbstractContextManager[Path]:
    """As `based`, for work on the tokenizer alone: a folder needs no weights, and none are downloaded.

    A GGUF file is made a whole folder, since its config names ids too.
    """
    gguf = name.startswith("package:") or name.endswith(".gguf")
    return based(name) if gguf else tokenizer_of(name)


def free(out: Path) -> None:
    """Check that `out` can be written without replacing anything.

    Raises:
        RecipeError: something is there already.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise RecipeError(f"{out} exists already; choose another folder with -o, or delete it first")


@dataclass(frozen=True)
class Texts:
    """Paths of text in the new language and in one the base knows, each with its language's code."""

    target: Sequence[str]
    code: str
    source: Sequence[str]
    source_code: str

    def read(self) -> dict[str, Any]:
        """Texts enough for a gate; none where there are no paths.

        Raises:
            CorpusError: an input cannot be read, or there is no text.
        """
        sides = {"target_texts": (self.target, self.code), "source_texts": (self.source, self.source_code)}
        return {
            name: texts_of(paths, code)[:VERIFY_DOCUMENTS] if paths else [] for name, (paths, code) in sides.items()
        }


def surgery_command(
    base: str, tokenizer: Path, out: Path, texts: Texts, options: str, **arguments: Any
) -> dict[str, Any]:
    """`langgraft surgery`: resize, then every gate on the written folder; `arguments` are those of extend_model."""
    free(out)
    try:
        chosen = tomllib.loads(f"options = {options}")["options"]
    except tomllib.TOMLDecodeError:
        chosen = None
    if not isinstance(chosen, dict):
        raise RecipeError(f"--options {options}: write a TOML table, as in a recipe: '{{std = 0.01}}'")
    read = texts.read()
    whole = (lambda: iter(texts_of(texts.target, texts.code))) if texts.target else None
    from langgraft.surgery.extend import extend_model

    return extend_model(base, tokenizer, out, options=chosen, texts=whole, log=Log(), **read, **arguments).as_dict()


def verify_command(base: str, model: Path, texts: Texts, *, models: bool) -> dict[str, Any]:
    """`langgraft verify`: every gate on an extended model that exists already."""
    read = texts.read()
    from langgraft.surgery.verify import verify

    with based(base) as folder:
        gates = verify(folder, model, models=models, log=Log(), **read)
    return {"base": base, "model": str(model), "gates": [gate.as_dict() for gate in gates]}


def manifest_command(folder: Path) -> dict[str, Any]:
    """`langgraft verify FOLDER`: an export holds what was written, and a hub folder still agrees with itself."""
    from langgraft.exporting.folder_gates import folder_gates, is_hub_folder
    from langgraft.exporting.manifest import manifest_gates

    gates = manifest_gates(folder)
    if gates[0]["passed"] and is_hub_folder(folder):
        gates += folder_gates(folder)
    return {"folder": str(folder), "gates": gates}


def export_command(
    model: Path | None,
    out: Path,
    to: str,
    quant: Sequence[str],
    accept_mismatch: float = 0.0,
    checkpoint: str | None = None,
    **given: str | int | None,
) -> dict[str, Any]:
    """`langgraft export`: one format of the table; GGUF is checked in llama.cpp, if there. `given`: options or None."""
    if model is not None and checkpoint is not None:
        raise RecipeError("give either --model or --checkpoint")
    if to == "nemo-data":
        raise RecipeError("--checkpoint is for models; nemo-data takes --tokenizer FOLDER")
    if to not in ("gguf", "ollama"):
        free(out)
    if checkpoint is not None:
        with _taken(checkpoint, out, to) as folder:
            return export_command(folder, out, to, quant, accept_mismatch, None, **given)
    if model is None:
        raise RecipeError(f"--to {to} needs a model: give --model FOLDER, or --checkpoint FOLDER")
    from langgraft.exporting.formats import export
    from langgraft.exporting.gguf_quants import QUANTS

    unknown = [name for name in quant if name not in QUANTS]
    if unknown:
        raise RecipeError(f"--quant {unknown[0]} is unknown; {suggest(unknown[0], QUANTS)}")
    options: dict[str, Any] = (
        {"quant": tuple(quant), "accept_mismatch": accept_mismatch} if to in ("gguf", "ollama") else {}
    )
    options |= {name: value for name, value in given.items() if value is not None}
    summary = export(model, out, to=to, **options)
    if to in ("gguf", "ollama"):
        _proven(model, summary, accept_mismatch)
    for line in summary.get("arguments", []):
        Log().say(line)
    Log().say(f"wrote {out}")
    return summary


@contextlib.contextmanager
def _taken(checkpoint: str, out: Path, to: str) -> Iterator[Path]:
    """The model, or the adapter, of a training's checkpoint, as long as the block; named as the training's folder."""
    from langgraft.training.taking import place_of, take_checkpoint

    folder, _ = place_of(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}checkpoint-", dir=out.parent) as scratch:
        step = take_checkpoint(checkpoint, Path(scratch), log=Log())
        made = Path(scratch) / ("adapter" if to in ("adapter", "merged") else "model")
        if not made.is_dir():
            raise RecipeError(f"{checkpoint}: what was trained is more than an adapter can hold; use --to hf")
        yield made.rename(made.with_name(f"{folder.resolve().name}-step-{step}"))


def nemo_command(
    tokenizer: Path | None,
    out: Path,
    corpus: Sequence[str],
    weight: Sequence[str],
    **options: Any,
) -> dict[str, Any]:
    """`langgraft export --to nemo-data`: a corpus as Megatron's indexed datasets, and the arguments to mix them."""
    if tokenizer is None:
        raise RecipeError("--to nemo-data needs a tokenizer: give --tokenizer FOLDER, or --model FOLDER")
    free(out)
    from langgraft.exporting.formats import export

    weights = dict(_weight(pair) for pair in weight) or None
    summary = export(tokenizer, out, to="nemo-data", corpus=tuple(corpus), weights=weights, log=Log(), **options)
    for damaged in summary["report"]["damaged"]:
        Log().say(f"damaged: {damaged['reason']} ({damaged['documents']:,} documents before it are kept)")
    for split, blend in summary["mixture"].items():
        option = "--data-path" if len(summary["mixture"]) == 1 else f"--{split}-data-path"
        Log().say(f"{option} {shlex.join(blend)}")
    Log().say(f"wrote {out}")
    return {**summary, "gates": []}


def _weight(pair: str) -> tuple[str, float]:
    name, _, value = pair.rpartition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise RecipeError(f"--weight {pair} must be name=number, such as --weight target=0.8") from error


def _proven(model: Path, summary: dict[str, Any], accept_mismatch: float) -> None:
    """Add the gates of the GGUF files to the summary and say what was found, where llama.cpp is installed."""
    for note in dict.fromkeys(note for facts in summary["files"].values() for note in facts["notes"]):
        Log().say(note)
    from langgraft.exporting.manifest import write_manifest

    if importlib.util.find_spec("llama_cpp") is None:
        for facts in summary["files"].values():
            Log().say(f"{facts['path']} is {NO_LLAMA_CPP}")
        write_manifest(Path(summary["folder"]), summary["format"], summary["gates"])
        return
    from langgraft.exporting.parity_lines import parity_lines
    from langgraft.exporting.prove import prove_all, table_lines

    proven = prove_all(model, summary, parity_lines(), accept_mismatch=accept_mismatch)
    summary |= {"table": proven["table"], "warnings": proven["warnings"], "gates": summary["gates"] + proven["gates"]}
    for line in (*table_lines(proven["table"]), *(f"warning: {text}" for text in proven["warnings"])):
        Log().say(line)
