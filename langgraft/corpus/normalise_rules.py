"""The rules of single languages: functions `text -> text`, and the tables that say which language gets which.

A new rule is one function and one entry in `RULES`. Rules repair spelling that no reader sees (two code points for
one letter, marks in the wrong order, joiners that join nothing); they leave other scripts alone, lose no letters,
and are idempotent. What changes how text looks is in `EXTRA`, for those who ask for it.
"""

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import regex

Rule = Callable[[str], str]

# Chinese and Japanese

_FULL_WIDTH = r"[、。〈-】〔-〟︰-﹫！（），．：；？［］｛｝～]"
_AROUND_FULL_WIDTH = regex.compile(rf" +(?={_FULL_WIDTH})|(?<={_FULL_WIDTH}) +")
# A space between long runs of Han stands for a comma or a full stop, as in subtitles.
_BETWEEN_HAN = regex.compile(r"(?<=\p{Han}) +(?=\p{Han})(?!(?<=\p{Han}{5} +)\p{Han}{4})")
_BEFORE_ASCII = regex.compile(r"(?<=\p{Han}) +(?=[,.?!:;](?:\s|\p{Han}|$))")
_AROUND_DASHES = regex.compile(r"(?<=[\p{Han}—…·]) +(?=[—…·])|(?<=[—…·]) +(?=[\p{Han}—…·])")
_EMPTY_BRACKETS = regex.compile(r"（(?:[^（）]{1,4}[：:])?[\s，、；]*）|(?<![A-Za-z0-9_])\(\)(?=\p{Han})")
_WIDE_LATIN = {0xFF00 + i: 0x20 + i for i in range(1, 0x5F) if chr(0x20 + i).isalnum()}
_WIDE = re.compile(r"[\uff01-\uff5e]")
_COMPATIBLE = re.compile(r"[\uff61-\uff9f\u2f00-\u2fd5]+")


def full_width_spacing(text: str) -> str:
    """No spaces around full-width punctuation."""
    return _AROUND_FULL_WIDTH.sub("", text) if " " in text else text


def han_spacing(text: str) -> str:
    """No spaces between Han words, dashes and dots, nor before ASCII punctuation; between clauses they stay."""
    if " " not in text:
        return text
    return _AROUND_DASHES.sub("", _BEFORE_ASCII.sub("", _BETWEEN_HAN.sub("", text)))


def empty_brackets(text: str) -> str:
    """No full-width brackets with nothing in them, or only a label: "（英語：）" is what a template left."""
    return _EMPTY_BRACKETS.sub("", text) if "（" in text or "()" in text else text


def widths(text: str) -> str:
    """Full-width Latin letters and digits become ASCII, half-width kana full-width, radicals the characters they are.

    Full-width punctuation is how these languages punctuate, and stays.
    """
    if _WIDE.search(text):
        text = text.translate(_WIDE_LATIN)
    return _COMPATIBLE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)


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


_PRIVATE_USE = re.compile(r"[\ue000-\uf848]")


def hkscs(text: str) -> str:
    """Private-use code points of Hong Kong's old fonts become the Unicode characters they stand for."""
    return _PRIVATE_USE.sub(lambda match: _hkscs(match[0]), text)


# 著 stays where it is the word "to write, notable".
_HONG_KONG = str.maketrans("裡衛線床爲羣峯鷄汚", "裏衞綫牀為群峰雞污")
_WRITE = regex.compile("(?<![名原編遺論專譯巨所合顯昭卓土拙撰新舊執])著(?![名作書者述錄譯稱])")


def hong_kong_forms(text: str) -> str:
    """Taiwan's and older forms of characters become those of Hong Kong's list of graphemes (裡 裏, 著 着, 衛 衞)."""
    return _WRITE.sub("着", text.translate(_HONG_KONG))


# Arabic script

