"""The command `evaluate`; what it does is in `langgraft.commands_evaluate`."""

from pathlib import Path
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
    parallel: Annotated[list[str] | None, typer.Option(help="Text in both languages, for translation choice.")] = None,
    continuation: Annotated[bool, typer.Option("--continuation", help="Continuation choice from the texts.")] = False,
    items: Annotated[int, typer.Option(min=20, help="Most items of a choice.")] = 200,
    options: Annotated[int, typer.Option(min=2, max=10, help="Options of an item.")] = 4,
    shots: Annotated[int, typer.Option(min=0, max=20, help="Example pairs before an item.")] = 3,
    translation: Annotated[list[str] | None, typer.Option(help="Text in both languages to translate.")] = None,
    translation_items: Annotated[int, typer.Option(min=20, help="Most sentences to translate.")] = 100,
    summaries: Annotated[list[str] | None, typer.Option(help="Rows of document and summary.")] = None,
    summaries_setting: Annotated[str, typer.Option(help="target, source or translate_test.")] = "target",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest translation or summary.")] = 128,
    ask: Annotated[str, typer.Option(help="few_shot, or chat: by the chat template, where there is one.")] = "few_shot",
    bleu_tokenizer: Annotated[
        str, typer.Option(help="sacrebleu's, such as zh, 13a, char; auto: by language.")
    ] = "auto",
    chat_questions: Annotated[int, typer.Option(min=0, max=24, help="Questions: do answers end?")] = 0,
    minimal_pairs: Annotated[list[str] | None, typer.Option(help="Rows of sentence_good and sentence_bad.")] = None,
    code_mixed: Annotated[list[str] | None, typer.Option(help="Text that mixes both languages.")] = None,
    train: Annotated[list[str] | None, typer.Option(help="Training text, none of which shall be asked for.")] = None,
    tasks: Annotated[str, typer.Option(help="lm-evaluation-harness: names with commas, or auto.")] = "",
    task_folder: Annotated[Path | None, typer.Option(help="Folder of task files (YAML) and their data.")] = None,
    task_limit: Annotated[int | None, typer.Option(min=1, help="At most this many samples of a task.")] = None,
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
        parallel=parallel or [],
        continuation=continuation,
        items=items,
        options=options,
        shots=shots,
        translation={
            "parallel": translation or [],
            "items": translation_items,
            "shots": shots,
            "ask": ask,
            "max_new_tokens": max_new_tokens,
            "tokenizer": bleu_tokenizer,
        },
        summarisation={
            Path(path).name.split(".")[0]: {
                "path": path,
                "setting": summaries_setting,
                "ask": ask,
                "max_new_tokens": max_new_tokens,
            }
            for path in summaries or []
        },
        chat_questions=chat_questions,
        minimal_pairs=minimal_pairs or [],
        code_mixed=code_mixed or [],
        train=train or [],
        tasks=tasks,
        task_folder=task_folder,
        task_limit=task_limit,
        threads=threads,
        device=device,
    )
    if as_json:
        show_json(result)


def add_to(app: typer.Typer) -> None:
    """Give the command line this command."""
    app.command()(evaluate)
