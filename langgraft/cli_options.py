"""What the commands share: options, and how results are printed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print a machine-readable summary on stdout.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds the runs.")]
RecipePath = Annotated[Path, typer.Argument(help="A recipe file (TOML).")]
Overrides = Annotated[list[str], typer.Option("--set", help="section.field=value, overriding the recipe.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")]
Donor = Annotated[str, typer.Option(help="Byte-level BPE tokenizer: hub id, folder, .gguf file or package:NAME.")]
Corpus = Annotated[list[str] | None, typer.Option(help="Text in the new language; may be given more than once.")]
Language = Annotated[str, typer.Option(help="Code of the new language.")]
Source = Annotated[list[str] | None, typer.Option(help="Text the base knows; built-in English by default.")]
SourceLanguage = Annotated[str, typer.Option(help="Code of that text's language.")]
Load = Annotated[bool, typer.Option(help="Load both models and compare what they predict, not their files alone.")]
MaxChangedSource = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of its words that may be cut differently, in a shared script."),
]
BaseName = Annotated[str, typer.Option("--base", help="Hub id, folder, .gguf file or package:NAME.")]


def show_json(summary: Any) -> None:
    """Print a summary for programs, on stdout."""
    typer.echo(json.dumps(summary, ensure_ascii=False, indent=2))


def say(text: str) -> None:
    """Print a line for people, on stderr."""
    typer.echo(text, err=True)


def judged(result: dict[str, Any], as_json: bool) -> None:
    """Print a result with gates; exit 1 when one failed."""
    width = max((len(gate["name"]) for gate in result["gates"]), default=0)
    for gate in result["gates"]:
        mark = ("note" if gate["bound"] == "none" else "pass") if gate["passed"] else "FAIL"
        detail = f"  ({gate['detail']})" if gate["detail"] else ""
        say(f"{mark}  {gate['name']:<{width}}  {gate['value']}{detail}")
    if seen := result.get("occurrences"):
        used = seen["tokens"] - seen["never"]
        say(f"new tokens that occur in the {seen['texts']:,} texts measured on: {used:,} of {seen['tokens']:,}")
    if changed := result.get("changed_code_points"):
        for place, ranges in changed.items():
            if ranges:
                more = f" and {len(ranges) - 6} more ranges" if len(ranges) > 6 else ""
                say(f"code points whose encoding changes {place}: {', '.join(ranges[:6])}{more}")
    if "fertility" in result:
        before, after = result["fertility"]["base"]["tokens"], result["fertility"]["extended"]["tokens"]
        say(f"tokens: {before:,} -> {after:,} ({after / before - 1:+.1%})")
    if as_json:
        show_json(result)
    if not all(gate["passed"] for gate in result["gates"]):
        raise typer.Exit(1)
