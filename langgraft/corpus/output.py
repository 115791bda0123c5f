"""Writing a corpus folder: what is kept, split by split, and what was left out, with the reason."""

import array
import contextlib
import gzip
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from langgraft.corpus.dedup import Duplicates
from langgraft.corpus.document import KEPT_EXAMPLES
from langgraft.corpus.lines import line_of, parse
from langgraft.corpus.shards import Shards
from langgraft.corpus.split import SPLITS
from langgraft.text import utf8_bytes

_EXAMPLE_CHARACTERS = 200
_SIZES = ("documents", "characters", "bytes")


@contextlib.contextmanager
def gzip_writer(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing compressed bytes; without name and time, so equal content is equal bytes."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=raw, mtime=0) as packed,
        io.BufferedWriter(packed, 1 << 16) as file,  # type: ignore[type-var]
    ):
        yield file


@dataclass
class Drops:
    """Writes every dropped document with its reason, and the lines that other documents lost, and counts them."""

    file: BinaryIO
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, row: dict[str, str]) -> None:
        """`row` holds "id", "reason", more to say, and "text"; with "part", the text is lines of a kept document."""
        self.file.write(line_of(row))
        reason = row["reason"]
        if "part" in row:
            self._add_lines(reason, row["id"], row["text"])
            return
        self.counts[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < KEPT_EXAMPLES:
            more = {key: value for key, value in row.items() if key not in ("reason", "text")}
            examples.append({**more, "text": row["text"][:_EXAMPLE_CHARACTERS]})

    def _add_lines(self, reason: str, document: str, text: str) -> None:
        found = self.lines.setdefault(reason, {"documents": 0, "lines": 0, "characters": 0, "examples": []})
        found["documents"] += 1
        found["lines"] += text.count("\n") + 1
        found["characters"] += len(text)
        if len(found["examples"]) < KEPT_EXAMPLES:
            found["examples"].append({"id": document, "text": text[:_EXAMPLE_CHARACTERS]})

    def summary(self) -> dict[str, Any]:
        """Documents and examples by reason, the most frequent first."""
        return {
            reason: {"documents": n, "examples": self.examples[reason]}
            for reason, n in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        }


@dataclass
class Places:
    """Kept documents in one file: where each begins, and its key. Holds 28 bytes a document."""

    path: Path
    offsets: "array.array[int]"
    keys: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.offsets)

    def hex_keys(self) -> Iterator[str]:
        """Each document's `near.text_key`."""
        for key in self.keys:
            yield bytes(key).ljust(20, b"\0").hex()


def keep(
    shards: Shards, protected: Shards, found: Duplicates, folder: Path, limit: int | None = None
) -> tuple[Places, Drops]:
    """Write the first document of each kind to `folder/spool`, and what was dropped to `folder/dropped.jsonl.gz`.

    Args:
        protected: evaluation sets; `found` counts their documents first.
        limit: keep at most so many.
    """
    before = len(protected)
    every = protected + shards
    kept, sizes = found.kept(), found.sizes()
    offsets, numbers, number = array.array("Q"), array.array("Q"), before
    with gzip_writer(folder / "dropped.jsonl.gz") as file, (folder / "spool").open("wb") as spool:
        drops = Drops(file)
        for shard in shards.folders:
            with (shard / "dropped.jsonl").open("rb") as lines:
                for line in lines:
                    drops.add(parse(line))
            with (shard / "kept.jsonl").open("rb") as lines:
                for line in lines:
                    if not kept[number]:
                        drops.add(_repeated(parse(line), every, found, number, before))
                    elif limit is None or len(offsets) < limit:
                        numbers.append(number - before)
                        offsets.append(spool.tell())
                        size = int(sizes[number])
                        spool.write(line_of({**parse(line), "duplicates": size}) if size else line)
                    number += 1
    return Places(folder / "spool", offsets, shards.keys[np.array(numbers, dtype=np.int64)]), drops


def _repeated(row: Mapping[str, str], every: Shards, found: Duplicates, number: int, before: int) -> dict[str, str]:
    first = int(found.first[number])
    reason = "near_duplicate" if found.near[number] else "duplicate"
    field_ = "duplicate_of"
    if first < before:
        reason, field_ = "contaminated", "overlaps"
    return {"id": row["id"], "reason": reason, field_: every.document(first).id, "text": row["text"]}


def write_splits(folder: Path, places: Places, parts: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Write each split in its order; returns sizes by split, and documents by licence, source and length."""
    sizes: dict[str, dict[str, int]] = {}
    licenses: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    table: dict[tuple[str, str], list[int]] = {}
    lengths: Counter[int] = Counter()
    with places.path.open("rb") as file:
        for name in SPLITS:
            size = [0, 0, 0]
            with gzip_writer(folder / f"{name}.jsonl.gz") as out:
                for i in parts[name].tolist():
                    file.seek(places.offsets[i])
                    line = file.readline()
                    row = parse(line)
                    out.write(line)
                    text = row["text"]
                    facts = table.setdefault((row["source"], row["license"]), [0, 0, 0])
                    for of in (facts, size):
                        of[0] += 1
                        of[1] += len(text)
                        of[2] += utf8_bytes(text)
                    lengths[len(text).bit_length()] += 1
            sizes[name] = dict(zip(_SIZES, size, strict=True))
    for (source, license_), facts in table.items():
        licenses[license_ or "unknown"] += facts[0]
        sources[source] += facts[0]
    return {
        "splits": sizes,
        "licenses": dict(sorted(licenses.items())),
        "sources": dict(sorted(sources.items())),
        "source_table": [
            {"source": source, "license": license_, **dict(zip(_SIZES, facts, strict=True))}
            for (source, license_), facts in sorted(table.items())
        ],
        # Documents by length: those of 2 ** (n - 1) to 2 ** n - 1 characters are under n.
        "lengths": {str(bits): n for bits, n in sorted(lengths.items())},
    }
