"""Recipe files: reading them, `--set`, one sentence for what is wrong, and the fields as a table."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from langgraft.errors import RecipeError
from langgraft.methods import suggest
from langgraft.recipe import Recipe, Section


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `overrides` are `section.field=value` with TOML values (bare words are strings).

    Raises:
        RecipeError: the file is missing or no TOML, or a field is unknown or wrong.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"recipe {path} does not exist; `langgraft new` writes one") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path} is a folder; name the recipe file in it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from error
    data.setdefault("name", path.stem)
    for override in overrides:
        _override(data, override)
    return parse_recipe(data, where=str(path))


def parse_recipe(data: dict[str, Any], *, where: str) -> Recipe:
    """Check recipe data.

    Raises:
        RecipeError: one sentence on the first problem, with a suggestion where a name is close.
    """
    try:
        # TOML has integers where a field wants a float; nothing else is converted.
        return Recipe.model_validate(_floats(data, Recipe))
    except ValidationError as error:
        raise RecipeError(_sentence(error, where)) from None


def _floats(data: Any, model: type[BaseModel]) -> Any:
    if isinstance(data, list):
        return [_floats(entry, model) for entry in data]
    if not isinstance(data, dict):
        return data
    out = {}
    for key, value in data.items():
        field = model.model_fields.get(key)
        kind = section_type(field.annotation) if field is not None else None
        if kind is not None:
            value = _floats(value, kind)
        elif (
            field is not None
            and type(value) is int
            and float in (field.annotation, *getattr(field.annotation, "__args__", ()))
        ):
            value = float(value)
        out[key] = value
    return out


def section_type(annotation: Any) -> type[Section] | None:
    """The section class behind an annotation such as `Pretrain | None`, or None; tables of sections are not one."""
    if get_origin(annotation) is dict:
        return None
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _sentence(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    # Behind a field that takes one of several types stands which of them was tried, such as `literal['auto']`.
    location = [part for part in first["loc"] if isinstance(part, str) and part.isidentifier()]
    field = ".".join(map(str, location))
    numbers = [part for part in first["loc"] if isinstance(part, int)]
    place = f"`{field}`" + (f" (entry {numbers[0] + 1})" if numbers else "")
    if first["type"] == "extra_forbidden":
        siblings = _fields_at(location[:-1])
        return f"{where}: unknown field {place}; {suggest(str(location[-1]), siblings)}"
    if first["type"] == "missing":
        return f"{where}: {place} is missing; add it"
    if first["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: {place} is a section; write its fields below [{field}]"
    value = first.get("input")
    shown = f" (it is {value!r})" if isinstance(value, (str, int, float, bool)) else ""
    return f"{where}: {place}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}"


def _fields_at(location: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location:
        if part not in model.model_fields:
            continue  # the user's own name of one of several tables
        annotation = model.model_fields[part].annotation
        inner = next(filter(None, map(section_type, (annotation, *getattr(annotation, "__args__", ())))), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _override(data: dict[str, Any], override: str) -> None:
    key, separator, raw = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise RecipeError(f"--set {override}: write section.field=value, such as pretrain.learning_rate=1e-4")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    if isinstance(value, date | time):  # no field is one, and `12:00:00` is a time limit
        value = raw.strip()
    target = data
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set {override}: `{part}` is not a section")
    target[parts[-1]] = value


def non_default(section: Section) -> dict[str, Any]:
    """The fields of a section that differ from their defaults, as JSON values: what a fingerprint records."""
    return section.model_dump(mode="json", exclude_defaults=True)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Every field as (dotted name, type, default, docstring), in order; for the documentation page."""
    for name, field in model.model_fields.items():
        inner = section_type(field.annotation)
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}.")
            continue
        kind = re.sub(r"typing\.|langgraft\.recipe\w*\.", "", str(field.annotation))
        if isinstance(field.annotation, type):
            kind = field.annotation.__name__
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        yield f"{prefix}{name}", kind, default, field.description or ""
