"""One document at a time: normalise it, and keep it or say why not. Pure, so that it can run in any process."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from langgraft.corpus.decontaminate import Overlaps
from langgraft.corpus.document import Document
from langgraft.corpus.langid import Identifier
from langgraft.corpus.mixed import select
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
    mixed: str = "lines"
    langid_model: str = ""
    extra_rules: tuple[str, ...] = ()
    overlaps: Path | None = None


# What `Cleaner.counts` calls the characters read in each language.
MIX = "characters in "


class Dropped(NamedTuple):
    """A document left out, and why; `more` is written beside the reason.

    With "part" in `more`, the document is kept, and this is only the lines it lost.
    """

    document: Document
    reason: str
    more: dict[str, str]


@dataclass
class Cleaner:
    """`cleaner(document)` gives the clean document, or what was dropped; `counts` says how many it saw of what."""

    settings: Settings
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._identifier = Identifier(self.settings.code, self.settings.langid_model)
        self._overlaps = Overlaps(self.settings.overlaps, self.settings.code) if self.settings.overlaps else None

    def __call__(self, document: Document) -> Iterator[Document | Dropped]:
        text, reason = self._repaired(document.text)
        if reason:
            yield Dropped(document, reason, {})
            return
        self.counts["checked"] += 1
        selection = select(self._identifier, text, self.settings.mixed)
        self.counts.update({MIX + language: n for language, n in selection.mix.items()})
        if not selection.keep:
            yield Dropped(document, selection.reason, {})
            return
        self.counts["in_language"] += 1
        text, limit = selection.text, self.settings.max_characters
        if len(text) < self.settings.min_characters:
            yield Dropped(document, "too_short", {})
            return
        if limit is not None and len(text) > limit:
            text = truncate(text, limit)
            self.counts["truncated"] += 1
        if self._overlaps and (of := self._overlaps.find(text)):
            yield Dropped(document, "contaminated", {"overlaps": of})
            return
        for why, lines in selection.left_out.items():
            yield Dropped(replace(document, text="\n".join(lines)), why, {"part": "lines"})
        yield replace(document, text=text)

    def _repaired(self, text: str) -> tuple[str, str]:
        """The normalised text, and "" or why the document cannot be kept."""
        code, extra = self.settings.code, self.settings.extra_rules
        cleaned = normalise(text, code, extra)
        repaired = readable(cleaned)
        if repaired is None:
            return "", "unreadable"
        if repaired is not cleaned:
            repaired = normalise(repaired, code, extra)
        if not repaired:
            return "", "empty"
        return repaired, "too_short" if len(repaired) < self.settings.min_characters else ""
