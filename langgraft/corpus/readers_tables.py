"""Readers of rows: JSON lines, JSON arrays, interface messages in JSON, CSV and TSV, Parquet."""

import csv
import json
import string
from collections.abc import Iterator
from typing import Any, BinaryIO

import regex

from langgraft.corpus.document import Record
from langgraft.corpus.lines import parse
from langgraft.corpus.streams import COMPRESSIONS, File
from langgraft.errors import CorpusError, DamagedError
from langgraft.text import language, script_shares

_CHUNK = 1 << 18
_SPACE = regex.compile(r"[ \t\r\n]*")


class Rows:
    """Turns JSON values of one file into records, and knows whether a missing field is a typing mistake.

    A field that is missing from the first row is an error, because the name is then most likely wrong; one
    that is missing later is counted.
    """

    def __init__(self, file: File, text_key: str, pair_key: str = "") -> None:
        self.file, self.text_key, self.pair_key, self.good = file, text_key, pair_key, 0

    def record(self, row: Any, where: str, key: str) -> Record | None:
        """A record from a string, or from an object whose `text_key` holds the text; None if it has no text."""
        if isinstance(row, str):
            self.good += 1
            return Record(row, key)
        if not isinstance(row, dict):
            self.file.bad("no_object", where, f"{where}: expected an object or a string, found {type(row).__name__}")
            return None
        for field, option in ((self.text_key, "text_key"), (self.pair_key, "pair_key")):
            if field in row or not field:
                continue
            keys = ", ".join(map(repr, row)) or "none"
            sentence = f"{where}: no field {field!r}; the fields are {keys} (set {option})"
            if not self.good:
                raise CorpusError(sentence)
            self.file.bad("no_field", where, sentence)
            return None
        text = row[self.text_key]
        if text is None:
            self.file.report.note("no_text", where)
            return None
        if not isinstance(text, str):
            sentence = f"{where}: field {self.text_key!r} holds {type(text).__name__}, not a string"
            if not self.good:
                raise CorpusError(sentence)
            self.file.bad("no_string", where, sentence)
            return None
        pair = row.get(self.pair_key) or "" if self.pair_key else ""
        if not isinstance(pair, str):
            self.file.bad(
                "no_string", where, f"{where}: field {self.pair_key!r} holds {type(pair).__name__}, no string"
            )
            return None
        self.good += 1
        # Where `source` is one of the two texts, it does not say where the row is from.
        origin = "" if "source" in (self.text_key, self.pair_key) else row.get("source")
        return Record(text, key, str(origin or ""), str(row.get("license") or ""), pair)


def jsonl(file: File, *, text_key: str = "text", pair_key: str = "") -> Iterator[Record]:
    """One JSON object (or string) a line; fields `source` and `license` are kept where present.

    Args:
        pair_key: the field that holds the same text in another language, for `read_pairs`.
    """
    rows = Rows(file, text_key, pair_key)
    for number, line in file.lines():
        if not line.strip():
            continue
        where = f"{file.path}:{number}"
        try:
            row = parse(line)
        except (json.JSONDecodeError, RecursionError) as error:
            why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
            file.bad("not_json", where, f"{where}: not JSON: {why}")
            continue
        if record := rows.record(row, where, str(number)):
            yield record


def json_array(file: File, *, text_key: str = "text", pair_key: str = "") -> Iterator[Record]:
    """A JSON array of strings or objects, read item by item: memory holds one item, not the file; as `jsonl`."""
    rows = Rows(file, text_key, pair_key)
    for number, row in enumerate(items(file), 1):
        if record := rows.record(row, f"{file.path}: item {number}", str(number)):
            yield record


def _characters(file: File) -> Iterator[str]:
    """Decoded pieces of the file; the line reader's limits do not fit a file of one line."""
    import codecs

    with file.opened() as stream:
        chunk = stream.read(_CHUNK)
        if not chunk:
            raise DamagedError(f"{file.path} is empty")
        decoder = codecs.getincrementaldecoder(file.sniff(chunk))()
        first = True
        while True:
            try:
                text = decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                raise DamagedError(
                    f"{file.path}: the bytes {error.object[error.start : error.end]!r} are no text"
                ) from (error)
            yield text.removeprefix("\ufeff") if first else text
            if not chunk:
                return
            first, chunk = False, stream.read(_CHUNK)


