"""What flows through the corpus package: documents, where they come from, what was met on the way."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, NamedTuple

KEPT_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from; what every `.jsonl.gz` file of a corpus holds, one a line."""

    text: str
    id: str
    language: str
    source: str
    license: str

    def row(self) -> dict[str, str]:
        """The document as a JSON object, keys in a fixed order."""
        return asdict(self)


@dataclass(frozen=True)
class Input:
    """A place to read: a file, a folder, a glob, `package:NAME/path` or `hub:owner/dataset[:split]`.

    `reader`: a name in `readers.READERS`, or "auto" to choose by the file's suffix.
    `text_key`: the field or column that holds the text (jsonl, json, parquet, hub).
    `license`, `name`: recorded with every document that does not carry its own.
    """

    path: str
    reader: str = "auto"
    text_key: str = "text"
    license: str = ""
    name: str = ""


class Record(NamedTuple):
    """What a reader yields: a text, its key in the file (line number, title), what the file says of it."""

    text: str
    key: str
    source: str = ""
    license: str = ""


@dataclass
class Report:
    """Counts what readers met. `where` keeps the first few places of each kind, to be shown to the user."""

    counts: Counter[str] = field(default_factory=Counter)
    where: dict[str, list[str]] = field(default_factory=dict)
    bytes_done: int = 0
    raw: BinaryIO | None = None

    def note(self, kind: str, place: str) -> None:
        """Count one `kind` (such as "invalid_utf8") met at `place` (file:line)."""
        self.counts[kind] += 1
        places = self.where.setdefault(kind, [])
        if len(places) < KEPT_EXAMPLES:
            places.append(place)

    def position(self) -> int:
        """Bytes of the (compressed) files read so far."""
        return self.bytes_done + (self.raw.tell() if self.raw is not None and not self.raw.closed else 0)

    def summary(self, kind: str) -> dict[str, Any]:
        """`{"count": n, "where": [...]}` for one kind."""
        return {"count": self.counts[kind], "where": self.where.get(kind, [])}
