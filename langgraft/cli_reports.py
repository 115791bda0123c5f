"""Commands that judge what is there: `show` and `doctor`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from langgraft.cli_options import Json, Runs, say, show_json


def show(folder: Annotated[Path, typer.Argument(help="A run folder.")], as_json: Json = False) -> None:
    """Open a run's report; with --json, print it."""
    from langgraft.status import report_of

    report = report_of(folder)
    if as_json:
        show_json(report)
        return
    page = (folder / "report.html").resolve()
    from langgraft.evaluation.words import verdict

    say(verdict(report)[1])
    _open(page)


def _open(page: Path) -> None:
    """Name a page, and open it where somebody sits at a terminal."""
    say(f"report: {page}")
    if sys.stderr.isatty():
        import webbrowser

        webbrowser.open(page.as_uri())


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
    for command in (show, doctor):
        app.command()(command)
