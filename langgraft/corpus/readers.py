"""Formats: each reader yields the records of one file. A new one is a function and a row in `READERS`."""

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import regex

from langgraft.corpus.document import Document, Input, Record, Report
from langgraft.corpus.mediawiki import mediawiki
from langgraft.corpus.sources import HUB, SUFFIXES, is_hub, reader_for, resolve
from langgraft.corpus.streams import COMPRESSIONS, lines, opened, whole
from langgraft.errors import CorpusError

Reader = Callable[..., Iterator[Record]]


def _record(row: Any, where: str, key: str, text_key: str, report: Report) -> Record | None:
    """A record from one JSON value: a string, or an object whose `text_key` holds the text."""
    if isinstance(row, str):
        return Record(row, key)
    if not isinstance(row, dict):
        raise CorpusError(f"{where}: expected an object or a string, found {type(row).__name__}")
    if text_key not in row:
        keys = ", ".join(map(repr, row)) or "none"
        raise CorpusError(f"{where}: no field {text_key!r}; the fields are {keys} (set text_key)")
    text = row[text_key]
    if text is None:
        report.note("no_text", where)
        return None
    if not isinstance(text, str):
        raise CorpusError(f"{where}: field {text_key!r} holds {type(text).__name__}, not a string")
    return Record(text, key, str(row.get("source") or ""), str(row.get("license") or ""))


def jsonl(path: Path, report: Report, *, text_key: str = "text") -> Iterator[Record]:
    """One JSON object (or string) a line; fields `source` and `license` are kept where present."""
    for number, line in lines(path, report):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from error
        if record := _record(row, f"{path}:{number}", str(number), text_key, report):
            yield record


def json_array(path: Path, report: Report, *, text_key: str = "text") -> Iterator[Record]:
    """A JSON array of strings or objects; the whole file is held in memory."""
    data = whole(path, report)
    try:
        rows = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: byte {error.start:,} is not UTF-8; convert the file to UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "; for one object a line use the jsonl reader" if error.msg == "Extra data" else ""
        raise CorpusError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}{hint}") from error
    if not isinstance(rows, list):
        raise CorpusError(f"{path}: expected an array of strings or objects, found {type(rows).__name__}")
    size = path.stat().st_size
    start = report.bytes_done - size
    for number, row in enumerate(rows, 1):
        report.bytes_done = start + size * number // len(rows)  # progress counts rows, not the one big read
        if record := _record(row, f"{path}: item {number}", str(number), text_key, report):
            yield record


def text_lines(path: Path, report: Report) -> Iterator[Record]:
    """One document a line."""
    for number, line in lines(path, report):
        if line.strip():
            yield Record(line, str(number))


def document(path: Path, report: Report) -> Iterator[Record]:
    """The whole file is one document."""
    try:
        text = whole(path, report).decode("utf-8")
    except UnicodeDecodeError:
        report.note("invalid_utf8", str(path))
        return
    yield Record(text, "")


def parquet(path: Path, report: Report, *, text_key: str = "text") -> Iterator[Record]:
    """A column of a Parquet file; columns `source` and `license` are kept where present."""
    import pyarrow
    import pyarrow.parquet

    with opened(path, report) as file:
        try:
            table = pyarrow.parquet.ParquetFile(_seekable(file, path))
        except pyarrow.ArrowInvalid as error:
            raise CorpusError(f"{path} is not a Parquet file, or is cut short: {error}") from error
        names = table.schema_arrow.names
        if text_key not in names:
            raise CorpusError(f"{path}: no column {text_key!r}; the columns are {', '.join(names)} (set text_key)")
        columns = [name for name in dict.fromkeys((text_key, "source", "license")) if name in names]
        number = 0
        try:
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    if record := _record(row, f"{path}: row {number}", str(number), text_key, report):
                        yield record
        except (pyarrow.ArrowException, OSError) as error:
            raise CorpusError(f"{path}: damaged Parquet file after row {number:,}: {error}") from error


def _seekable(file: BinaryIO, path: Path) -> BinaryIO:
    if path.suffix.lower() in COMPRESSIONS:
        raise CorpusError(f"{path}: Parquet files are compressed inside; decompress {path.suffix} first")
    return file


_CHAT_CODES = (
    (regex.compile(r"\x15[^\x15]*\x15"), " "),  # time marks
    (regex.compile(r"\[:+ ([^\]]*)\]"), r" \1 "),  # [: replacement]
    (regex.compile(r"\[[^\]]*\]"), " "),  # [/] [=! laughs] [*] ...
    (regex.compile(r"\(\.+\)|\(\d+[.:]?\d*\)"), " "),  # pauses
    (regex.compile(r"[<>]|\+[\"/.,!?^<+\\]+|&[-~=+*]?\S+|(?<!\S)(?:xxx|yyy|www)(?!\S)|[‡„↑↓≠]"), " "),
    (regex.compile(r"\((\p{L}+)\)"), r"\1"),  # (be)cause
    (regex.compile(r"(\S)@\S+"), r"\1"),  # word@s:eng
    (regex.compile(r"\s+([.?!,])"), r"\1"),
    (regex.compile(r"\s+"), " "),
)


