"""Documents in more than one language: keep the lines that are in the language, leave out those that are not.

A half-translated manual, a page with English menus, a forum thread in two languages: dropping the document loses
good text, and keeping it teaches the wrong language. A line is left out only if it is clearly in another language;
code, names, numbers and lines too short to tell follow the lines around them.
"""

from collections import Counter
from dataclasses import dataclass, field

import regex

from langgraft.corpus.langid import (
    MIN_CONFIDENCE,
    MIN_LETTERS,
    MIN_SHARE_AMONG_NAMES,
    RELATIVE_LETTERS,
    Identifier,
    Verdict,
    prose,
    weight,
)

MODES = ("lines", "document", "keep")
# A document of which less than this (in characters of the lines that can be told) is in the language is dropped.
MIN_DOCUMENT_SHARE = 0.1
# Text with more of these per character, or an identifier with dots and brackets, is code and not English.
MAX_CODE_SHARE = 0.06
# A line that cannot be told for certain counts for the language it looks like, from this score on, in the mix.
MIN_MIX_SCORE = 0.5
UNKNOWN = "und"

_CODE = regex.compile(r"[{}<>=;_\\|$#@*`\[\]]|//|::|\(\)|--")
_GAPS = regex.compile(r"\n{3,}")
_CLOSE = frozenset(("written_chinese", "cantonese"))
_EMPTY = Verdict(True, "short")


@dataclass
class Selection:
    """What is kept of a document: `text` (empty if `keep` is False, for `reason`).

    `left_out` holds the lines that are not in the language, by reason; `mix` counts characters by language over
    all that was read, "und" for what cannot be told.
    """

    keep: bool
    reason: str
    text: str
    left_out: dict[str, list[str]] = field(default_factory=dict)
    mix: dict[str, int] = field(default_factory=dict)


@dataclass
class _Line:
    text: str
    language: str
    state: str  # "own", "foreign", or "open" for what cannot be told
    reason: str = ""


def select(identifier: Identifier, text: str, mode: str = "lines") -> Selection:
    """The part of `text` that is in the identifier's language.

    `mode`: "lines" leaves out single lines that are clearly in another language, "document" judges the document as
    a whole, "keep" keeps every document and only counts languages.
    """
    if "\n" not in text and identifier.certain(text):
        return Selection(True, "ok", text, mix={identifier.language.code: len(text)})
    parts = text.split("\n")
    verdicts = [identifier.check(line) if line else _EMPTY for line in parts]
    lines = [_judge(identifier, *pair) for pair in zip(parts, verdicts, strict=True)]
    mix = _mix(lines)
    if mode == "keep":
        return Selection(True, "ok", text, mix=mix)
    if mode == "document" or len(lines) == 1:
        verdict = verdicts[0] if len(lines) == 1 else identifier.check(text)
        return Selection(verdict.keep, verdict.reason, text if verdict.keep else "", mix=mix)
    return _by_line(identifier, text, lines, mix)


def _by_line(identifier: Identifier, text: str, lines: list[_Line], mix: dict[str, int]) -> Selection:
    sizes: Counter[str] = Counter()
    for line in lines:
        sizes[line.state] += len(line.text)
    if sizes["foreign"] and sizes["own"] < MIN_DOCUMENT_SHARE * (sizes["own"] + sizes["foreign"]):
        return Selection(False, _main_reason(lines), "", mix=mix)
    kept = text
    left_out: dict[str, list[str]] = {}
    if sizes["foreign"]:
        stays = _settle(lines)
        kept = _GAPS.sub("\n\n", "\n".join(line.text for line, stay in zip(lines, stays, strict=True) if stay)).strip()
        for line, stay in zip(lines, stays, strict=True):
            if not stay and line.text:
                left_out.setdefault(line.reason, []).append(line.text)
    # Many short lines, none of which says enough, can together be clearly another language.
    verdict = identifier.check(kept)
    if not verdict.keep:
        return Selection(False, verdict.reason, "", mix=mix)
    return Selection(True, verdict.reason, kept, left_out, mix)


def _judge(identifier: Identifier, line: str, verdict: Verdict) -> _Line:
    if not line:
        return _Line(line, "", "open")
    if verdict.keep:
        sure = verdict.reason in ("ok", "short")
        return _Line(line, identifier.language.code, "own" if sure else "open")
    shares = identifier.shares(prose(line))
    own = identifier.own_share(shares)
    if not shares:
        return _Line(line, UNKNOWN, "open", "script")
    foreign = own < MIN_SHARE_AMONG_NAMES
    named = verdict.language == identifier.language.code  # the foreign letters are names or commands
    if named or (not foreign and verdict.reason in ("script", "romanised")):
        return _Line(line, identifier.language.code, "open")
    sure = weight(line) >= (RELATIVE_LETTERS if verdict.reason in _CLOSE else MIN_LETTERS)
    sure = sure and not (foreign and _unclear(line, verdict))
    guess = verdict.language if sure or verdict.score >= MIN_MIX_SCORE else ""
    return _Line(line, guess or UNKNOWN, "foreign" if sure else "open", verdict.reason)


def _unclear(line: str, verdict: Verdict) -> bool:
    """Whether a line in another script may be code or names instead of prose."""
    return verdict.score < MIN_CONFIDENCE or len(_CODE.findall(line)) > MAX_CODE_SHARE * len(line)


def _settle(lines: list[_Line]) -> list[bool]:
    """Which lines stay: open lines of another script stay unless the nearest line that can be told goes."""
    after, following = "own", []
    for line in reversed(lines):
        after = line.state if line.state != "open" else after
        following.append(after)
    before, stays = "own", []
    for line, after in zip(lines, reversed(following), strict=True):
        before = line.state if line.state != "open" else before
        foreign_neighbour = bool(line.reason) and "foreign" in (before, after)
        stays.append(line.state == "own" or (line.state == "open" and not foreign_neighbour))
    return stays


def _main_reason(lines: list[_Line]) -> str:
    sizes: Counter[str] = Counter()
    for line in lines:
        if line.state == "foreign":
            sizes[line.reason] += len(line.text)
    return sizes.most_common(1)[0][0]


def _mix(lines: list[_Line]) -> dict[str, int]:
    mix: dict[str, int] = {}
    for line in lines:
        if line.text:
            mix[line.language] = mix.get(line.language, 0) + len(line.text)
    return mix
