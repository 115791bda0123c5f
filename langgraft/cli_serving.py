"""The commands that talk: chat, serve, compare, infer. Their bodies are in langgraft/serving."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from langgraft.errors import InputError

Models = Annotated[list[str], typer.Argument(help="Folder, .gguf file, package:NAME or hub id; NAME=MODEL names it.")]
Model = Annotated[str, typer.Argument(help="Folder, .gguf file, package:NAME or hub id.")]
Host = Annotated[str, typer.Option(help="Address to listen on; other machines reach 0.0.0.0, never the default.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
Key = Annotated[
    str | None,
    typer.Option(envvar="LANGGRAFT_API_KEY", show_default=False, help="Ask clients for this key."),
]
Context = Annotated[int, typer.Option(min=0, help="Tokens per text, answer included; 0: the model's, at most 4,096.")]
Slots = Annotated[int, typer.Option(min=1, max=64, help="Texts that a model writes side by side.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")]
Device = Annotated[str, typer.Option(help="For hub folders: auto, cpu, cuda, mps.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Most tokens of one answer.")]
Waiting = Annotated[int, typer.Option(min=1, help="Most texts that wait for a model; more are refused.")]
MaxBody = Annotated[int, typer.Option(min=1000, help="Most bytes of a request.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends an answer; may be given more than once.")]
Temperature = Annotated[float, typer.Option(min=0, help="0: always the likeliest token.")]
TopP = Annotated[float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens that hold this share.")]
TopK = Annotated[int, typer.Option(min=0, help="Draw from the k likeliest tokens; 0: all.")]
MinP = Annotated[float, typer.Option(min=0, max=1, help="Leave out tokens below this share of the likeliest.")]
Penalty = Annotated[float, typer.Option(min=0.1, help="Above 1: tokens that were there become less likely.")]
Json = Annotated[bool, typer.Option("--json", help="Print a machine-readable summary on stdout.")]


def serve(
    models: Models,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: Key = None,
    context: Context = 0,
    slots: Slots = 4,
    max_tokens: MaxTokens = 1024,
    waiting: Waiting = 64,
    max_body: MaxBody = 1_000_000,
    threads: Threads = 0,
    device: Device = "auto",
) -> None:
    """Serve models over the OpenAI interface (chat, completions, streaming), with a page at /."""
    from langgraft.serving.run import serve as run

    run(
        models, host=host, port=port, api_key=api_key, context=context, slots=slots, threads=threads, device=device,
        limits={"body_bytes": max_body, "max_tokens": max_tokens, "waiting": waiting},
    )  # fmt: skip


def compare(
    models: Models,
    language: Annotated[str, typer.Option(help="Code of the language whose prompts come first.")] = "en",
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt of your own; may be given more than once.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: Key = None,
    context: Context = 0,
    threads: Threads = 0,
    device: Device = "auto",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Show models side by side on a web page: base and adapted, the same prompts, as they write."""
    import webbrowser

    from langgraft.serving.run import serve as run
    from langgraft.text import language as language_of

    if len(models) < 2:
        raise InputError("compare needs two models, such as the base and the adapted one")
    run(
        models, host=host, port=port, api_key=api_key, context=context, slots=2, threads=threads, device=device,
        page={"code": language_of(language).code, "prompts": prompt or []},
        opened=webbrowser.open if open_page and sys.stderr.isatty() else None,
    )  # fmt: skip


def chat(
    model: Model,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    language: Annotated[str, typer.Option(help="Ask for answers in this language, by code.")] = "",
    plain: Annotated[bool, typer.Option("--plain", help="Continue texts, without the chat template.")] = False,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.9,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.1,
    max_tokens: MaxTokens = 512,
    seed: Annotated[int | None, typer.Option(help="Makes answers repeatable.")] = None,
    stop: Stop = None,
    context: Context = 0,
    threads: Threads = 0,
    device: Device = "auto",
) -> None:
    """Talk with a model in the terminal; /help there lists what it knows."""
    from langgraft.serving.chat import Conversation, talk
    from langgraft.serving.models import open_model
    from langgraft.serving.run import named
    from langgraft.serving.sampling import Sampling
    from langgraft.text import language as language_of

    code = language_of(language).code if language else ""
    sampling = Sampling(
        max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed=seed, stop=tuple(stop or ())
    )
    ((name, path),) = named([model]).items()
    with closing(open_model(path, context=context, threads=threads, device=device)) as opened:
        talk(Conversation(opened, sampling, system, code, plain or opened.template is None), name=name)


def infer(
    model: Model,
    inputs: Annotated[list[Path], typer.Argument(help="JSON or JSONL files of rows, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write; the same command goes on after a kill.")],
    field: Annotated[str, typer.Option(help="Field with the prompt; messages, prompt, instruction or text.")] = "",
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    plain: Annotated[bool, typer.Option("--plain", help="Continue texts, without the chat template.")] = False,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    max_tokens: MaxTokens = 256,
    seed: Annotated[int, typer.Option(help="Seed; each row adds its place.")] = 0,
    stop: Stop = None,
    context: Context = 0,
    threads: Threads = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Answer every row of JSON or JSONL files; rows that fail keep the reason. Exit 1 if any did."""
    from langgraft.base import content_of
    from langgraft.progress import Log
    from langgraft.serving.infer import Task, input_files
    from langgraft.serving.infer import infer as run
    from langgraft.serving.models import open_model
    from langgraft.serving.sampling import Sampling

    sampling = Sampling(
        max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed=seed, stop=tuple(stop or ())
    )
    input_files(inputs)  # before the model is loaded
    with closing(open_model(model, context=context, threads=threads, device=device)) as opened:
        task = Task(field, system, not plain)
        summary = run(opened, inputs, out, sampling, task=task, identity=content_of(model))
    log = Log()
    for reason, count in summary["reasons"].items():
        log.say(f"{count:,} rows failed: {reason}")
    log.say(f"{summary['answered']:,} of {summary['rows']:,} rows answered, {summary['tokens']:,} tokens; wrote {out}")
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False, indent=2))
    if summary["failed"]:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Give the command line these commands."""
    for command in (chat, serve, compare, infer):
        app.command()(command)
