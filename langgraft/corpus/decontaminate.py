"""Nothing of an evaluation set in the training text: n-grams that both have.

A document is dropped whole if it shares a run of 13 words with a text of an evaluation set, the size of GPT-3
(Brown et al. 2020, appendix C); texts of 8 to 12 words are found by runs of 8, the smallest size there. Spaces, case
and punctuation do not count. In scripts without spaces runs of characters take their place: 50 (as GPT-4's report
has it), 20 of Han and kana, which say as much. Shorter texts, and those that are nearly a whole document, are found
as duplicates (see `dedup`).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.corpus.document import Document, Input, Report
from langgraft.corpus.near import Hashes, by_words, folded, ngrams, words
from langgraft.corpus.normalise import normalise
from langgraft.corpus.readers import choose, read
from langgraft.corpus.readers_rows import rows
from langgraft.corpus.sources import is_hub, resolve
from langgraft.errors import CorpusError
from langgraft.text import language

WORDS = (13, 8)
CHARACTERS = (50, 30)
DENSE = (20, 12)
_DENSE_SCRIPTS = frozenset(("Han", "Hiragana", "Katakana"))
_ROW_READERS = frozenset(("jsonl", "json", "delimited", "parquet"))


def sizes(code: str) -> tuple[int, int]:
    """Units in a run that two texts may not share, and in one for texts shorter than that."""
    if by_words(code):
        return WORDS
    return DENSE if _DENSE_SCRIPTS.intersection(language(code).scripts) else CHARACTERS


def units(text: str, code: str) -> Hashes:
    """What runs are counted in: words; in scripts without spaces characters, but words of scripts with them."""
    return words(folded(text), single=not by_words(code))


def evaluation_texts(paths: Sequence[str], code: str) -> Iterator[Document]:
    """Every text of the evaluation sets at `paths`, normalised; of rows with fields, each string at any depth.

    Args:
        paths: files, folders, globs, `package:…` or `hub:owner/dataset[:split]`.

    Raises:
        CorpusError: a path does not exist, cannot be read, or holds no text.
    """
    for path in paths:
        found = 0
        for key, text in _texts(Input(path), code):
            clean = normalise(text, code)
            if clean:
                found += 1
                yield Document(clean, key, code, path, "")
        if not found:
            raise CorpusError(f"no text in {path}, which the corpus shall be kept apart from")


def _texts(source: Input, code: str) -> Iterator[tuple[str, str]]:
    files: Sequence[Path | None] = [None] if is_hub(source) else resolve(source)
    for path in files:
        if path is None or choose(path, language=code) in _ROW_READERS:
            for place, row in rows(source, path, code):
                for name, text in _strings(row, ""):
                    yield f"{place}{name}", text
        else:
            for document in read([Input(str(path))], code, Report()):
                yield document.id, document.text


def _strings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _strings(inner, f"{name}[{i}]")


def index(documents: Sequence[Document], code: str, folder: Path) -> None:
    """Write what `Overlaps` needs into `folder`: 12 bytes for each n-gram of `documents`, and their ids."""
    long, short = sizes(code)
    found: dict[int, list[tuple[Hashes, int]]] = {long: [], short: []}
    for number, document in enumerate(documents):
        of = units(document.text, code)
        size = long if len(of) >= long else short
        if len(of) >= short:
            found[size].append((ngrams(of, size), number))
    for size, parts in found.items():
        grams = np.concatenate([grams for grams, _ in parts] or [np.zeros(0, dtype=np.uint64)])
        owners = np.repeat([n for _, n in parts] or [0], [len(g) for g, _ in parts] or [0]).astype(np.uint32)
        grams, first = np.unique(grams, return_index=True)
        np.save(folder / f"grams-{size}.npy", grams)
        np.save(folder / f"owners-{size}.npy", owners[first])
    (folder / "ids.json").write_text(json.dumps([document.id for document in documents]), encoding="utf-8")


class Overlaps:
    """Finds texts that share an n-gram with the evaluation sets that `index` was given; the arrays stay on disk."""

    def __init__(self, folder: Path, code: str) -> None:
        self.code = code
        self._ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        self._grams = [
            (size, np.load(folder / f"grams-{size}.npy", mmap_mode="r"), np.load(folder / f"owners-{size}.npy"))
            for size in sizes(code)
        ]

    def find(self, text: str) -> str:
        """The id of an evaluation text that shares a run with `text`, or ""."""
        of = units(text, self.code)
        for size, grams, owners in self._grams:
            if len(of) < size or not len(grams):
                continue
            mine = ngrams(of, size)
            at = np.minimum(np.searchsorted(grams, mine), len(grams) - 1)
            hits = np.flatnonzero(grams[at] == mine)
            if len(hits):
                return str(self._ids[int(owners[at[hits[0]]])])
        return ""
