"""One document at a time: normalise it, and keep it or say why not. Pure, so that it can run in any process."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from langgraft.corpus.decontaminate import Overlaps
from langgraft.corpus.document import Document
from langgraft.corpus.filters import Thresholds, shared_lines, without_lines
from langgraft.corpus.langid import Identifier
from langgraft.corpus.mixed import select
from langgraft.corpus.normalise import normalise, readable, truncate
from langgraft.corpus.pii import mask
from langgraft.store import read_json, write_json


@dataclass(frozen=True)
class Settings:
    """How the documents of one language are cleaned; small, as every process gets it.

    `overlaps` is the folder of the n-grams that no document may hold, made by `decontaminate.index`; `shared` the
    file of the lines that `boilerplate` or more documents share, made by `write_shared`.
    """

    code: str
    min_characters: int = 1
    max_characters: int | None = None
    near_duplicates: bool = True
    mixed: str = "lines"
    langid_model: str = ""
    extra_rules: tuple[str, ...] = ()
    overlaps: Path | None = None
    thresholds: Thresholds | None = None
    mask: tuple[str, ...] = ()
    boilerplate: int = 0
    shared: Path | None = None

    def identity(self) -> dict[str, Any]:
        """As JSON values, for a fingerprint."""
        thresholds = self.thresholds.as_dict() if self.thresholds else None
        return {**asdict(replace(self, thresholds=None)), "thresholds": thresholds}


def write_shared(path: Path, documents: Iterable[Document], least: int) -> None:
    """Write the lines that documents share (see `filters.shared_lines`) for `Settings.shared`."""
    found = shared_lines(documents, least)
    write_json(path, {source: sorted(keys) for source, keys in found.items()})


# What `Cleaner.counts` calls the characters read in each language.
MIX = "characters in "
# And the personal data masked of each kind.
MASKED = "masked "


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
        shared = read_json(self.settings.shared) if self.settings.shared else {}
        self._shared = {source: frozenset(keys) for source, keys in shared.items()}

    def __call__(self, document: Document) -> Iterator[Document | Dropped]:
        for result in self._clean(document):
            if isinstance(result, Dropped) and self.settings.mask:
                text, _ = mask(result.document.text, self.settings.code, self.settings.mask)
                yield result._replace(document=replace(result.document, text=text))
            else:
                yield result

    def _clean(self, document: Document) -> Iterator[Document | Dropped]:
        stripped, shared = without_lines(document, self._shared)
        text, reason = self._repaired(stripped)
        if reason:
            yield Dropped(document, "boilerplate" if shared and reason == "empty" else reason, {})
            return
        self.counts["checked"] += 1
        selection = select(self._identifier, text, self.settings.mixed)
        for language, n in selection.mix.items():
            self.counts[MIX + language] += n
        if not selection.keep:
            yield Dropped(document, selection.reason, {})
            return
        self.counts["in_language"] += 1
        reason, more = self._judged(selection.text)
        if reason:
            yield Dropped(document, reason, more)
            return
        text = self._finished(selection.text)
        if self._overlaps and (of := self._overlaps.find(text)):
            yield Dropped(document, "contaminated", {"overlaps": of})
            return
        lines = {"boilerplate": shared} if shared else {}
        for why, left_out in [*lines.items(), *selection.left_out.items()]:
            yield Dropped(replace(document, text="\n".join(left_out)), why, {"part": "lines"})
        yield document if text == document.text else replace(document, text=text)

    def _judged(self, text: str) -> tuple[str, dict[str, str]]:
        """Why a text in the language is not good enough, or "", and what was measured."""
        if len(text) < self.settings.min_characters:
            return "too_short", {}
        found = self.settings.thresholds.judge(text) if self.settings.thresholds else None
        return (found[0], {"measured": f"{found[1]:.3g}"}) if found else ("", {})

    def _finished(self, text: str) -> str:
        """The text as it is kept: personal data masked, and no longer than it may be."""
        if self.settings.mask:
            text, masked = mask(text, self.settings.code, self.settings.mask)
            for kind, n in masked.items():
                self.counts[MASKED + kind] += n
        limit = self.settings.max_characters
        if limit is None or len(text) <= limit:
            return text
        self.counts["truncated"] += 1
        return truncate(text, limit)

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