def items(file: File) -> Iterator[Any]:
    """The values of a JSON array, one after the other."""
    decoder, buffer, at, n = json.JSONDecoder(), "", 0, 0
    for piece in _characters(file):
        buffer, at = buffer[at:] + piece, 0
        if n == 0 and buffer.strip():
            at = _open_array(buffer, file)
            n = 1
        while n:
            start = _SPACE.match(buffer, at).end()  # type: ignore[union-attr]
            if buffer[start : start + 1] == "]":
                return
            try:
                value, end = decoder.raw_decode(buffer, start)
            except json.JSONDecodeError as error:
                # An item that goes on after the buffer fails at its end; anything else is no JSON.
                if len(buffer) - start > file.max_record:
                    raise DamagedError(f"{file.path}: item {n} is longer than {file.max_record >> 20} MB") from None
                if error.pos < len(buffer) - 16 and not error.msg.startswith("Unterminated string") and piece:
                    raise DamagedError(f"{file.path}: item {n}: not JSON: {error.msg}") from None
                break
            end = _SPACE.match(buffer, end).end()  # type: ignore[union-attr]
            if buffer[end : end + 1] not in (",", "]"):
                if end < len(buffer):
                    raise DamagedError(f"{file.path}: item {n}: not JSON: expected , or ] after it")
                break  # a number may go on
            yield value
            n, at = n + 1, end + (buffer[end] == ",")
    raise DamagedError(f"{file.path} is cut short after {max(n - 1, 0):,} items; get a complete copy of the file")


def _open_array(buffer: str, file: File) -> int:
    start = _SPACE.match(buffer).end()  # type: ignore[union-attr]
    if buffer[start] == "[":
        return start + 1
    found = {"{": "an object", '"': "a string"}.get(buffer[start], repr(buffer[start]))
    raise DamagedError(
        f"{file.path}: expected an array of strings or objects, found {found}; "
        "for one object a line use the jsonl reader, for interface messages i18n"
    )


# Wiki and HTML markup of interface messages; what stays are the words a user sees.
_MESSAGE = (
    (regex.compile(r"\{\{(?:PLURAL|GENDER|GRAMMAR|#if[a-z]*):[^|{}]*\|(?:[^{}]*\|)?([^{}|]*)\}\}", regex.I), r"\1"),
    (regex.compile(r"\{\{[^{}]*\}\}"), ""),
    (regex.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]"), r"\1"),
    (regex.compile(r"\[(?:https?:)?//\S+ ([^\]]*)\]"), r"\1"),
    (regex.compile(r"\[\$\d+ ([^\]]*)\]"), r"\1"),
    (regex.compile(r"'{2,}"), ""),
    (regex.compile(r"<br\s*/?>"), "\n"),
    (regex.compile(r"</?[a-zA-Z][^<>]*>"), ""),
)


def plain_message(message: str) -> str:
    """An interface message without wiki and HTML markup; placeholders such as `$1` and `%s` stay."""
    for pattern, replacement in _MESSAGE:
        message = pattern.sub(replacement, message)
    return message.strip()


def i18n(file: File, *, text_key: str = "text") -> Iterator[Record]:
    """Interface messages of one language in a JSON object, nested or flat; keys that begin with @ are about it.

    With an array or an object that has `text_key` itself, use `json` or `jsonl`.
    """
    del text_key  # files of this kind have none; taken so that `json` and `i18n` have the same options
    text = file.text()
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DamagedError(f"{file.path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{file.path}: expected an object of messages, found {type(found).__name__}")
    for key, message in _messages(found, ""):
        if plain := plain_message(message):
            yield Record(plain, key)


