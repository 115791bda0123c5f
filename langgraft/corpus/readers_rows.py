"""Whole rows of files that have fields, for evaluation sets: nobody has to say which field holds what."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langgraft.corpus.document import Input, Report
from langgraft.corpus.readers import choose, hub_rows
from langgraft.corpus.readers_tables import items
from langgraft.corpus.streams import File
from langgraft.errors import CorpusError, DamagedError


def rows(source: Input, path: Path | None, language: str) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of one file of `source`, or of a data set on the hub where `path` is None.

    Raises:
        CorpusError: a row cannot be read. An evaluation set with holes protects nothing, so nothing is skipped.
    """
    if path is None:
        for number, row in enumerate(hub_rows(source), 1):
            yield f"{source.path}:{number}", row
        return
    file = File(path, Report(), source.encoding, language, strict=True)
    try:
        for number, row in enumerate(_ROWS[choose(path, language=language, encoding=source.encoding)](file), 1):
            yield f"{path.name}:{number}", row
    except (json.JSONDecodeError, csv.Error, DamagedError) as error:
        raise CorpusError(f"{path} cannot be read row by row: {error}") from error


def _jsonl(file: File) -> Iterator[Any]:
    for _, line in file.lines():
        if line.strip():
            yield json.loads(line)


def _delimited(file: File) -> Iterator[Any]:
    csv.field_size_limit(file.max_record)
    lines = [line + "\n" for _, line in file.lines()]
    tabs = sum("\t" in line for line in lines[:50]) * 2 > len(lines[:50])
    yield from csv.reader(lines, delimiter="\t" if tabs else _delimiter(lines), quoting=3 if tabs else 0)


def _delimiter(lines: list[str]) -> str:
    return max(",;|", key=lambda mark: sum(line.count(mark) for line in lines[:50]))


def _parquet(file: File) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DamagedError(str(error)) from error


_ROWS = {"jsonl": _jsonl, "json": items, "delimited": _delimited, "parquet": _parquet}
