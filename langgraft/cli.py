"""The command line. Nothing heavy is imported before a command needs it.

Every command prints for people on stderr and, with `--json`, a summary for programs on stdout. Exit codes:
0 done, 1 a gate failed, 2 bad input, 130 interrupted and resumable.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from langgraft import cli_evaluate, cli_publish, cli_reports, cli_serving, cli_training
from langgraft.cli_options import (
    BaseName,
    Corpus,
    Json,
    Language,
    Load,
    Out,
    Overrides,
    RecipePath,
    Runs,
    Source,
    SourceLanguage,
    judged,
    say,
    show_json,
)
from langgraft.cli_tokenizer import tokenizer_app
from langgraft.errors import InputError, LanggraftError, RecipeError

INTERRUPTED = 130  # what typer exits with on Ctrl-C

app = typer.Typer(
    name="langgraft",
    help="Teach an existing language model a new language, and prove what was gained, kept and saved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tokenizer_app, name="tokenizer")


@app.command()
def new(
    base: BaseName,
    language: Annotated[str, typer.Option(help="Code of the language to teach, such as yue or hi.")],
    corpus: Annotated[list[str], typer.Option(help="Text in that language; may be given more than once.")],
    source: Annotated[list[str] | None, typer.Option(help="Source-language text to measure forgetting on.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Recipe file to write.")] = Path("recipe.toml"),
    preset: Annotated[
        str, typer.Option(help="proof-of-concept, research or production; chosen by the machine by default.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Write a commented recipe fit to this machine."""
    from langgraft.newrecipe import write_recipe

    summary = write_recipe(base, language, corpus, source or [], out, preset=preset)
    if summary["advice"]:
        say(f"note: {summary['advice']}")
    say(f"wrote {out}; next: langgraft plan {out}")
    if as_json:
        show_json(summary)


@app.command()
def plan(recipe: RecipePath, overrides: Overrides = [], runs: Runs = Path("runs"), as_json: Json = False) -> None:  # noqa: B006
    """Show what would run, and why."""
    from langgraft.pipeline import plan as make_plan
    from langgraft.recipe_file import load_recipe

    planned = make_plan(load_recipe(recipe, overrides), runs)
    for item in planned:
        note = f"  ({item.estimate})" if item.estimate else ""
        say(f"{item.stage.name:<10} {item.state:<7} {item.folder.name:<20} {item.reason}{note}".rstrip())
    if as_json:
        show_json(
            [
                {
                    "stage": p.stage.name,
                    "state": p.state,
                    "folder": str(p.folder),
                    "reason": p.reason,
                    "estimate": p.estimate,
                }
                for p in planned
            ]
        )


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    only: Annotated[str | None, typer.Option(help="Run only this stage.")] = None,
    part: Annotated[str, typer.Option(help="With --only corpus: clean only this part of the text, as 3/16.")] = "",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run what is stale, in order; the same command goes on after an interruption."""
    # Slurm's warning before a time limit ends any stage as Ctrl-C does; training first saves what it has.
    signal.signal(signal.SIGUSR1, signal.default_int_handler)
    from langgraft.pipeline import check_gates
    from langgraft.pipeline import run as run_pipeline
    from langgraft.recipe_file import load_recipe

    if part:
        from langgraft.corpus.part import Part
        from langgraft.parts import run_part

        if only != "corpus":
            raise InputError("--part is for the corpus: give --only corpus with it")
        done = run_part(load_recipe(recipe, overrides), runs, Part.parse(part))
        if as_json:
            show_json(done)
        return
    report = run_pipeline(load_recipe(recipe, overrides), runs, until=until, only=only)
    if as_json and report:  # of several processes that train together, the first one has it
        show_json(report)
    check_gates(report)


@app.command()
def launch(
    recipe: RecipePath,
    on: Annotated[str, typer.Option(help="slurm or torchrun.")],
    overrides: Overrides = [],  # noqa: B006
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the scripts, and start nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run what is stale on a cluster, or by several processes: one script for each stage, in its folder."""
    from langgraft.launch import launch as start

    launched = start(recipe, runs, on=on, overrides=overrides, dry_run=dry_run)
    for script in launched.scripts:
        say(f"{script.stage:<10} {f'job {script.job}' if script.job else 'written'}  {script.path}")
    if not launched.scripts:
        say("every stage is done; nothing to start")
    elif any(script.job for script in launched.scripts):
        say(f"watch them with: squeue --me; langgraft status {runs}")
    if as_json:
        show_json(launched.as_dict())
    if launched.code:
        raise typer.Exit(launched.code)


@app.command()
def status(
    folder: Annotated[Path | None, typer.Argument(help="A run folder, or the folder of runs.")] = None,
    as_json: Json = False,
) -> None:
    """Progress of runs in a folder."""
    from langgraft.status import statuses

    found = statuses(folder or Path("runs"))
    for one in found:
        say(f"{one['name']}: {one['text']}")
    if as_json:
        show_json(found)


