"""Unicode repair that every language gets, and the few rules that single languages need.

A new rule is one function and one entry in `RULES`; a language without an entry works.
"""

import functools
import sys
import unicodedata
from collections.abc import Callable

import regex

from langgraft.text import Language, language

Rule = Callable[[str], str]

# Control and format characters that carry no text. ZWNJ and ZWJ (U+200C, U+200D) are spelling in Persian,
# Hindi and others and stay; emoji tag characters stay too.
_JUNK = regex.compile(
    r"[\p{Cc}--[\n\t]]|[\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffc]|\p{Noncharacter_Code_Point}",
    flags=regex.V1,
)
_SPACES = regex.compile(r"[\t\p{Zs}]+")
_JOINERS = regex.compile(r"(?<=[\s]|^)[\u200c\u200d]+|[\u200c\u200d]+(?=[\s]|$)")
_REPEATED_ZWNJ = regex.compile(r"\u200c{2,}")
_LINE_ENDS = regex.compile(r" *\n *")
_BLANK_LINES = regex.compile(r"\n{3,}")


# Text without any of these is left as it is by ftfy: nothing here is what mojibake is made of, nor a control character.
_REPAIRABLE = regex.compile(r"[^\n\t -~\u0590-\u1fff\u200c\u200d\u3000-\ud7ff\uff01-\uffef\U00010000-\U0010ffff]")


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


_FULL_WIDTH = r"[、。〈-】〔-〟︰-﹫！（），．：；？［］｛｝～]"
_AROUND_FULL_WIDTH = regex.compile(rf" +(?={_FULL_WIDTH})|(?<={_FULL_WIDTH}) +")
_BETWEEN_HAN = regex.compile(r"(?<=\p{Han}) +(?=\p{Han})")
_BEFORE_ASCII = regex.compile(r"(?<=\p{Han}) +(?=[,.?!:;](?:\s|\p{Han}|$))")
_AROUND_DASHES = regex.compile(r"(?<=[\p{Han}—…·]) +(?=[—…·])|(?<=[—…·]) +(?=[\p{Han}—…·])")
_EMPTY_BRACKETS = regex.compile(r"（(?:[^（）]{1,4}[：:])?[\s，、；]*）|\(\)(?=\p{Han})")
_PRIVATE_USE = regex.compile(r"[\ue000-\uf848]")


def full_width_spacing(text: str) -> str:
    """No spaces around full-width punctuation."""
    return _AROUND_FULL_WIDTH.sub("", text)


def han_spacing(text: str) -> str:
    """No spaces between Han characters, dashes and dots, nor before ASCII punctuation after one."""
    return _AROUND_DASHES.sub("", _BEFORE_ASCII.sub("", _BETWEEN_HAN.sub("", text)))


def empty_brackets(text: str) -> str:
    """No full-width brackets with nothing in them, or only a label: "（英語：）" is what a template left."""
    return _EMPTY_BRACKETS.sub("", text)


@functools.cache
def _hkscs(char: str) -> str:
    """The character of Hong Kong's supplementary set that old fonts kept at this private-use code point."""
    point = ord(char)
    # Microsoft's mapping of Big5's user-defined areas: 157 characters a row.
    for first, last, lead in ((0xE000, 0xE310, 0xFA), (0xE311, 0xEEB7, 0x8E), (0xEEB8, 0xF6B0, 0x81)):
        if first <= point <= last:
            row, column = divmod(point - first, 157)
            trail = 0x40 + column if column < 63 else 0xA1 + column - 63
            try:
                return bytes((lead + row, trail)).decode("big5hkscs")
            except UnicodeDecodeError:
                return char
    return char


def hkscs(text: str) -> str:
    """Private-use code points of Hong Kong's old fonts become the Unicode characters they stand for."""
    return _PRIVATE_USE.sub(lambda match: _hkscs(match[0]), text) if _PRIVATE_USE.search(text) else text


_YE_KAF = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک"})


def ye_kaf(text: str) -> str:
    """Arabic yeh and kaf, typed on Arabic keyboards, become the Persian letters."""
    return text.translate(_YE_KAF)


# Code points at which Windows and Mac fonts kept raised and lowered forms of Thai vowels and tone marks.
_THAI_FORMS = str.maketrans(
    {0xF700 + i: char for i, char in enumerate("ฐ\u0e34\u0e35\u0e36\u0e37" + "\u0e48\u0e49\u0e4a\u0e4b\u0e4c" * 2)}
    | {0xF70F + i: char for i, char in enumerate("ญ\u0e31\u0e4d\u0e47\u0e48\u0e49\u0e4a\u0e4b\u0e4c\u0e38\u0e39\u0e3a")}
)


def thai_forms(text: str) -> str:
    """Private-use forms of Thai vowels and tone marks become the characters themselves."""
    return text.translate(_THAI_FORMS)


# Language -> rules, applied in order after the general repair.
RULES: dict[str, tuple[Rule, ...]] = {
    "fa": (ye_kaf,),
    "ja": (full_width_spacing, empty_brackets),
    "th": (thai_forms,),
    "wuu": (full_width_spacing, han_spacing, empty_brackets),
    "yue": (hkscs, full_width_spacing, han_spacing, empty_brackets),
    "zh": (hkscs, full_width_spacing, han_spacing, empty_brackets),
}


MAX_PASSES = 8


def _once(text: str, rules: tuple[Rule, ...]) -> str:
    if _REPAIRABLE.search(text):
        text = _repairer()(text)
    text = unicodedata.normalize("NFC", text)
    text = _JUNK.sub("", text)
    text = _SPACES.sub(" ", text)
    text = _REPEATED_ZWNJ.sub("\u200c", _JOINERS.sub("", text))
    for rule in rules:
        text = rule(text)
    return _BLANK_LINES.sub("\n\n", _LINE_ENDS.sub("\n", text)).strip()


def normalise(text: str, of: Language | str) -> str:
    """Repair encoding, NFC, drop invisible junk, collapse spaces, apply the language's `RULES`.

    Paragraphs (a blank line) and lines are kept. The result is a fixed point: normalising it again changes
    nothing.
    """
    code = sys.intern(of.code if isinstance(of, Language) else language(of).code)
    rules = RULES.get(code, ())
    # One repair can lay bare the next (mojibake twice over), so it runs until nothing changes.
    for _ in range(MAX_PASSES):
        before, text = text, _once(text, rules)
        if text == before:
            break
    return text


_UNREADABLE = regex.compile(r"[\ufffd\p{Co}]")
_MAX_UNREADABLE = 1 / 200


def readable(text: str) -> str | None:
    """`text` without replacement and private-use characters, or None if they are too many to leave out.

    Such characters are words that no font and no reader can recover; more than one in 200 spoils the text.
    """
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
