"""What the single-stage commands do: the library's functions on folders, outside any recipe."""

import contextlib
import importlib.util
import shlex
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langgraft.base import locate, materialise, tokenizer_folder
from langgraft.corpus.document import Input
from langgraft.corpus.stream import Learning, stream, texts_of
from langgraft.errors import RecipeError
from langgraft.methods import suggest
from langgraft.progress import Log
from langgraft.runs import versions
from langgraft.store import staged_folder, write_json
from langgraft.text import language as language_of

if TYPE_CHECKING:
    from langgraft.tokenizer.extend import Extension

NO_LLAMA_CPP = "not checked: llama-cpp-python is not installed; pip install 'langgraft[llamacpp]'"
VERIFY_DOCUMENTS = 100  # of each language, in which a gate compares base and extended model


@contextlib.contextmanager
def based(name: str) -> Iterator[Path]:
    """A hub folder for any base; one made from GGUF lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        yield materialise(locate(name), Path(scratch) / "base")


def reader_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` pairs as a reader's options; values as in TOML, anything else is a string.

    Raises:
        RecipeError: a pair has no equals sign.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"--option {pair} must be name=value, such as --option code=keep")
        try:
            options[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name.strip()] = value
    return options


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


def extend_command(
    base: str,
    corpus: Sequence[str],
    out: Path,
    code: str,
    new_tokens: int | Literal["auto"],
    method: str = "continue",
    vocab_size: int | None = None,
    source: Sequence[str] = (),
    max_changed_source: float = 0.01,
    workers: int = 0,
) -> dict[str, Any]:
    """`langgraft tokenizer extend`: every twentieth document is held out to measure on."""
    from langgraft.tokenizer.methods import LEARNING, apply, method_used

    if method == "merge":
        raise RecipeError("--method merge takes tokens from a donor: use `langgraft tokenizer merge --donor …`")
    if method not in LEARNING:
        raise RecipeError(f"--method {method} is unknown; {suggest(method, LEARNING)}")
    if vocab_size is not None and method not in ("train", "sentencepiece"):
        raise RecipeError(f"--vocab-size is for --method train; `{method}` trains no tokenizer of its own")
    free(out)
    known, source_known = language_of(code), language_of("en")
    shared = sorted(set(known.scripts) & set(source_known.scripts))
    if shared and known != source_known and not source:
        raise RecipeError(
            f"{known.name} is written in {shared[0]} letters, as the base's own language is, so new tokens may change "
            "how that is cut; give --source text, so that it is kept within --max-changed-source"
        )
    train, source_train = Learning(stream(corpus, code)), Learning(stream(source, "en") if source else ())
    source_learned = list(source_train)
    with tokenizer_base(base) as folder, staged_folder(out) as staging:
        options: dict[str, Any] = {
            "vocab_size": vocab_size,
            "workers": workers,
            "log": Log(),
            "source_texts": source_learned,
        }
        options["max_changed_source"] = max_changed_source if shared and source else None
        extension = apply(method, folder, train, staging, language=known, new_tokens=new_tokens, **options)
        used = method_used(method, extension)
        held = (train.held_out, source_train.held_out)
        return _finish(folder, staging, held[0], code, used, extension, held[1], max_changed_source)


def merge_command(
    base: str,
    donor: str,
    out: Path,
    code: str,
    text: Sequence[str],
    max_new_tokens: int | None,
    source: Sequence[str] = (),
    max_changed_source: float = 0.01,
) -> dict[str, Any]:
    """`langgraft tokenizer merge`: without `text`, nothing is measured, and only built-in lines are tried."""
    from langgraft.tokenizer.methods import apply

    free(out)
    known = language_of(code)
    texts, source_texts = texts_of(text, code) if text else [], texts_of(source, "en") if source else []
    with tokenizer_base(base) as folder, tokenizer_of(donor) as giver, staged_folder(out) as staging:
        extension = apply(
            "merge", folder, (), staging, language=known, new_tokens=max_new_tokens, donor=giver, log=Log()
        )
        return _finish(folder, staging, texts, code, "merge", extension, source_texts, max_changed_source)


def _finish(
    base: Path,
    staging: Path,
    texts: list[str],
    code: str,
    method: str,
    extension: "Extension",
    source: list[str],
    max_changed_source: float,
) -> dict[str, Any]:
    """Pin, prove and measure a new tokenizer folder, and write its summary."""
    from langgraft.tokenizer.prove import write_pin

    write_pin(staging)
    result = _judge(base, staging, texts, code, source, max_changed_source)
    result["method"] = method
    result["advice"] = extension.advice
    result["new_tokens"] = len(extension.tokens)
    result["pre_tokenizer_repaired"] = extension.pre_tokenizer_repaired
    write_json(staging / "summary.json", result)
    Log().say(f"{len(extension.tokens):,} new tokens by method `{method}`")
    return result


def compare_command(
    base: str, extended: Path, donor: str | None, text: Sequence[str], code: str, out: Path | None, sentences: int
) -> dict[str, Any]:
    """`langgraft tokenizer compare`: sentences side by side in the terminal, and as a page when `out` is given."""
    from langgraft.tokenizer.compare import compare, terminal

    if out is not None and out.exists():
        raise RecipeError(f"{out} exists already; choose another file with -o, or delete it first")
    known, texts = language_of(code), texts_of(text, code)
    with contextlib.ExitStack() as stack:
        tokenizers = {"base": stack.enter_context(tokenizer_of(base))}
        if donor is not None:
            tokenizers["donor"] = stack.enter_context(tokenizer_of(donor))
        comparison = compare({**tokenizers, "extended": extended}, texts, known, sentences=sentences)
    for line in terminal(comparison):
        Log().say(line)
    if out is not None:
        from langgraft.evaluation.cuts import write_page

        write_page(comparison, known, out)
        Log().say(f"wrote {out}")
    return comparison.as_dict()


def report_command(
    base: str,
    extended: Path,
    text: Sequence[str],
    code: str,
    source: Sequence[str] = (),
    max_changed_source: float = 0.01,
    fuzz: int = 2000,
) -> dict[str, Any]:
    """`langgraft tokenizer report`: fertility and gates of an extended tokenizer, on `fuzz` random strings."""
    from langgraft.tokenizer.prove import check_pin

    check_pin(extended)
    source_texts = texts_of(source, "en") if source else []
    with tokenizer_base(base) as folder:
        return _judge(folder, extended, texts_of(text, code), code, source_texts, max_changed_source, fuzz)


def advise_command(
    base: str,
    corpus: Sequence[str],
    code: str,
    source: Sequence[str],
    source_code: str,
    tokens: int | None,
    parameters: int | None,
    out: Path,
) -> dict[str, Any]:
    """`langgraft advise`: whether to extend, and by how many tokens; advice.json and advice.html."""
    from langgraft.evaluation.advice import write_advice
    from langgraft.tokenizer.advise import ENGLISH, advise

    free(out)
    known, source_language = language_of(code), language_of(source_code)
    if not source and source_language.code != "en":
        raise RecipeError(f"--source-language {source_code} needs text in {source_language.name}: give --source too")
    texts, yardstick = texts_of(corpus, code), texts_of(source, source_code) if source else ENGLISH
    with based(base) as folder, staged_folder(out) as staging:
        advice = advise(
            folder,
            texts,
            language=known,
            source_texts=yardstick[:1000],
            source_language=source_language,
            tokens=tokens,
            parameters=parameters,
            log=Log(),
        )
        result = {"langgraft": versions().get("langgraft", ""), "base": base, **advice.as_dict()}
        write_advice(result, staging)
    Log().say(
        "\n".join(["", advice.headline, *(f"- {reason}" for reason in advice.reasons), f"wrote {out}/advice.html"])
    )
    return result


def _judge(
    base: Path,
    extended: Path,
    texts: list[str],
    code: str,
    source: list[str],
    max_changed_source: float,
    fuzz: int = 2000,
) -> dict[str, Any]:
    from langgraft.tokenizer.effects import changed_code_points, occurrences
    from langgraft.tokenizer.files import load, read_tokenizer
    from langgraft.tokenizer.measure import fertility
    from langgraft.tokenizer.prove import prove
    from langgraft.tokenizer.scope import Scope

    known = language_of(code)
    gates = prove(
        base,
        extended,
        known,
        target_texts=texts[:2000],
        source_texts=source[:2000],
        fuzz=fuzz,
        max_changed_source=1.0 if known.code == "en" else max_changed_source,
    )
    old, new = load(base), load(extended)
    result: dict[str, Any] = {
        "gates": [*(gate.as_dict() for gate in gates), *_llamacpp(base, extended, texts)],
        "changed_code_points": changed_code_points(old, new, Scope(known.scripts)),
    }
    if texts:
        result["occurrences"] = occurrences(read_tokenizer(base), read_tokenizer(extended), new, texts)
        result["fertility"] = {
            "base": fertility(base, texts, known).as_dict(),
            "extended": fertility(extended, texts, known).as_dict(),
        }
    return result


def _llamacpp(base: Path, tokenizer: Path, texts: list[str]) -> list[dict[str, Any]]:
    """Whether llama.cpp, where it is installed, gives the same ids."""
    if importlib.util.find_spec("llama_cpp") is None:
        Log().say(f"llama.cpp gives the same token ids: {NO_LLAMA_CPP}")
        return []
    from langgraft.exporting.pre_rates import tokenizer_gate

    return [tokenizer_gate(tokenizer, texts, base=base)]


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


def evaluate_command(
    models: Sequence[str],
    target: Sequence[str],
    code: str,
    source: Sequence[str],
    source_code: str,
    documents: int,
    out: Path,
) -> dict[str, Any]:
    """`langgraft evaluate`: compare two models on held-out text."""
    from langgraft.evaluation.compare import compare

    if len(models) != 2:
        raise RecipeError(
            f"--models must be given twice, the base and the adapted model; it was given {len(models)} times"
        )
    free(out)
    result: dict[str, Any] = {"bits_per_byte": {}, "tokens": {}}
    with based(models[0]) as base, based(models[1]) as adapted, staged_folder(out) as staging:
        for side, paths, side_code in (("target", target, code), ("source", source, source_code)):
            if paths:
                texts = texts_of(paths, side_code)[:documents]
                found = compare(base, adapted, texts, language_of(side_code), log=Log())
                result["bits_per_byte"][side], result["tokens"][side] = found["bits_per_byte"], found["tokens"]
        write_json(staging / "results.json", result)
    for side, bits in result["bits_per_byte"].items():
        change = bits["change"]
        Log().say(
            f"{side}: {bits['base']['mean']:.3f} -> {bits['adapted']['mean']:.3f} bits per byte "
            f"({change['mean']:+.1%}, {change['low']:+.1%} to {change['high']:+.1%})"
        )
    return result


def export_command(
    model: Path | None, out: Path, to: str, quant: Sequence[str], accept_mismatch: float = 0.0, **given: str | None
) -> dict[str, Any]:
    """`langgraft export`: one format of the table; GGUF is checked in llama.cpp, if there. `given`: options or None."""
    if model is None:
        raise RecipeError(f"--to {to} needs a model: give --model FOLDER")
    if to != "gguf":
        free(out)
    from langgraft.exporting.formats import export
    from langgraft.exporting.gguf_writer import QUANTS

    unknown = [name for name in quant if name not in QUANTS]
    if unknown:
        raise RecipeError(f"--quant {unknown[0]} is unknown; {suggest(unknown[0], QUANTS)}")
    options: dict[str, Any] = {"quant": tuple(quant), "accept_mismatch": accept_mismatch} if to == "gguf" else {}
    options |= {name: value for name, value in given.items() if value is not None}
    summary = export(model, out, to=to, **options)
    summary["gates"] = [gate for facts in _gguf_files(summary) for gate in _parity(model, facts, accept_mismatch)]
    Log().say(f"wrote {out}")
    return summary


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


def _gguf_files(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return list(summary["files"].values()) if summary["format"] == "gguf" else []


def _parity(model: Path, facts: dict[str, Any], accept_mismatch: float) -> list[dict[str, Any]]:
    """Token parity of one GGUF file, where llama.cpp is installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        Log().say(f"{facts['path']} is {NO_LLAMA_CPP}")
        return []
    from langgraft.exporting.parity import token_gate, token_parity
    from langgraft.exporting.parity_lines import parity_lines

    found = token_parity(model, Path(facts["path"]), parity_lines())
    return [token_gate(found, facts["quant"], accept_mismatch=accept_mismatch)]
