"""Commands that judge what is there: `show`, `doctor`, and `prompts` to judge by."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from langgraft.cli_options import Json, Runs, say, show_json


def show(
    folders: Annotated[list[Path], typer.Argument(help="A run folder; with several, they are compared.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="Of several runs: folder for the page and its figures (comparison or aggregate, .html and .json).",
        ),
    ] = Path("comparison"),
    aggregate: Annotated[
        bool, typer.Option("--aggregate", help="Several runs of one recipe with other seeds: mean and spread of each.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Open a run's report, or compare several runs; with --json, print the figures."""
    from langgraft.status import fields_of, report_of

    reports = [report_of(folder) for folder in folders]
    if aggregate:
        from langgraft.evaluation.aggregate import aggregate_runs, write_aggregate

        found = aggregate_runs(reports, _names(folders), [fields_of(folder) for folder in folders])
        say(found["verdict"])
        page = write_aggregate(found, out)
    elif len(folders) > 1:
        from langgraft.evaluation.comparison import compare_runs, write_comparison

        found = compare_runs(reports, _names(folders))
        say(found["verdict"])
        page = write_comparison(found, out)
    else:
        from langgraft.evaluation.words import verdict

        (found,), page = reports, folders[0] / "report.html"
        if not as_json:
            say(verdict(found)[1])
    if as_json:
        show_json(found)
    else:
        _open(page.resolve())


def _names(folders: list[Path]) -> list[str]:
    """The folders' own names, with as many of their parents' as make them different."""
    paths = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def _open(page: Path) -> None:
    """Name a page, and open it where somebody sits at a terminal."""
    say(f"report: {page}")
    if sys.stderr.isatty():
        import webbrowser

        webbrowser.open(page.as_uri())


def prompts(
    language: Annotated[str, typer.Argument(help="Code of a language.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write; printed by default.")] = None,
) -> None:
    """Write a file of prompts to edit: the shipped ones, or a template where there are none."""
    from langgraft.errors import RecipeError
    from langgraft.evaluation.prompts import shipped, template
    from langgraft.store import atomic_write

    if out is None:
        typer.echo(template(language), nl=False)
        return
    if out.exists():
        raise RecipeError(f"{out} exists already; choose another file with -o")
    atomic_write(out, template(language))
    say(f"wrote {out}: {'the shipped prompts' if shipped(language) else 'a template; write each text'}")


def doctor(
    what: Annotated[
        Path | None, typer.Argument(help="A run, a model folder or a recipe; by default every run in runs/.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Of a model: the base it was made from, a hub folder.")] = None,
    language: Annotated[str | None, typer.Option(help="Of a model: code of the language it was taught.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also let the model write, and measure the processor.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Make only this check; may be given more than once.")] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Find what is wrong with a run, a model or a recipe, and say what to do; exit 1 when something is."""
    from langgraft.doctor.consult import consult

    results = consult(what, base=base, language=language, deep=deep, only=only or [], runs=runs)
    for result in results:
        _say(result)
    if as_json:
        show_json(results)
    if any(result["findings"] for result in results):
        raise typer.Exit(1)


def _say(result: dict[str, Any]) -> None:
    made = len(result["checks"])
    found = result["findings"]
    say(f"{result['name']}: {len(found) or 'nothing'} wrong; {made} checks made")
    for finding in found:
        figure = f" ({finding['figure']})" if finding["figure"] not in ("", "–") else ""
        say(f"✗ {finding['check']}: {finding['problem']}{figure}")
        say(f"    where  {finding['where']}")
        say(f"    fix    {finding['fix']}")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (show, prompts, doctor):
        app.command()(command)