@app.command()
def corpus(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, globs, package:… or hub:…")],
    out: Out,
    language: Annotated[str, typer.Option(help="Code of the text's language.")],
    reader: Annotated[str, typer.Option(help="How to read it.")] = "auto",
    text_key: Annotated[str, typer.Option(help="Field or column that holds the text.")] = "text",
    encoding: Annotated[str, typer.Option(help="Encoding, such as cp1256; detected by default.")] = "auto",
    option: Annotated[list[str] | None, typer.Option(help="A reader's name=value, or INPUT:name=value.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at damaged files and lines.")] = False,
    license_: Annotated[str, typer.Option("--license", help="Licence of the text.")] = "",
    min_characters: Annotated[int, typer.Option(min=1, help="Drop shorter documents.")] = 1,
    dev: Annotated[float, typer.Option(help="Share or number of development documents.")] = 0.02,
    test: Annotated[float, typer.Option(help="Share or number of test documents.")] = 0.02,
    near_duplicates: Annotated[bool, typer.Option(help="Remove near duplicates too.")] = True,
    against: Annotated[list[str] | None, typer.Option(help="Evaluation set that the text must not hold.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that clean text; 0 takes all cores.")] = 0,
    mixed: Annotated[str, typer.Option(help="Documents in several languages: lines, document or keep.")] = "lines",
    langid_model: Annotated[str, typer.Option(help="A fastText file such as GlotLID's; lid.176 by default.")] = "",
    extra_rule: Annotated[list[str] | None, typer.Option(help="ascii_digits or hong_kong_forms.")] = None,
    quality: Annotated[bool, typer.Option("--quality", help="Drop what the quality filters find.")] = False,
    reference: Annotated[list[str] | None, typer.Option(help="Clean text to derive the filters' bounds from.")] = None,
    fineweb: Annotated[Path | None, typer.Option(help="A FineWeb-2 configuration with the bounds.")] = None,
    boilerplate: Annotated[int, typer.Option(min=0, help="Remove lines of at least so many documents.")] = 0,
    mask: Annotated[list[str] | None, typer.Option(help="Personal data to mask: email, phone, …, or all.")] = None,
    show_dropped: Annotated[bool, typer.Option("--show-dropped", help="Show what was left out, and why.")] = False,
    as_json: Json = False,
) -> None:
    """Read, clean, deduplicate and split text."""
    from langgraft.commands import corpus_command, free, reader_options
    from langgraft.corpus.document import Input
    from langgraft.corpus.part import cores

    free(out)
    options = zip(inputs, reader_options(option or [], inputs), strict=True)
    summary = corpus_command(
        [Input(path, reader, text_key, license_, "", encoding, strict, of_one) for path, of_one in options],
        out,
        language,
        quality=quality,
        reference=reference or [],
        fineweb=fineweb,
        show_dropped=show_dropped,
        min_characters=min_characters,
        dev=dev,
        test=test,
        near_duplicates=near_duplicates,
        decontaminate=against or [],
        workers=workers or cores(),
        mixed=mixed,
        langid_model=langid_model,
        extra_rules=extra_rule or [],
        boilerplate=boilerplate,
        mask=mask or [],
    )
    if as_json:
        show_json(summary)


@app.command()
def dropped(
    folder: Annotated[Path, typer.Argument(help="What `langgraft corpus` or the corpus stage wrote.")],
    reason: Annotated[str | None, typer.Option(help="Only this reason, such as near_duplicate or digits.")] = None,
    side: Annotated[str, typer.Option(help="target or source.")] = "target",
    examples: Annotated[int, typer.Option(min=0, help="Texts to show for each reason.")] = 5,
    as_json: Json = False,
) -> None:
    """Show what a prepared corpus left out, by reason, with texts."""
    from langgraft.commands import dropped_lines
    from langgraft.corpus.dropped import dropped as left_out

    found = left_out(folder, side, reason=reason, examples=examples)
    for line in dropped_lines({"target": found, "source": None}, None if reason else 120):
        say(line)
    if as_json:
        show_json(found)


@app.command()
def advise(
    base: BaseName,
    corpus: Annotated[list[str], typer.Option(help="Text in the language; may be given more than once.")],
    language: Annotated[str, typer.Option(help="Code of the language.")],
    out: Out,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of it to train on; default: the text once.")] = None,
    parameters: Annotated[int | None, typer.Option(min=1, help="Size of the model; default: counted.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Text the base knows well, to compare with.")] = None,
    source_language: Annotated[str, typer.Option(help="Code of that text's language.")] = "en",
    as_json: Json = False,
) -> None:
    """Say whether new tokens for a language are worth it, how many, and why."""
    from langgraft.commands_tokenizer import advise_command

    result = advise_command(base, corpus, language, source or [], source_language, tokens, parameters, out)
    if as_json:
        show_json(result)


