"""The commands `langgraft tokenizer …`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from langgraft.cli_options import BaseName, Donor, Json, MaxChangedSource, Out, Source, judged, show_json
from langgraft.errors import RecipeError

tokenizer_app = typer.Typer(help="Extend a tokenizer, and prove it.", no_args_is_help=True, rich_markup_mode=None)


@tokenizer_app.command("extend")
def tokenizer_extend(
    base: BaseName,
    corpus: Annotated[list[str], typer.Option(help="Text to learn from; may be given more than once.")],
    out: Out,
    language: Annotated[str, typer.Option(help="Code of the language.")],
    new_tokens: Annotated[str, typer.Option(help="How many tokens to add; auto: as many as advise says.")] = "2048",
    method: Annotated[
        str,
        typer.Option(
            help="continue: further merges; train: a new tokenizer, merged; sentencepiece: pieces by score, "
            "for SentencePiece bases; added: for comparison only."
        ),
    ] = "continue",
    vocab_size: Annotated[
        int | None,
        typer.Option(help="For train, sentencepiece: size of the tokenizer trained; as needed by default."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that count words; 0 takes every core.")] = 0,
    source: Source = None,
    max_changed_source: MaxChangedSource = 0.01,
    as_json: Json = False,
) -> None:
    """Learn new tokens on top of a base's tokenizer, and prove the result."""
    from langgraft.commands_tokenizer import extend_command

    count = _count(new_tokens)
    result = extend_command(
        base, corpus, out, language, count, method, vocab_size, source or [], max_changed_source, workers
    )
    judged(result, as_json)


def _count(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise RecipeError(f"--new-tokens {text} is no number; give one from 1 on, or `auto`")
    return int(text)


@tokenizer_app.command("merge")
def tokenizer_merge(
    base: BaseName,
    donor: Donor,
    out: Out,
    language: Annotated[str, typer.Option(help="Code of the language; only tokens in its scripts are taken.")],
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Take at most this many; all by default.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text to measure on; may be given more than once.")] = None,
    source: Source = None,
    max_changed_source: MaxChangedSource = 0.01,
    as_json: Json = False,
) -> None:
    """Take the tokens of a donor tokenizer that a language needs, and prove the result."""
    from langgraft.commands_tokenizer import merge_command

    found = merge_command(base, donor, out, language, text or [], max_new_tokens, source or [], max_changed_source)
    judged(found, as_json)


@tokenizer_app.command("compare")
def tokenizer_compare(
    base: BaseName,
    extended: Annotated[Path, typer.Option(help="Folder of the extended tokenizer.")],
    text: Annotated[list[str], typer.Option(help="Text to cut; may be given more than once.")],
    language: Annotated[str, typer.Option(help="Code of the language.")],
    donor: Annotated[str | None, typer.Option(help="A third tokenizer to show, given as a base is.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="HTML page to write.")] = None,
    sentences: Annotated[int, typer.Option(min=1, help="How many sentences to show.")] = 12,
    as_json: Json = False,
) -> None:
    """Show the same sentences cut by base, donor and extended tokenizer, token under token."""
    from langgraft.commands_tokenizer import compare_command

    result = compare_command(base, extended, donor, text, language, out, sentences)
    if as_json:
        show_json(result)


@tokenizer_app.command("report")
def tokenizer_report(
    base: BaseName,
    extended: Annotated[Path, typer.Option(help="Folder of the extended tokenizer.")],
    text: Annotated[list[str], typer.Option(help="Text to measure on; may be given more than once.")],
    language: Annotated[str, typer.Option(help="Code of the language.")],
    source: Source = None,
    max_changed_source: MaxChangedSource = 0.01,
    fuzz: Annotated[int, typer.Option(min=0, help="Random strings of any Unicode for the round trip.")] = 2000,
    as_json: Json = False,
) -> None:
    """Measure fertility and run every gate; exit 1 if one fails."""
    from langgraft.commands_tokenizer import report_command

    judged(report_command(base, extended, text, language, source or [], max_changed_source, fuzz), as_json)
