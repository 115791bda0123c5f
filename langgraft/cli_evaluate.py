"""The command `evaluate`; what it does is in `langgraft.commands_evaluate`."""

from typing import Annotated

import typer

from langgraft.cli_options import Json, Out, show_json


def evaluate(
    models: Annotated[
        list[str],
        typer.Option(help="Models, the base first: folder, adapter, .gguf, package:NAME, hub id, or http://…/v1#NAME."),
    ],
    target: Annotated[list[str], typer.Option(help="Held-out text in the new language.")],
    language: Annotated[str, typer.Option(help="Code of the new language.")],
    out: Out,
    more: Annotated[list[str] | None, typer.Argument(help="More models; NAME=MODEL names one.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Held-out text in the source language.")] = None,
    source_language: Annotated[str, typer.Option(help="Code of the source language.")] = "en",
    documents: Annotated[int, typer.Option(min=2, help="At most this many documents per language.")] = 500,
    window: Annotated[int, typer.Option(min=16, help="Longest context in tokens.")] = 512,
    stride: Annotated[int, typer.Option(min=1, help="How far windows advance over longer documents.")] = 256,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Json = False,
) -> None:
    """Measure models on held-out text, with intervals; the same command goes on after an interruption."""
    from langgraft.commands_evaluate import evaluate_command

    result = evaluate_command(
        [*models, *(more or [])],
        {"target": (target, language), "source": (source or [], source_language)},
        out,
        documents=documents,
        window=window,
        stride=stride,
        threads=threads,
        device=device,
    )
    if as_json:
        show_json(result)


def add_to(app: typer.Typer) -> None:
    """Give the command line this command."""
    app.command()(evaluate)
