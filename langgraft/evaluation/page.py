"""The pages of this package: Jinja templates beside it, escaped, and strict about names that are missing."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


@dataclass(frozen=True)
class Table:
    """A table of the page: columns are (heading, kind), kind being text, number or status.

    The first cell of a row names the row.
    """

    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]


@functools.cache
def template(name: str) -> Template:
    """The template of that file name."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