def _messages(found: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        if key.startswith("@"):
            continue
        if isinstance(value, str):
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _messages(value, f"{prefix}{key}.")


_DELIMITERS = "\t;,|"
_NAME = regex.compile(rf"[{string.ascii_letters}_][\w .:#/()-]*")


def delimited(
    file: File,
    *,
    text_key: str = "text",
    pair_key: str = "",
    delimiter: str = "auto",
    header: bool | None = None,
) -> Iterator[Record]:
    """A column of a CSV or TSV file, by its name, or by its number from 1.

    Without a header and a `text_key`, the column whose letters are those of the language is taken.

    Args:
        pair_key: the column that holds the same text in another language, for `read_pairs`.
        delimiter: one character, or "auto": the most frequent of tab, semicolon, comma and bar.
        header: whether the first row names the columns; None looks at it.
    """
    lines = (line + "\n" for _, line in file.lines())
    first = [line for _, line in zip(range(50), lines, strict=False)]
    if delimiter == "auto":
        delimiter = max(_DELIMITERS, key=lambda mark: sum(min(line.count(mark), 50) for line in first))
        delimiter = "\t" if file.path.name.lower().partition(".")[2].startswith("tsv") else delimiter
    elif len(delimiter) != 1:
        raise CorpusError(f"the delimiter must be one character, not {delimiter!r}")
    # In tab-separated files a quotation mark is most often just that.
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    sample = list(csv.reader(first, delimiter=delimiter, quoting=quoting))
    if not sample:
        return
    names = sample[0] if header or (header is None and _is_header(sample, (text_key, pair_key))) else None
    column = _column(file, text_key, names, sample)
    pair = _column(file, pair_key, names, sample) if pair_key else None
    yield from _cells(file, _chained(first, lines), delimiter, quoting, names, column, pair)


def _chained(first: list[str], rest: Iterator[str]) -> Iterator[str]:
    yield from first
    yield from rest


def _is_header(sample: list[list[str]], keys: tuple[str, str]) -> bool:
    if any(key and key in sample[0] for key in keys):
        return True
    return len(sample) > 1 and len(set(sample[0])) == len(sample[0]) and all(map(_NAME.fullmatch, sample[0]))


def _column(file: File, key: str, names: list[str] | None, sample: list[list[str]]) -> int:
    if names and key in names:
        return names.index(key)
    width = max(map(len, sample))
    if key.isdecimal() and 1 <= int(key) <= width:
        return int(key) - 1
    if names:
        raise CorpusError(f"{file.path}: no column {key!r}; the columns are {', '.join(names)} (set text_key)")
    if key == "text" and width == 1:
        return 0
    if key == "text" and file.language:
        scripts = language(file.language).scripts
        cells = ["\n".join(row[i] for row in sample if len(row) > i) for i in range(width)]
        shares = [sum(script_shares(cell).get(script, 0.0) for script in scripts) for cell in cells]
        best = max(range(width), key=lambda i: shares[i])
        if shares[best] > 0.5 and sum(share > 0.3 for share in shares) == 1:
            return best
    shown = ", ".join(f"{i} ({cell[:20]})" for i, cell in enumerate(sample[0], 1))
    raise CorpusError(f"{file.path}: no column {key!r} and no header; set text_key to a column's number: {shown}")


def _cells(
    file: File,
    lines: Iterator[str],
    delimiter: str,
    quoting: Any,
    names: list[str] | None,
    column: int,
    pair: int | None,
) -> Iterator[Record]:
    csv.field_size_limit(file.max_record)
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)
    extra = [names.index(name) if names and name in names else None for name in ("source", "license")]
    number = 0
    while True:
        number += 1
        where = f"{file.path}: row {number}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            file.bad("bad_row", where, f"{where}: {error}")
            continue
        if row is None:
            return
        if (names and number == 1) or not row:
            continue
        if len(row) <= max(column, pair or 0):
            file.bad("bad_row", where, f"{where} has {len(row)} columns, too few")
            continue
        source, license_ = (row[i] if i is not None and i < len(row) else "" for i in extra)
        yield Record(row[column], str(number), source, license_, row[pair] if pair is not None else "")


def parquet(file: File, *, text_key: str = "text", pair_key: str = "") -> Iterator[Record]:
    """A column of a Parquet file; columns `source` and `license` are kept where present; `pair_key` as in `jsonl`."""
    import pyarrow
    import pyarrow.parquet

    path, rows = file.path, Rows(file, text_key, pair_key)
    with file.opened() as stream:
        try:
            table = pyarrow.parquet.ParquetFile(_seekable(stream, file))
        except (pyarrow.ArrowException, OSError) as error:
            raise DamagedError(f"{path} is not a Parquet file, or is cut short: {error}") from error
        names = table.schema_arrow.names
        for key, option in ((text_key, "text_key"), (pair_key, "pair_key")):
            if key and key not in names:
                raise CorpusError(f"{path}: no column {key!r}; the columns are {', '.join(names)} (set {option})")
        columns = [name for name in dict.fromkeys((text_key, pair_key, "source", "license")) if name in names]
        number = 0
        try:
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    if record := rows.record(row, f"{path}: row {number}", str(number)):
                        yield record
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedError(f"{path}: damaged Parquet file after row {number:,}: {error}") from error


def _seekable(stream: BinaryIO, file: File) -> BinaryIO:
    if file.path.suffix.lower() in COMPRESSIONS:
        raise CorpusError(f"{file.path}: Parquet files are compressed inside; decompress {file.path.suffix} first")
    return stream
