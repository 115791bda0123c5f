"""What the commands on tokenizers do: `advise` and `tokenizer …`."""

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langgraft.commands import NO_LLAMA_CPP, based, free, tokenizer_base, tokenizer_of
from langgraft.corpus.stream import Learning, stream, texts_of
from langgraft.errors import RecipeError
from langgraft.methods import suggest
from langgraft.progress import Log
from langgraft.runs import versions
from langgraft.store import staged_folder, write_json
from langgraft.text import language as language_of

if TYPE_CHECKING:
    from langgraft.tokenizer.extend import Extension


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