def chat(path: Path, report: Report) -> Iterator[Record]:
    """A CHAT transcript: one document, one utterance a line, without speakers, codes and annotation tiers."""
    utterances: list[str] = []
    speaking = False
    for _, line in lines(path, report):
        if line.startswith("*") and ":" in line:
            utterances.append(line.split(":", 1)[1])
            speaking = True
        elif line.startswith("\t") and speaking:
            utterances[-1] += " " + line
        else:
            speaking = False
    cleaned = []
    for utterance in utterances:
        for pattern, replacement in _CHAT_CODES:
            utterance = pattern.sub(replacement, utterance)
        if regex.search(r"[\p{L}\p{N}]", utterance):
            cleaned.append(utterance.lstrip(" .,").rstrip())
    if cleaned:
        yield Record("\n".join(cleaned), "")


READERS: dict[str, Reader] = {
    "jsonl": jsonl,
    "json": json_array,
    "text": text_lines,
    "document": document,
    "parquet": parquet,
    "mediawiki": mediawiki,
    "chat": chat,
}
_WITH_KEY = frozenset(("jsonl", "json", "parquet"))


def _choose(path: Path, source: Input) -> str:
    if source.reader != "auto":
        check_reader(source.reader)
        return source.reader
    name = reader_for(path)
    if name is None:
        suffixes = ", ".join(sorted(SUFFIXES))
        close = difflib.get_close_matches(path.suffix.lower(), SUFFIXES, n=1, cutoff=0.5)
        hint = f" did you mean {close[0]}?" if close else ""
        raise CorpusError(
            f"{path}: no reader for this suffix;{hint} known are {suffixes} "
            f"(also with {', '.join(COMPRESSIONS)}); or name a reader: {', '.join(READERS)}"
        )
    return name


def check_reader(name: str) -> None:
    """Raise CorpusError, with a suggestion, if `name` is neither "auto" nor a reader."""
    if name == "auto" or name in READERS:
        return
    close = difflib.get_close_matches(name, READERS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise CorpusError(f"unknown reader {name!r}; {hint}The readers are auto, {', '.join(READERS)}")


def read(inputs: Sequence[Input], language: str, report: Report) -> Iterator[Document]:
    """Yield the documents of `inputs`, in order. Ids are `source/file:key`, unique within one corpus.

    Raises:
        CorpusError: a file is missing, damaged or of an unknown kind, or there is no document at all.
    """
    n = 0
    labels: Counter[str] = Counter()
    for source in inputs:
        check_reader(source.reader)
        for label, records in _streams(source, report):
            labels[label] += 1
            if labels[label] > 1:  # two files of one name
                label = f"{label}#{labels[label]}"
            name = source.name or source.path
            for record in records:
                n += 1
                key = f"{label}:{record.key}" if record.key else label
                license_ = record.license or source.license
                yield Document(record.text, key, language, record.source or name, license_)
    if n == 0:
        bad = report.counts["invalid_utf8"]
        why = f"; {bad:,} lines are not UTF-8 (the first: {report.where['invalid_utf8'][0]})" if bad else ""
        raise CorpusError(f"no document in {', '.join(source.path for source in inputs) or 'an empty list'}{why}")


def _streams(source: Input, report: Report) -> Iterator[tuple[str, Iterator[Record]]]:
    """Yield a label for ids and the records, for each file of an input."""
    if is_hub(source):
        yield source.name or source.path.removeprefix(HUB), _hub(source, report)
        return
    paths = resolve(source)
    for path in paths:
        reader = _choose(path, source)
        options = {"text_key": source.text_key} if reader in _WITH_KEY else {}
        label = path.name if len(paths) == 1 else "/".join(path.parts[-2:])
        yield (f"{source.name}/{label}" if source.name else label), READERS[reader](path, report, **options)


def _hub(source: Input, report: Report) -> Iterator[Record]:
    """Stream a data set from the hub: `hub:owner/dataset[:split]`, split "train" unless named."""
    name, _, split = source.path.removeprefix(HUB).partition(":")
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(f"{source.path} needs the package `datasets`: pip install datasets") from error
    try:
        rows = datasets.load_dataset(name, split=split or "train", streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(f"{source.path} cannot be loaded: {error}") from error
    for number, row in enumerate(rows, 1):
        if record := _record(row, f"{source.path} row {number}", str(number), source.text_key, report):
            yield record