@app.command()
def surgery(
    base: BaseName,
    tokenizer: Annotated[Path, typer.Option(help="Folder of the extended tokenizer.")],
    out: Out,
    init: Annotated[str, typer.Option(help="How new rows start.")] = "subword_mean",
    options: Annotated[str, typer.Option(help="Options of that method, as in a recipe: '{std = 0.01}'.")] = "{}",
    pad_to: Annotated[int, typer.Option(min=1, help="Pad rows to a multiple of this.")] = 64,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Pad to this many times that multiple.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of random starts.")] = 0,
    corpus: Corpus = None,
    language: Language = "und",
    source: Source = None,
    source_language: SourceLanguage = "en",
    load: Load = True,
    as_json: Json = False,
) -> None:
    """Give a model rows for the tokens of an extended tokenizer, and prove the result; exit 1 if a gate fails."""
    from langgraft.commands import Texts, surgery_command

    result = surgery_command(
        base,
        tokenizer,
        out,
        Texts(corpus or [], language, source or [], source_language),
        options,
        init=init,
        pad_to_multiple_of=pad_to,
        tensor_parallel=tensor_parallel,
        seed=seed,
        models=load,
    )
    judged(result, as_json)


@app.command()
def verify(
    folder: Annotated[Path | None, typer.Argument(help="What `langgraft export` wrote: compare with its sums.")] = None,
    base: Annotated[str | None, typer.Option(help="Hub id, folder, .gguf file or package:NAME.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of the extended model, before any training.")] = None,
    corpus: Corpus = None,
    language: Language = "und",
    source: Source = None,
    source_language: SourceLanguage = "en",
    load: Load = True,
    as_json: Json = False,
) -> None:
    """Prove that an export is whole, or that an extended model still is its base in everything old; exit 1 if not."""
    from langgraft.commands import Texts, manifest_command, verify_command

    if folder is not None and base is None and model is None:
        judged(manifest_command(folder), as_json)
    elif folder is None and base is not None and model is not None:
        texts = Texts(corpus or [], language, source or [], source_language)
        judged(verify_command(base, model, texts, models=load), as_json)
    else:
        raise RecipeError("verify takes an exported FOLDER, or both --base and --model of an extended model")


@app.command()
def export(
    out: Out,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model; of the adapter for adapter and merged.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Instead of a model: a training's folder, or FOLDER@STEP.")
    ] = None,
    to: Annotated[
        str, typer.Option(help="hf, gguf, ollama, onnx, megatron, nemo-data, adapter, or merged (base and adapter).")
    ] = "hf",
    quant: Annotated[list[str], typer.Option(help="GGUF formats: f16, q8_0, q4_k_m, …")] = ["f16"],  # noqa: B006
    accept_mismatch: Annotated[
        float, typer.Option(min=0, max=1, help="GGUF: share of lines that may get other token ids in llama.cpp.")
    ] = 0.0,
    system: Annotated[str | None, typer.Option(help="ollama: the system prompt.")] = None,
    base: Annotated[str | None, typer.Option(help="Of an adapter: the base, by default the one it names.")] = None,
    dtype: Annotated[str | None, typer.Option(help="merged: float32 (default), bfloat16 or float16.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="nemo-data: folder of the tokenizer; the model's.")] = None,
    corpus: Annotated[list[str] | None, typer.Option(help="nemo-data: text; may be given more than once.")] = None,
    language: Annotated[str, typer.Option(help="nemo-data: code of the text's language.")] = "und",
    text_key: Annotated[str, typer.Option(help="nemo-data: field that holds the text.")] = "text",
    weight: Annotated[list[str] | None, typer.Option(help="nemo-data: name=share in the mixture.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="nemo-data: processes that tokenise.")] = 1,
    tensor_parallel: Annotated[
        int | None, typer.Option(min=1, help="megatron: ranks that share every matrix; 1.")
    ] = None,
    transformer_impl: Annotated[
        str | None, typer.Option(help="megatron: transformer_engine (default) or local.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an artefact other tools read."""
    from langgraft.commands import export_command, nemo_command

    if to == "nemo-data" and checkpoint is None:
        options = {"language": language, "text_key": text_key, "workers": workers}
        judged(nemo_command(tokenizer or model, out, corpus or [], weight or [], **options), as_json)
    else:
        given = {"base": base, "dtype": dtype, "system": system}
        split = {"tensor_parallel": tensor_parallel, "transformer_impl": transformer_impl}
        judged(export_command(model, out, to, quant, accept_mismatch, checkpoint, **given, **split), as_json)


cli_evaluate.add_to(app)
cli_reports.add_to(app)
cli_serving.add_to(app)
cli_training.add_to(app)
cli_publish.add_to(app)


def main() -> None:
    """Entry point: a LanggraftError is one sentence and an exit code, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # other libraries' bars; ours say rate and time left
    # A recipe may name a method of the user's own, found in the folder the command is started in.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except LanggraftError as error:
        say(f"langgraft: {error}")
        sys.exit(error.exit_code)
    except SystemExit as error:
        if error.code == INTERRUPTED:
            say("langgraft: interrupted; run the same command to go on")
        raise
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        if error.filename is None:
            raise
        say(f"langgraft: {error.filename} cannot be used ({error.strerror}); check the path and its permissions")
        sys.exit(2)


if __name__ == "__main__":
    main()
