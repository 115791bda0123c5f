"""Unicode repair that every language gets, then the rules of its own (`normalise_rules`).

A language without rules gets the repair alone, which is safe for any.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Sequence

import regex

from langgraft.corpus.normalise_rules import EXTRA, RULES, Rule
from langgraft.errors import InputError
from langgraft.text import Language, language

# Control and format characters that carry no text. ZWNJ and ZWJ (U+200C, U+200D) are spelling in Persian,
# Hindi and others and stay; emoji tag characters stay too.
_JUNK = regex.compile(
    r"[\p{Cc}--[\n\t]]|[\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffc]|\p{Noncharacter_Code_Point}",
    flags=regex.V1,
)
_SPACES = regex.compile(r"[\t\p{Zs}]{2,}|[\t\p{Zs}--[ ]]", flags=regex.V1)
_JOINERS = regex.compile(r"(?<=[\s]|^)[\u200c\u200d]+|[\u200c\u200d]+(?=[\s]|$)")
_REPEATED_ZWNJ = regex.compile(r"\u200c{2,}")
_LINE_ENDS = regex.compile(r" *\n *")
_BLANK_LINES = regex.compile(r"\n{3,}")


# Text without any of these is left as it is by ftfy: nothing else is a control character, or what mojibake is made of.
# Quotation marks, dashes and dots are what it is made of too, but never by themselves (`ftfy.badness.BADNESS_RE`).
_REPAIRABLE = re.compile(
    "[^\n\t -~\u00a0\u00a1\u00a9\u00ab\u00ad\u00ae\u00b4\u00b7\u00bb\u00bf\u0590-\u1fff\u200c\u200d"
    "\u2010-\u2015\u2018-\u201a\u201c-\u201e\u2022\u2026\u2039\u203a\u2122\u3000-\ud7ff\uff01-\uffef\U00010000-\U0010ffff]"
)


@functools.cache
def _repairer() -> Rule:
    import ftfy

    # Encoding repair only: quotes, ligatures, full-width forms and HTML entities are the text's own business.
    config = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        normalization=None,
        explain=False,
    )
    return lambda text: ftfy.fix_text(text, config)


MAX_PASSES = 8


def _once(text: str, rules: tuple[Rule, ...]) -> str:
    if _REPAIRABLE.search(text):
        text = _repairer()(text)
    text = unicodedata.normalize("NFC", text)
    # Text that can be printed, as nearly all is, holds no junk, no joiners, and no spaces but U+0020.
    if not text.replace("\n", " ").isprintable():
        text = _JUNK.sub("", text)
        text = _SPACES.sub(" ", text)
        text = _REPEATED_ZWNJ.sub("\u200c", _JOINERS.sub("", text))
    elif "  " in text:
        text = _SPACES.sub(" ", text)
    for rule in rules:
        text = rule(text)
    if " \n" in text or "\n " in text:
        text = _LINE_ENDS.sub("\n", text)
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip()


def normalise(text: str, of: Language | str, extra: Sequence[str] = ()) -> str:
    """Repair encoding, NFC, drop invisible junk, collapse spaces, apply the language's `RULES`.

    Paragraphs (a blank line) and lines are kept. The result is a fixed point: normalising it again changes
    nothing. `extra` names rules of `EXTRA` to apply too, where they are for the language.

    Raises:
        InputError: the language or a rule is unknown.
    """
    code = sys.intern(of.code if isinstance(of, Language) else language(of).code)
    rules = _rules(code, tuple(extra))
    # One repair can lay bare the next (mojibake twice over), so it runs until nothing changes.
    for _ in range(MAX_PASSES):
        before, text = text, _once(text, rules)
        if text == before:
            break
    return text


@functools.lru_cache(maxsize=256)
def _rules(code: str, extra: tuple[str, ...]) -> tuple[Rule, ...]:
    for name in extra:
        if name not in EXTRA:
            raise InputError(f"unknown extra rule {name!r}: choose from {', '.join(EXTRA)}")
    wanted = (EXTRA[name] for name in extra)
    return RULES.get(code, ()) + tuple(one.rule for one in wanted if code in one.languages or not one.languages)


_UNREADABLE = regex.compile(r"[\ufffd\p{Co}]")
_MAX_UNREADABLE = 1 / 200


def readable(text: str) -> str | None:
    """`text` without replacement and private-use characters, or None if they are too many to leave out.

    Such characters are words that no font and no reader can recover; more than one in 200 spoils the text.
    """
    if "\ufffd" not in text and text.replace("\n", " ").isprintable():  # and private use cannot be printed
        return text
    found = len(_UNREADABLE.findall(text))
    if found > _MAX_UNREADABLE * len(text):
        return None
    return _UNREADABLE.sub("", text) if found else text


_BOUNDARIES = (
    regex.compile(r"\n\n"),
    regex.compile(r"\n|(?<=[.!?؟])\s|(?<=[。！？।॥။។])"),
    regex.compile(r"\s"),
)


def truncate(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, cut after a paragraph, sentence or word, else between graphemes.

    A boundary in the first half of what is allowed is not used: it would throw too much away.
    """
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    for boundary in _BOUNDARIES:
        last = max((match.start() for match in boundary.finditer(head)), default=0)
        if last > limit // 2:
            return head[:last].rstrip()
    graphemes = regex.findall(r"\X", head)
    return "".join(graphemes[:-1])