_URDU = str.maketrans({"ي": "ی", "ك": "ک", "ه": "ہ", "ة": "ۃ"})
# Joiners between two letters shape words ("API‌ها" too); elsewhere they do nothing. After a letter that never joins
# to the next (alef, dal, re, waw), they do nothing either.
_LOOSE_ZWNJ = regex.compile(
    r"\u200c+(?![\p{L}\p{M}\p{N}])|(?<![\p{L}\p{M}\p{N}])\u200c+|(?<=[آأإاؤدذرزژو])\u200c+|(?<=\p{Arabic})\u200d+(?=\p{Arabic})"
)
_TATWEEL = regex.compile(r"(?<=[\p{Arabic}\p{Inherited}])\u0640+(?=[\p{Arabic}\p{Inherited}])")


def ye_kaf(text: str) -> str:
    """Arabic yeh and kaf, typed on Arabic keyboards, become the Persian letters; so does heh with yeh above."""
    return text.replace("ي", "ی").replace("ى", "ی").replace("ك", "ک").replace("\u06c0", "\u0647\u0654")


def urdu_letters(text: str) -> str:
    """Arabic yeh, kaf, heh and teh marbuta become the letters of Urdu."""
    return text.translate(_URDU)


def loose_zwnj(text: str) -> str:
    """No zero-width non-joiners where they do nothing: at the edge of a word, after letters that never join."""
    return _LOOSE_ZWNJ.sub("", text) if "\u200c" in text or "\u200d" in text else text


def tatweel(text: str) -> str:
    """No tatweel (kashida) inside words: it only stretches the line."""
    return _TATWEEL.sub("", text) if "\u0640" in text else text


# Devanagari

_DEVANAGARI_VOWELS = {"अा": "आ", "अॉ": "ऑ", "अो": "ओ", "अौ": "औ", "आै": "औ", "आे": "ओ", "एे": "ऐ", "ाे": "ो", "ाै": "ौ"}
_VOWELS = re.compile("|".join(_DEVANAGARI_VOWELS))
_NUKTA_LAST = re.compile(r"([\u0901\u0902\u093e-\u094c]+)\u093c")
_TWICE = re.compile(r"([\u0901\u0902\u093c\u093e-\u094d])\1+")
_LOOSE_JOINER = re.compile(r"(?<=[\u0900-\u094c\u0950-\u097f])[\u200c\u200d]+")
_PIPE = regex.compile(r"(?<=[\u0900-\u097f])\|(?=\s|$)")


def devanagari(text: str) -> str:
    """Nukta before the vowel sign, vowels in one piece (अा आ), no sign twice; joiners only after a virama; | as danda.

    A joiner after a virama chooses between क्‍ष and क्ष and stays.
    """
    if "\u200c" in text or "\u200d" in text:
        text = _LOOSE_JOINER.sub("", text)
    if "\u093c" in text:
        text = _NUKTA_LAST.sub("\u093c\\1", text)
    text = _TWICE.sub(r"\1", _VOWELS.sub(lambda match: _DEVANAGARI_VOWELS[match[0]], text))
    return _PIPE.sub("।", text) if "|" in text else text


# Thai and Lao

# Code points at which Windows and Mac fonts kept raised and lowered forms of Thai vowels and tone marks.
_THAI_FORMS = str.maketrans(
    {0xF700 + i: char for i, char in enumerate("ฐ\u0e34\u0e35\u0e36\u0e37" + "\u0e48\u0e49\u0e4a\u0e4b\u0e4c" * 2)}
    | {0xF70F + i: char for i, char in enumerate("ญ\u0e31\u0e4d\u0e47\u0e48\u0e49\u0e4a\u0e4b\u0e4c\u0e38\u0e39\u0e3a")}
)


def thai_forms(text: str) -> str:
    """Private-use forms of Thai vowels and tone marks become the characters themselves."""
    return text.translate(_THAI_FORMS) if _PRIVATE_USE.search(text) else text


