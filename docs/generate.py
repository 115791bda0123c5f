"""Write docs/recipe.md, the page of every recipe field, from the recipe's own docstrings.

Run `python docs/generate.py` after changing langgraft/recipe.py; a test checks that the page is current.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langgraft.recipe import CurriculumPoint, InputText, LabelledSection, Phase, Recipe
from langgraft.recipe_evaluation import SummariesSection
from langgraft.recipe_file import fields, section_type
from langgraft.recipe_sft import ChatData

PAGE = Path(__file__).with_name("recipe.md")
HEAD = """\
# The recipe: every field

A recipe is a strict TOML file: an unknown field or a wrong type is an error that names the field and suggests the
right one. Sections are stages, in order; those after `[surgery]` may be left out.
`[compute]` is how and where, and never changes what is made. On the command line `--set section.field=value` overrides
a field.

This page is written by `python docs/generate.py` from `langgraft/recipe.py`.

| field | type | default | |
|---|---|---|---|
| `name` | string | name of the recipe file | Name of the run: its folder below `runs/`. |
"""
NAMES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "dict[str, Any]": "table",
    "dict[str, float]": "table",
    "dict[str, dict[str, Any]]": "tables",
    "dict[str, SlurmJob]": "tables",
    "dict[str, LabelledSection]": "tables",
    "dict[str, SummariesSection]": "tables",
}


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    for name, info in Recipe.model_fields.items():
        kind = section_type(info.annotation)
        if kind is None:
            continue
        # Tables of text have a heading of their own below.
        own = {"corpus": ("target", "source."), "align": ("parallel.",), "sft": ("data.",)}.get(
            name, ("phases.", "mixture.curriculum.")
        )
        rows = [row for row in fields(kind) if not row[0].startswith(own)]
        yield f"\n## [{name}]\n\n{(kind.__doc__ or '').strip()}\n\n{_table(rows)}"
        if name == "corpus":
            yield (
                "\n### [[corpus.target]] and [[corpus.source]]\n\n"
                f"{(InputText.__doc__ or '').strip()}\n\n{_table(list(fields(InputText)))}"
            )
        if name == "pretrain":
            for table, inner in (("mixture.curriculum", CurriculumPoint), ("phases", Phase)):
                text = (inner.__doc__ or "").strip()
                yield f"\n### [[pretrain.{table}]]\n\n{text}\n\n{_table(list(fields(inner)))}"
        if name == "align":
            yield "\n### [[align.parallel]]\n\nThe fields of `[[corpus.target]]`.\n"
        if name == "sft":
            yield f"\n### [[sft.data]]\n\n{(ChatData.__doc__ or '').strip()}\n\n{_table(list(fields(ChatData)))}"
        if name == "evaluate":
            for kind, of in (("classification", LabelledSection), ("summarisation", SummariesSection)):
                rows = list(fields(of))
                yield f"\n### [evaluate.{kind}.NAME]\n\n{(of.__doc__ or '').strip()}\n\n{_table(rows)}"


def _table(rows: list[tuple[str, str, Any, str]]) -> str:
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for name, kind, default, text in rows:
        cells = (f"`{name}`", _kind(kind), _default(default), " ".join(text.split()))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _kind(kind: str) -> str:
    if kind.startswith("Union[Annotated[int"):  # a number, or one of a few words
        return f"integer or {_kind(kind[kind.index('Literal[') :].removesuffix(']'))}"
    if "Literal" in kind:
        inside = kind[kind.index("Literal[") + len("Literal[") : kind.rindex("]") - kind.startswith("list[")]
        words = (choice.strip().strip("'") for choice in inside.split(","))
        choices = " or ".join(f"`{word.lower() if word in ('True', 'False') else word}`" for word in words)
        return f"list of {choices}" if kind.startswith("list[") else choices
    if kind in ("list[str]", "list[int]"):
        return "list of strings" if kind == "list[str]" else "list of integers"
    bare = kind.removesuffix(" | None")
    return NAMES.get(bare, bare)


def _default(default: Any) -> str:
    if default == "required":
        return "required"
    return "none" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
