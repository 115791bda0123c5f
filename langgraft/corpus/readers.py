"""Formats: each reader yields the records of one file. A new one is a function and a row in `READERS`.

A reader is `reader(file: streams.File, *, options) -> Iterator[Record]`. It raises DamagedError where a file
cannot be read further: what it yielded before stays, and `read` goes on with the next file.
"""

import difflib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import regex

from langgraft.corpus.document import Document, Input, Pair, Record, Report
from langgraft.corpus.encodings import canonical, detect
from langgraft.corpus.readers_tables import Rows
from langgraft.corpus.sources import HUB, SUFFIXES, is_hub, reader_for, resolve
from langgraft.corpus.streams import COMPRESSIONS, File, head
from langgraft.errors import CorpusError, DamagedError, RecipeError
from langgraft.methods import check_options
from langgraft.methods import resolve as method

Reader = Callable[..., Iterator[Record]]

READERS: dict[str, str] = {
    "jsonl": "langgraft.corpus.readers_tables:jsonl",
    "json": "langgraft.corpus.readers_tables:json_array",
    "i18n": "langgraft.corpus.readers_tables:i18n",
    "delimited": "langgraft.corpus.readers_tables:delimited",
    "parquet": "langgraft.corpus.readers_tables:parquet",
    "text": "langgraft.corpus.readers_plain:text_lines",
    "paragraphs": "langgraft.corpus.readers_plain:paragraphs",
    "document": "langgraft.corpus.readers_plain:document",
    "markdown": "langgraft.corpus.readers_plain:markdown",
    "aozora": "langgraft.corpus.readers_plain:aozora",
    "subtitles": "langgraft.corpus.readers_plain:subtitles",
    "chat": "langgraft.corpus.readers_plain:chat",
    "conllu": "langgraft.corpus.readers_plain:conllu",
    "html": "langgraft.corpus.readers_markup:html",
    "epub": "langgraft.corpus.readers_markup:epub",
    "wikimedia_html": "langgraft.corpus.readers_markup:wikimedia_html",
    "mediawiki": "langgraft.corpus.mediawiki:mediawiki",
    "po": "langgraft.corpus.readers_pairs:po",
    "mo": "langgraft.corpus.readers_pairs:mo",
    "tmx": "langgraft.corpus.readers_pairs:tmx",
    "dictd": "langgraft.corpus.readers_pairs:dictd",
    "edict": "langgraft.corpus.readers_pairs:edict",
    "megatron": "langgraft.corpus.indexed:megatron",
}
_SNIFFED = 1 << 14
_ENTRY = regex.compile(r"[^\s/\[\]][^/\[\]\n]*(?:\[[^\]\n]*\] ?)?/[^\n]+/\s*")
# What the beginning of a file shows; the first that fits decides.
_CONTENTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("mediawiki", lambda start: "<mediawiki" in start[:500]),
    ("tmx", lambda start: "<tmx" in start[:500]),
    ("html", lambda start: bool(regex.match(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)", start, regex.I))),
    ("wikimedia_html", lambda start: start.lstrip().startswith("{") and '"article_body"' in start),
    ("chat", lambda start: start.startswith(("@UTF8", "@Begin"))),
    ("conllu", lambda start: bool(regex.search(r"^1(?:-\d+)?(?:\t[^\t\n]*){9}$", start, regex.M))),
    ("subtitles", lambda start: start.startswith("WEBVTT") or bool(regex.match(r"\s*\d+\s*\n[\d:,.]+ --> ", start))),
    ("aozora", lambda start: "［＃" in start and "《" in start),
    (
        "po",
        lambda start: bool(regex.search(r'^msgid "', start, regex.M) and regex.search(r'^msgstr "', start, regex.M)),
    ),
    ("edict", lambda start: _most(start, _ENTRY.fullmatch)),
    ("delimited", lambda start: _even_tabs(start)),
)


def _most(start: str, test: Callable[[str], object]) -> bool:
    lines = [line for line in start.split("\n")[:-1] if line.strip() and not line.startswith("#")]
    return len(lines) >= 3 and sum(bool(test(line)) for line in lines) >= 0.9 * len(lines)


def _even_tabs(start: str) -> bool:
    lines = [line for line in start.split("\n")[:-1] if line.strip()]
    return len(lines) >= 3 and len({line.count("\t") for line in lines}) == 1 and "\t" in lines[0]


def choose(path: Path, *, language: str = "", encoding: str = "auto") -> str:
    """The reader for a file, by its name and, where the name leaves it open, by what it holds.

    Raises:
        CorpusError: neither says how to read it.
    """
    name = reader_for(path)
    if name not in (None, "text", "json", "jsonl", "mediawiki"):
        return str(name)
    start = head(path, _SNIFFED)
    known = canonical(encoding) if encoding != "auto" else detect(start, language)
    text = start.decode(known or "utf-8", "ignore").removeprefix("\ufeff").replace("\r\n", "\n")
    if name == "json":
        return _which_json(text)
    if name in ("jsonl", "mediawiki"):
        special = {"jsonl": "wikimedia_html", "mediawiki": "tmx"}[name]
        return special if dict(_CONTENTS)[special](text) else name
    for reader, test in _CONTENTS:
        if test(text):
            return reader
    if name is None:
        _unknown(path)
    return str(name)


def _which_json(start: str) -> str:
    stripped = start.lstrip()
    if not stripped.startswith("{"):
        return "json"
    first, _, rest = stripped.partition("\n")
    if first.rstrip().endswith("}") and (rest.lstrip().startswith("{") or not rest.strip()) and "{" in rest:
        return "wikimedia_html" if '"article_body"' in first else "jsonl"
    return "i18n"


def _unknown(path: Path) -> None:
    suffixes = ", ".join(sorted(SUFFIXES))
    close = difflib.get_close_matches(path.suffix.lower(), SUFFIXES, n=1, cutoff=0.5)
    hint = f" did you mean {close[0]}?" if close else ""
    raise CorpusError(
        f"{path}: no reader for this suffix;{hint} known are {suffixes} "
        f"(also with {', '.join(COMPRESSIONS)}); or name a reader: {', '.join(READERS)}"
    )


def check_reader(source: Input) -> None:
    """Raise CorpusError, with a suggestion, if an input names a reader, option or encoding that is not there."""
    if source.encoding != "auto" and canonical(source.encoding) is None:
        raise CorpusError(f"encoding {source.encoding!r} is unknown; write it as Python does, such as cp1256")
    if source.reader == "auto":
        return
    try:
        reader = method(READERS, source.reader, what="reader")
        check_options(reader, dict(source.options), what=f"reader `{source.reader}`")
    except RecipeError as error:
        raise CorpusError(str(error)) from error


def _records(path: Path, source: Input, language: str, report: Report) -> Iterator[Record]:
    """The records of one file, by the reader that fits it."""
    name = source.reader
    if name == "auto":
        name = choose(path, language=language, encoding=source.encoding)
    reader: Reader = method(READERS, name, what="reader")
    options = dict(source.options)
    try:
        check_options(reader, options, what=f"reader `{name}`")
    except RecipeError as error:
        raise CorpusError(str(error)) from error
    if "text_key" in inspect.signature(reader).parameters:
        options.setdefault("text_key", source.text_key)
    report.readers[name] += 1
    yield from reader(File(path, report, source.encoding, language, source.strict), **options)


def read(inputs: Sequence[Input], language: str, report: Report) -> Iterator[Document]:
    """Yield the documents of `inputs`, in order. Ids are `source/file:key`, unique within one corpus.

    A damaged file gives what stands before the damage, and is listed in `report.damaged`; `Input.strict` makes
    it an error.

    Raises:
        CorpusError: a file is missing or of an unknown kind, or an input gives no document at all.
    """
    for record, source, key in _all(inputs, language, report):
        name = source.name or source.path
        yield Document(record.text, key, language, record.source or name, record.license or source.license)


def read_pairs(inputs: Sequence[Input], language: str, report: Report) -> Iterator[Pair]:
    """Yield texts that have another language beside them: PO, MO, TMX, EDICT, or a column named by `pair_key`.

    Raises:
        CorpusError: as `read`.
    """
    for record, source, key in _all(inputs, language, report):
        if record.pair:
            name = source.name or source.path
            yield Pair(record.text, record.pair, key, record.source or name, record.license or source.license)


def _all(inputs: Sequence[Input], language: str, report: Report) -> Iterator[tuple[Record, Input, str]]:
    for source in inputs:
        check_reader(source)
    labels: Counter[str] = Counter()
    for source in inputs:
        n = 0
        before = report.counts.copy()
        for label, place, records in _streams(source, language, report):
            labels[label] += 1
            if labels[label] > 1:  # two files of one name
                label = f"{label}#{labels[label]}"
            of_file = 0
            try:
                for record in records:
                    of_file += 1
                    yield record, source, f"{label}:{record.key}" if record.key else label
            except DamagedError as error:
                if source.strict:
                    raise
                report.damaged.append({"file": place, "documents": of_file, "reason": str(error)})
            n += of_file
        if n == 0:
            raise CorpusError(f"no document in {source.path}{_why(report, before)}")
    if not inputs:
        raise CorpusError("no document in an empty list")


def _why(report: Report, before: Counter[str]) -> str:
    """What was met instead of documents: damage, or the most frequent reason for leaving something out."""
    if report.damaged:
        return f": {report.damaged[-1]['reason']}"
    new = report.counts - before
    if not new:
        return ""
    kind, count = max(new.items(), key=lambda item: item[1])
    first = f", the first: {report.sentences[kind]}" if kind in report.sentences else ""
    return f": {count:,} times {kind.replace('_', ' ')}{first}"


def _streams(source: Input, language: str, report: Report) -> Iterator[tuple[str, str, Iterator[Record]]]:
    """Yield a label for ids, the place, and the records, for each file of an input."""
    if is_hub(source):
        yield source.name or source.path.removeprefix(HUB), source.path, _hub(source, report)
        return
    paths = resolve(source)
    for path in paths:
        label = path.name if len(paths) == 1 else "/".join(path.parts[-2:])
        label = f"{source.name}/{label}" if source.name else label
        yield label, str(path), _records(path, source, language, report)


def _hub(source: Input, report: Report) -> Iterator[Record]:
    rows = Rows(File(Path(source.path.removeprefix(HUB)), report, strict=source.strict), source.text_key)
    report.readers["hub"] += 1
    for number, row in enumerate(hub_rows(source), 1):
        if record := rows.record(row, f"{source.path} row {number}", str(number)):
            yield record


def hub_rows(source: Input) -> Iterator[Any]:
    """Stream a data set from the hub: `hub:owner/dataset[:split]`, split "train" unless named.

    Raises:
        CorpusError: the package `datasets` is missing, or the data set cannot be loaded.
    """
    name, _, split = source.path.removeprefix(HUB).partition(":")
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(f"{source.path} needs the package `datasets`: pip install datasets") from error
    try:
        yield from datasets.load_dataset(name, split=split or "train", streaming=True, **source.options)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise CorpusError(f"{source.path} cannot be loaded: {error}") from error