@functools.cache
def _thai_disorder(offset: int) -> re.Pattern[str]:
    """Where any of `_thai_marks` begins or ends: most text is in order, and is looked through once."""

    def chars(*spans: tuple[int, int]) -> str:
        return "".join(f"{chr(first + offset)}-{chr(last + offset)}" for first, last in spans)

    tone, mark = chars((0xE48, 0xE4B)), chars((0xE31, 0xE31), (0xE34, 0xE3A), (0xE47, 0xE4E))
    nikhahit, aa, am, e = (chr(point + offset) for point in (0xE4D, 0xE32, 0xE33, 0xE40))
    vowel = chars((0xE31, 0xE31), (0xE34, 0xE39))
    return re.compile(
        f"([{mark}{am}{e}])(?:(?<=[{mark}{e}])\\1|(?<=[{tone}])[{vowel}{nikhahit}]|(?<={nikhahit})[{aa}{tone}]|(?<={am})[{tone}])"
    )


@functools.cache
def _thai_marks(offset: int) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns of `thai_order` and `lao_order`; Lao's block has the same order as Thai's, 128 code points later."""

    def char(point: int) -> str:
        return chr(point + offset)

    tone = f"[{char(0xE48)}-{char(0xE4B)}]"
    vowel = f"[{char(0xE31)}{char(0xE34)}-{char(0xE39)}]"
    mark = f"[{char(0xE31)}{char(0xE34)}-{char(0xE3A)}{char(0xE47)}-{char(0xE4E)}]"
    nikhahit, aa, am = char(0xE4D), char(0xE32), char(0xE33)
    return (
        (re.compile(f"({mark})\\1+"), r"\1"),
        (re.compile(f"{nikhahit}({tone}?){aa}|({tone}){nikhahit}{aa}"), rf"\1\2{am}"),
        (re.compile(f"{am}({tone})"), rf"\1{am}"),
        (re.compile(f"({tone})({vowel})"), r"\2\1"),
        (re.compile(char(0xE40) * 2), char(0xE41)),
    )


def thai_order(text: str, offset: int = 0) -> str:
    """Sara am in one piece after its tone mark, tone marks after vowels, no mark twice, sara ae in one piece (เเ แ)."""
    if not _thai_disorder(offset).search(text):
        return text
    for pattern, by in _thai_marks(offset):
        text = pattern.sub(by, text)
    return text


def lao_order(text: str) -> str:
    """The same for Lao."""
    return thai_order(text, 0x80)


# Any script


@functools.cache
def _digit(char: str) -> str:
    return str(unicodedata.decimal(char))


_DIGITS = regex.compile(r"\p{Nd}(?<![0-9])")


def ascii_digits(text: str) -> str:
    """Decimal digits of every script become 0 to 9."""
    return _DIGITS.sub(lambda match: _digit(match[0]), text)


_CHINESE: tuple[Rule, ...] = (hkscs, widths, full_width_spacing, han_spacing, empty_brackets)
_HINDI: tuple[Rule, ...] = (devanagari,)

# Language -> rules, applied in order after the general repair.
RULES: dict[str, tuple[Rule, ...]] = {
    "ar": (tatweel,),
    "bho": _HINDI,
    "fa": (ye_kaf, tatweel, loose_zwnj),
    "hi": _HINDI,
    "ja": (widths, full_width_spacing, empty_brackets),
    "lo": (lao_order,),
    "mai": _HINDI,
    "mr": _HINDI,
    "ne": _HINDI,
    "sa": _HINDI,
    "th": (thai_forms, thai_order),
    "ur": (urdu_letters, tatweel, loose_zwnj),
    "wuu": (widths, full_width_spacing, han_spacing, empty_brackets),
    "yue": _CHINESE,
    "zh": _CHINESE,
}


class Extra(NamedTuple):
    """A rule that is applied on request, to some languages (none named: to all)."""

    rule: Rule
    languages: tuple[str, ...] = ()


# Rules that change how text looks, by the name that asks for them.
EXTRA: dict[str, Extra] = {
    "ascii_digits": Extra(ascii_digits),
    "hong_kong_forms": Extra(hong_kong_forms, ("yue",)),
}
