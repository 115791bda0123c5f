"""The commands that train one model on some text or on conversations, outside any recipe, and make text of pairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraft.cli_options import Json, Language, Out, SourceLanguage, say, show_json

if TYPE_CHECKING:
    from langgraft.training.continual import Trained

ANSWERS = "answers.json"  # what held-out conversations say, before and after


def train(
    model: Annotated[str, typer.Option(help="Model to train: folder, hub id, .gguf file or package:NAME.")],
    out: Out,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Text in the language to teach; may be given more than once.")
    ] = None,
    chat: Annotated[
        list[str] | None, typer.Option(help="Conversations to learn the answers of, in place of --corpus.")
    ] = None,
    replay: Annotated[
        list[str] | None,
        typer.Option(help="Text of the source language to read beside it, or `self`: written by the base."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="What the model was extended from; tells new rows from old, and teaches replay.")
    ] = None,
    language: Language = "und",
    source_language: SourceLanguage = "en",
    tokens: Annotated[int | None, typer.Option(min=1, help="Budget, replay included; default: the text once.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of conversations; default: 2.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt of conversations that bring none.")] = None,
    chat_template: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Chat template (Jinja), not the model's own.")
    ] = None,
    mode: Annotated[str, typer.Option(help="What learns: full, lora, embeddings or new_rows.")] = "full",
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Peak rate of the transformer; default: 2e-4, with --chat 2e-5.")
    ] = None,
    new_rows_learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Of rows of new tokens; default: 1e-3, with --chat as all else.")
    ] = None,
    old_rows_learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Of rows that the base had; default: 2e-4, with --chat as all else.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adamw, muon or adamw_8bit.")] = "adamw",
    schedule: Annotated[str | None, typer.Option(help="wsd or cosine; default: wsd, with --chat cosine.")] = None,
    sequence_length: Annotated[int, typer.Option(min=16, help="Tokens of a packed row.")] = 512,
    batch_tokens: Annotated[int, typer.Option(min=16, help="Tokens of a step.")] = 8192,
    replay_ratio: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the tokens that is replay.")] = 0.25,
    replay_loss: Annotated[str, typer.Option(help="distill: match the base on replay; text: predict it.")] = "distill",
    seed: Annotated[int, typer.Option(help="Of the order of the text.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes every core.")] = 0,
    micro_batch_rows: Annotated[int, typer.Option(min=1, help="Rows of a forward pass.")] = 4,
    attention: Annotated[str, typer.Option(help="auto, eager, sdpa, blocks, flex or flash.")] = "auto",
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the layers; left out: in long trainings.")
    ] = None,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Less memory, more time.")
    ] = False,
    report_to: Annotated[list[str] | None, typer.Option(help="tensorboard, trackio or wandb.")] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Under torchrun: processes that share each matrix.")] = 1,
    fsdp: Annotated[int, typer.Option(min=0, help="Those that share the model by FSDP2; 0: all that are left.")] = 0,
    data_parallel_replicas: Annotated[int, typer.Option(min=1, help="Copies of what FSDP2 cuts.")] = 1,
    retention_every: Annotated[
        int, typer.Option(min=0, help="Steps between measurements on documents that are held out; 0: none.")
    ] = 0,
    retention_documents: Annotated[int, typer.Option(min=2, help="Held out of each language, at most.")] = 40,
    source_bits_per_byte: Annotated[float, typer.Option(min=0, help="Largest rise over the base; 0: any.")] = 0.05,
    in_context: Annotated[float, typer.Option(min=0, help="Largest drop of in-context recall; 0: any.")] = 0.2,
    on_breach: Annotated[str, typer.Option(help="stop, or rollback: back to the best, with more replay.")] = "stop",
    result: Annotated[str, typer.Option(help="last, or best: the model of a run that was not stopped.")] = "last",
    as_json: Json = False,
) -> None:
    """Train a model on text, with replay, or on conversations; the same command goes on after an interruption."""
    from langgraft.errors import LanggraftError, RecipeError

    if batch_tokens % sequence_length:
        raise RecipeError(
            f"--batch-tokens ({batch_tokens}) must be a multiple of --sequence-length ({sequence_length})"
        )
    from langgraft.processes import rank, world
    from langgraft.training.continual import train as run
    from langgraft.training.continual import tune
    from langgraft.training.loop import Compute, Settings
    from langgraft.training.modes import Phase
    from langgraft.training.parallel import Layout, leave

    others = {"--epochs": epochs, "--system": system, "--chat-template": chat_template}
    text = {"--corpus": corpus, "--replay": replay, "--tokens": tokens, "--retention-every": retention_every or None}
    if wrong := next((name for name, value in (text if chat else others).items() if value is not None), None):
        raise RecipeError(f"{wrong} does not go {'with' if chat else 'without'} --chat; leave it out")
    rate = learning_rate if learning_rate is not None else 2e-5 if chat else 2e-4
    new, old = (rate, rate) if chat else (1e-3, 2e-4)
    settings = Settings(
        steps=1, length=sequence_length, batch_rows=batch_tokens // sequence_length, learning_rate=rate,
        new_rows_learning_rate=new if new_rows_learning_rate is None else new_rows_learning_rate,
        old_rows_learning_rate=old if old_rows_learning_rate is None else old_rows_learning_rate,
        weight_decay=0.0 if chat else 0.1, schedule=schedule or ("cosine" if chat else "wsd"),
        replay_ratio=0.0 if chat else replay_ratio, seed=seed, phases=(Phase(mode),), optimizer=optimizer,
    )  # fmt: skip
    layout = Layout(tensor_parallel, fsdp, data_parallel_replicas)
    compute = Compute(
        device=device, dtype=dtype, threads=threads, micro_rows=micro_batch_rows, checkpoint_every=checkpoint_every,
        attention=attention, compile="auto" if compile_ is None else compile_,
        activation_checkpointing=activation_checkpointing, report_to=tuple(report_to or ()),
        layout=layout if world() > 1 or layout != Layout() else None,
    )  # fmt: skip
    if chat:
        done = tune(
            model, out, chats=chat, base=base, system=system or "", template=chat_template, epochs=epochs or 2,
            settings=settings, compute=compute,
        )  # fmt: skip
        _finish(done, _compared(done, model, (language, source_language), compute), as_json)
        return
    watching = _watching(
        retention_every, retention_documents, source_bits_per_byte, in_context, on_breach=on_breach, result=result
    )
    try:
        done = run(
            model, out, corpus=corpus or (), language=language, base=base, replay=replay or (),
            source_language=source_language, replay_loss=replay_loss, tokens=tokens, settings=settings,
            compute=compute, watching=watching,
        )  # fmt: skip
    except LanggraftError as error:
        if rank() > 0:  # the first process says it
            raise typer.Exit(error.exit_code) from None
        raise
    finally:
        leave()
    if rank() > 0:
        return
    _finish(done, {}, as_json)


def _finish(done: "Trained", more: dict[str, Any], as_json: bool) -> None:
    say(f"wrote {done.model}")
    if as_json:
        show_json({**done.as_dict(), **more})


def _compared(done: "Trained", model: str, languages: tuple[str, str], compute: Any) -> dict[str, Any]:
    """What held-out conversations say of the model before and after; measured once, and kept beside it."""
    from langgraft.base import locate, materialise
    from langgraft.evaluation.tuned import compare_answers
    from langgraft.progress import Log
    from langgraft.store import read_json, write_json
    from langgraft.training.tuning import read_dev

    file = done.folder / ANSWERS
    if not file.is_file():
        known = languages if languages[0] != "und" else ()
        found = compare_answers(
            materialise(locate(model), done.folder / "start"), done.model, read_dev(done.folder), languages=known,
            device=compute.device, threads=compute.threads, log=Log(),
        )  # fmt: skip
        write_json(file, found)
    answers: dict[str, Any] = read_json(file)
    for name, label in (("bits_per_byte", "bits per byte of answers"), ("ends", "answers that end"),
                        ("right_language", "answers in the right language")):  # fmt: skip
        if name in answers:
            before, after = (answers[name]["models"][of]["mean"] for of in ("before", "after"))
            say(f"{label}: {before:.3f} before, {after:.3f} after")
    return {"answers": answers}


def _watching(
    every: int, documents: int, source_bits_per_byte: float, in_context: float, *, on_breach: str, result: str
) -> Any:
    """The options of retention, or None without it."""
    from langgraft.errors import RecipeError
    from langgraft.training.held_out import Watching

    if every == 0:
        return None
    for name, value, known in (
        ("--on-breach", on_breach, ("stop", "rollback")),
        ("--result", result, ("last", "best")),
    ):
        if value not in known:
            raise RecipeError(f"{name} {value} is unknown; choose {' or '.join(known)}")
    return Watching(
        every,
        source_bits_per_byte or None,
        in_context or None,
        on_breach="rollback" if on_breach == "rollback" else "stop",
        result="best" if result == "best" else "last",
        documents=documents,
    )


def parallel(
    inputs: Annotated[list[str], typer.Argument(help="Text in both languages: rows with both codes, PO, MO, TMX.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write: JSONL with `text`.")],
    language: Language,
    source_language: SourceLanguage = "en",
    format_: Annotated[
        list[str] | None,
        typer.Option("--format", help="translation (default), interleaved, bilingual or code_switched; repeatable."),
    ] = None,
    against: Annotated[list[str] | None, typer.Option(help="Evaluation sets that no pair may overlap with.")] = None,
    seed: Annotated[int, typer.Option(help="Of templates and of how many pairs make a document.")] = 0,
    as_json: Json = False,
) -> None:
    """Write parallel text as documents to train on, in one or more formats."""
    from langgraft.corpus.document import Input
    from langgraft.corpus.pairs import counted, write_parallel

    formats = format_ or ["translation"]
    found = write_parallel(
        [Input(path) for path in inputs], out, language, source_language, formats=formats, against=against or (),
        seed=seed,
    )  # fmt: skip
    written = ", ".join(f"{count:,} {name}" for name, count in found["documents"].items()) or "none"
    say(f"{found['used']:,} of {found['read']:,} pairs; left out: {counted(found['left_out'])}")
    say(f"wrote {out}: {written}")
    if as_json:
        show_json(found)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(parallel)
