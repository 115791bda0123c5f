"""One document at a time: normalise it, and keep it or say why not. Pure, so that it can run in any process."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from langgraft.corpus.decontaminate import Overlaps
from langgraft.corpus.document import Document
from langgraft.corpus.langid import Identifier
from langgraft.corpus.normalise import normalise, readable, truncate


@dataclass(frozen=True)
class Settings:
    """How the documents of one language are cleaned; small, as every process gets it.

    `overlaps` is the folder of the n-grams that no document may hold, made by `decontaminate.index`.
    """

    code: str
    min_characters: int = 1
    max_characters: int | None = None
    near_duplicates: bool = True
    overlaps: Path | None = None


class Dropped(NamedTuple):
    """A document left out, and why; `more` is written beside the reason."""

    document: Document
    reason: str
    more: dict[str, str]


@dataclass
class Cleaner:
    """`cleaner(document)` gives the clean document, or what was dropped; `counts` says how many it saw of what."""

    settings: Settings
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._identifier = Identifier(self.settings.code)
        self._overlaps = Overlaps(self.settings.overlaps, self.settings.code) if self.settings.overlaps else None

    def __call__(self, document: Document) -> Iterator[Document | Dropped]:
        code = self.settings.code
        cleaned = normalise(document.text, code)
        text = readable(cleaned)
        if text is None:
            yield Dropped(document, "unreadable", {})
            return
        if text is not cleaned:
            text = normalise(text, code)
        if not text:
            yield Dropped(document, "empty", {})
            return
        if len(text) < self.settings.min_characters:
            yield Dropped(document, "too_short", {})
            return
        self.counts["checked"] += 1
        verdict = self._identifier.check(text)
        if not verdict.keep:
            yield Dropped(document, verdict.reason, {})
            return
        self.counts["in_language"] += 1
        limit = self.settings.max_characters
        if limit is not None and len(text) > limit:
            text = truncate(text, limit)
            self.counts["truncated"] += 1
        if self._overlaps and (of := self._overlaps.find(text)):
            yield Dropped(document, "contaminated", {"overlaps": of})
            return
        yield replace(document, text=text)
