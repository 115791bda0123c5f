"""Rows of evaluation sets: parallel text and labelled examples from the files people have them in."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from langgraft.corpus.document import Input, Report
from langgraft.corpus.readers import choose, read_pairs
from langgraft.corpus.readers_rows import rows as raw_rows
from langgraft.corpus.sources import resolve
from langgraft.errors import CorpusError
from langgraft.text import language

ROW_READERS = ("jsonl", "json", "delimited", "parquet")


class Parallel(NamedTuple):
    """A text in the new language and the same in the source language."""

    target: str
    source: str
    id: str
    origin: str


def rows_of(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of JSON, JSONL, CSV, TSV and Parquet files; a table's first line names its columns.

    Raises:
        CorpusError: there is no such file, a row cannot be read, or it has no fields.
    """
    for file in resolve(Input(path)):
        if choose(file, language="und") not in ROW_READERS:
            raise CorpusError(f"{file} has no rows with fields; give JSONL, JSON, CSV, TSV or Parquet")
        header: list[str] | None = None
        for place, row in raw_rows(Input(path), file, "und"):
            if isinstance(row, Mapping):
                yield place, dict(row)
            elif isinstance(row, list | tuple) and header is not None:
                yield place, dict(zip(header, row, strict=False))
            elif isinstance(row, list | tuple):
                header = [str(name).strip().lstrip("\ufeff") for name in row]
            else:
                raise CorpusError(f"{place} is no row with fields: {row!r}")


def field(row: Mapping[str, Any], names: Sequence[str], place: str, what: str) -> str:
    """The text of the first of some fields that a row has.

    Raises:
        CorpusError: it has none of them, or something else than a text there.
    """
    name = next((name for name in names if row.get(name) not in (None, "")), None)
    if name is None:
        raise CorpusError(f"{place} has no {what}: none of the fields {', '.join(names)} (it has {', '.join(row)})")
    value = row[name]
    if not isinstance(value, str | int | float):
        raise CorpusError(f"{place}: field `{name}` is no text")
    return str(value)


def parallel_texts(paths: Sequence[str], code: str, source_code: str) -> list[Parallel]:
    """Pairs from rows with a field for each language's code (or `target` and `source`), and from PO, MO, TMX, EDICT.

    Raises:
        CorpusError: a file cannot be read, a row has no such fields, or there is no pair.
    """
    found: list[Parallel] = []
    target_names, source_names = [*_codes(code), "target"], [*_codes(source_code), "source"]
    for path in paths:
        for file in resolve(Input(path)):
            if choose(file, language=code) in ROW_READERS:
                for place, row in rows_of(str(file)):
                    target = field(row, target_names, place, f"text in {language(code).name}")
                    source = field(row, source_names, place, f"text in {language(source_code).name}")
                    # `source` says where a row is from, where the text itself stands under its language's code.
                    own = row.get("source") if any(row.get(name) for name in source_names[:-1]) else None
                    found.append(Parallel(target, source, place, str(own or Path(path).name)))
            else:
                pairs = read_pairs([Input(str(file))], code, Report())
                found += [Parallel(one.text, one.pair, one.id, one.source) for one in pairs]
    if not found:
        raise CorpusError(f"there is no parallel text in {', '.join(paths)}")
    return found


def _codes(code: str) -> list[str]:
    """A language's code as given, and the table's own."""
    return list(dict.fromkeys((code, language(code).code)))
