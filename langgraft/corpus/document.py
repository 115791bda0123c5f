"""What flows through the corpus package: documents, where they come from, what was met on the way."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

KEPT_EXAMPLES = 5
KEPT_FILES = 100


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from; what every `.jsonl.gz` file of a corpus holds, one a line.

    `duplicates`: how many texts were dropped because they repeat this one; not written where it is 0.
    """

    text: str
    id: str
    language: str
    source: str
    license: str
    duplicates: int = 0

    def row(self) -> dict[str, Any]:
        """The document as a JSON object, keys in a fixed order."""
        row: dict[str, Any] = {"text": self.text, "id": self.id, "language": self.language}
        row |= {"source": self.source, "license": self.license}
        return {**row, "duplicates": self.duplicates} if self.duplicates else row


@dataclass(frozen=True)
class Input:
    """A place to read: a file, a folder, a glob, `package:NAME/path` or `hub:owner/dataset[:split]`.

    `reader`: a name in `readers.READERS`, a `my_module:function`, or "auto" to choose by name and content.
    `text_key`: the field or column that holds the text, for readers that have fields.
    `license`, `name`: recorded with every document that does not carry its own.
    `encoding`: how bytes are text; "auto" detects it for each file.
    `strict`: any damage is an error, instead of being counted and left out.
    `options`: options of the reader, by name.
    """

    path: str
    reader: str = "auto"
    text_key: str = "text"
    license: str = ""
    name: str = ""
    encoding: str = "auto"
    strict: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class Record(NamedTuple):
    """What a reader yields: a text, its key in the file (line number, title), what the file says of it.

    `pair` is the same in the other language, in files with two (PO, MO, TMX, dictionaries).
    """

    text: str
    key: str
    source: str = ""
    license: str = ""
    pair: str = ""


class Pair(NamedTuple):
    """Two texts that say the same: what `readers.read_pairs` yields."""

    text: str
    pair: str
    id: str
    source: str
    license: str


@dataclass
class Report:
    """What readers met. `where` keeps the first few places of each kind, `sentences` what was wrong at the first.

    `damaged` lists files of which a part could not be read: `{"file", "documents" read before, "reason"}`.
    `encodings` counts files by encoding; `not_utf8` names the encoding of the first files that are not UTF-8.
    `readers` counts files by reader.
    """

    counts: Counter[str] = field(default_factory=Counter)
    where: dict[str, list[str]] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)
    damaged: list[dict[str, Any]] = field(default_factory=list)
    encodings: Counter[str] = field(default_factory=Counter)
    not_utf8: dict[str, str] = field(default_factory=dict)
    readers: Counter[str] = field(default_factory=Counter)
    bytes_done: int = 0
    raw: BinaryIO | None = None

    def note(self, kind: str, place: str, sentence: str = "") -> None:
        """Count one `kind` (such as "invalid_utf8") met at `place` (file:line); the first `sentence` is kept."""
        self.counts[kind] += 1
        self.sentences.setdefault(kind, sentence or f"{place}: {kind.replace('_', ' ')}")
        places = self.where.setdefault(kind, [])
        if len(places) < KEPT_EXAMPLES:
            places.append(place)

    def note_encoding(self, path: str, encoding: str) -> None:
        """Count a file by its encoding."""
        self.encodings[encoding] += 1
        if encoding != "utf-8" and len(self.not_utf8) < KEPT_FILES:
            self.not_utf8[path] = encoding

    def position(self) -> int:
        """Bytes of the (compressed) files read so far."""
        return self.bytes_done + (self.raw.tell() if self.raw is not None and not self.raw.closed else 0)

    def summary(self, kind: str) -> dict[str, Any]:
        """`{"count": n, "where": [...]}` for one kind."""
        return {"count": self.counts[kind], "where": self.where.get(kind, [])}

    def files(self) -> dict[str, Any]:
        """How files were read: by reader and encoding, and which are damaged."""
        return {
            "readers": dict(sorted(self.readers.items())),
            "encodings": dict(sorted(self.encodings.items())),
            "not_utf8": self.not_utf8,
            "damaged": self.damaged,
        }
