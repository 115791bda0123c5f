"""Prompts that show what a model can do in a language: shipped for some, a template for the others."""

import functools
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.errors import RecipeError
from langgraft.text import language

KINDS = ("continuation", "translation", "code_switch", "question")
FIELDS = frozenset(("kind", "text", "english"))


@dataclass(frozen=True)
class Prompt:
    """A text to go on from. `kind` is one of KINDS, or "" for a user's own; `english` says what it means."""

    language: str
    text: str
    kind: str = ""
    english: str = ""


def shipped(code: str) -> list[Prompt]:
    """The prompts that come with langgraft for a language; none for most languages."""
    return [_prompt(language(code).code, entry) for entry in _shipped().get(language(code).code, [])]


def shipped_languages() -> list[str]:
    """Codes of the languages that prompts are shipped for."""
    return sorted(_shipped())


@functools.cache
def _shipped() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "prompts.toml").read_text(encoding="utf-8"))


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from a TOML file in the form of the shipped one (see `template`).

    Raises:
        RecipeError: the file is not there, is no TOML, names an unknown language, kind or field, or holds an
            empty prompt.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"evaluate.prompts.file: {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"evaluate.prompts.file: {path} is no TOML file: {error}") from error
    prompts = []
    for code, entries in found.items():
        if not isinstance(entries, list):
            raise RecipeError(f"{path}: write each prompt as a table [[{code}]] with kind and text")
        for number, entry in enumerate(entries, start=1):
            _check(entry, f"{path}: prompt {number} of [[{code}]]")
            prompts.append(_prompt(language(code).code, entry))
    return prompts


def _prompt(code: str, entry: dict[str, Any]) -> Prompt:
    return Prompt(code, entry["text"], entry["kind"], entry.get("english", ""))


def _check(entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise RecipeError(f"{where} must be a table of strings")
    if unknown := sorted(entry.keys() - FIELDS):
        raise RecipeError(f"{where} has `{unknown[0]}`; a prompt has {', '.join(sorted(FIELDS))}")
    if entry.get("kind") not in KINDS:
        raise RecipeError(f"{where}: kind must be one of {', '.join(KINDS)}, not {entry.get('kind')!r}")
    if not entry.get("text", "").strip():
        raise RecipeError(f"{where} has no text: write it in the language, after the model of `english`")


def chosen(code: str, own: Sequence[str], file: Sequence[Prompt], *, with_shipped: bool) -> list[Prompt]:
    """The prompts of one language: the user's own, those of a file, and the shipped ones, each text once."""
    found = [Prompt(code, text) for text in own]
    found += [prompt for prompt in file if prompt.language == code]
    found += shipped(code) if with_shipped else []
    return list({prompt.text: prompt for prompt in reversed(found)}.values())[::-1]


def template(code: str) -> str:
    """A file of prompts to edit: the shipped ones, or their meanings in English with the texts to be written."""
    of, own = language(code), shipped(code)
    lines = [
        f"# Prompts in {of.name}, for the report's side-by-side generations. Natural beats literal: change what you",
        "# like, then name this file in the recipe: [evaluate.prompts] file = ...",
    ]
    if not own:
        lines.append(f"# Write each `text` in {of.name}, so that it means about what `english` says.")
    for prompt in own or shipped("hi"):
        lines += [
            "",
            f"[[{of.code}]]",
            f'kind = "{prompt.kind}"',
            f"text = {_quoted(prompt.text if own else _to_write(prompt, of.name))}",
            f"english = {_quoted(prompt.english)}",
        ]
    return "\n".join(lines) + "\n"


def _to_write(prompt: Prompt, name: str) -> str:
    """What of a prompt is the same in every language: the English lines of a translation, and who speaks."""
    if prompt.kind != "translation":
        return ""
    done, _, to_do, _ = prompt.text.split("\n")
    return f"{done}\n{name}: \n{to_do}\n{name}:"


def _quoted(text: str) -> str:
    """A TOML string, which JSON's is too but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
