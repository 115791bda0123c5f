"""Unicode repair and the rules of single languages."""

import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraft.corpus.normalise import _REPAIRABLE, _repairer, normalise, readable, truncate
from langgraft.corpus.normalise_rules import EXTRA, RULES, ascii_digits, hong_kong_forms
from langgraft.errors import InputError
from langgraft.text import languages

TRICKY = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(" \n\t\u200b\u200c\u200d\u3000，。（）()：︰—…·漢嘅好\ue123يكÃ©â€™\u0301\ufeffＡ１ﾊﾞ"),
        st.sampled_from("एकअाेै़््\u200d|ंขเำ่้ิูําກຳ່ໍາفەۀـه٣۴"),
    )
)
CODES = sorted({*RULES, "en", "sw"})
# Letters of every script, none of which any rule is about.
ELSEWHERE = st.text(st.sampled_from("abcÄéßЖщ가나ქაאבগো Ωπ.,!?()[]|:;-–“”'0123456789\u200dಕತ"))


@settings(max_examples=400, deadline=None)
@given(TRICKY, st.sampled_from(CODES))
def test_idempotent(text: str, code: str) -> None:
    once = normalise(text, code, tuple(EXTRA))
    assert normalise(once, code, tuple(EXTRA)) == once
    assert once == once.strip()


def test_text_that_skips_the_repair_is_what_the_repair_leaves_alone() -> None:
    """Every character of the first plane that skips it, between spaces and in runs that go through scripts."""
    plain = "".join(c for c in map(chr, [*range(0xD800), *range(0xE000, 0x10000)]) if not _REPAIRABLE.search(c))
    assert len(plain) > 40_000
    for text in (" ".join(plain[::3]), plain[::7], "".join(c * 2 for c in plain[:7000])):
        assert _repairer()(text) == text


@settings(max_examples=300, deadline=None)
@given(st.text(st.one_of(st.characters(max_codepoint=0x7E), st.characters(min_codepoint=0x590, max_codepoint=0xFFFF))))
def test_text_that_skips_the_repair_is_left_alone_in_any_order(text: str) -> None:
    assert _REPAIRABLE.search(text) or _repairer()(text) == text


@settings(max_examples=200, deadline=None)
@given(ELSEWHERE, st.sampled_from(CODES))
def test_other_scripts_are_left_alone(text: str, code: str) -> None:
    for rule in RULES.get(code, ()):
        assert rule(text) == text, rule.__name__


def letters(text: str) -> int:
    """Letters, where a joined vowel counts as its parts; tatweel is none."""
    for pair, one in (
        ("अा", "आ"),
        ("अो", "ओ"),
        ("अौ", "औ"),
        ("अॉ", "ऑ"),
        ("आे", "ओ"),
        ("आै", "औ"),
        ("एे", "ऐ"),
        ("เเ", "แ"),
    ):
        text = text.replace(pair, one)
    folded = unicodedata.normalize("NFKC", text).replace("ๅ", "า")
    return len(
        regex.findall(r"[\p{L}--[\u0640\u0e33\u0eb3\u0e32\u0eb2\u0e40\u0e41\u0ec0\u0ec1]]", folded, flags=regex.V1)
    )


@settings(max_examples=400, deadline=None)
@given(TRICKY, st.sampled_from(CODES))
def test_letters_are_not_lost(text: str, code: str) -> None:
    text = regex.sub(r"\p{Co}|\(|（", "", unicodedata.normalize("NFC", text))  # fonts' code points, empty brackets
    for rule in RULES.get(code, ()):
        assert letters(rule(text)) >= letters(text) - text.count("अ") - text.count("आ") - text.count("ए"), rule.__name__


def test_rules_name_languages() -> None:
    assert set(RULES) <= set(languages())
    assert {code for extra in EXTRA.values() for code in extra.languages} <= set(languages())


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("de", "schÃ¶n", "schön"),
        ("hi", "à¤¹à¤¿à¤¨à¥\x8dà¤¦à¥€", "हिन्दी"),
        ("en", "“ok” ‘x’ ﬁ &amp; ½ … ①", "“ok” ‘x’ ﬁ &amp; ½ … ①"),
        ("en", "cafe\u0301 \u200ba\x07b\ufeff  c\u00a0d ", "café ab c d"),
        ("en", "a \n b\r\n\n\n\nc", "a\nb\n\nc"),
        ("ja", "ＡＢＣ１２、 カタカナ ﾊﾝｶｸ ｶﾞ｡", "ABC12、カタカナ ハンカク ガ。"),
        ("ja", "（ＪＲ）！？％：", "（JR）！？％："),
        ("ja", "compute()関数と（）", "compute()関数と"),
        ("zh", "⽣活 map()函數 漢字()字", "生活 map()函數漢字字"),
        ("fa", "مي\u200cخواهم كتاب", "می\u200cخواهم کتاب"),
        ("fa", "می\u200c\u200cخواهم \u200c و", "می\u200cخواهم و"),
        ("fa", "بود\u200c. ثروت\u200c، API\u200cها «\u200cمن»", "بود. ثروت، API\u200cها «من»"),
        ("fa", "کار\u200cها خانه\u200cها", "کارها خانه\u200cها"),
        ("fa", "خانۀ سـلام ـ ۱۲ ١٢", "خانه\u0654 سلام ـ ۱۲ ١٢"),
        ("ur", "كتاب هے", "کتاب ہے"),
        ("ar", "كتابي جمـــيل", "كتابي جميل"),
        ("hi", "क्\u200dष र्\u200cय", "क्\u200dष र्\u200cय"),
        ("hi", "शि\u200dकार अाप बडा़ निपटेंंगे निर्दाेष है| क|ख", "शिकार आप बड़ा निपटेंगे निर्दोष है। क|ख"),
        ("hi", "\u0958\u0929", "क\u093cऩ"),
        ("mr", "| क | ख |", "| क | ख |"),
        ("yue", "我要宣稱 ， 藝術 同 創新 ︰ 好 — — 係 ?", "我要宣稱，藝術同創新︰好——係?"),
        ("yue", "就會有錢出黎嘅櫃員機 我哋而家去", "就會有錢出黎嘅櫃員機 我哋而家去"),
        ("yue", "我響 1970 年代 Rosetta Stone", "我響 1970 年代 Rosetta Stone"),
        ("yue", "噉樣\uece1嗎（英語：）呢（）", "噉樣𠺢嗎呢"),
        ("yue", "裡面嘅線", "裡面嘅線"),
        ("yue", "\uf8ff", "\uf8ff"),
        ("th", "น\u0e49ำ ไทย", "น\u0e49ำ ไทย"),
        ("th", "ท\uf70a ป\uf702 ฝ\uf71a", "ท่ ปี ฝฺ"),
        (
            "th",
            "น\u0e4d\u0e49\u0e32 น\u0e33\u0e49 น\u0e49\u0e4d\u0e32 ส\u0e4d\u0e32",
            "น\u0e49\u0e33 น\u0e49\u0e33 น\u0e49\u0e33 ส\u0e33",
        ),
        ("th", "เเล้ว ท\u0e48\u0e48 ว\u0e48\u0e34ง", "แล้ว ท\u0e48 ว\u0e34\u0e48ง"),
        ("lo", "ນ\u0ecd\u0ec9\u0eb2", "ນ\u0ec9\u0eb3"),
        ("sw", "f() ( x )", "f() ( x )"),
    ],
)
def test_examples(code: str, text: str, expected: str) -> None:
    assert normalise(text, code) == expected


def test_extra_rules() -> None:
    assert normalise("۱۲ ٣٤ ५ ๙", "fa", ["ascii_digits"]) == "12 34 5 9"
    assert normalise("裡面嘅線，睇著名嘅書", "yue", ["hong_kong_forms"]) == "裏面嘅綫，睇著名嘅書"
    assert normalise("裡面", "zh", ["hong_kong_forms"]) == "裡面"  # not for this language
    assert hong_kong_forms("坐著 著作 顯著") == "坐着 著作 顯著"
    assert ascii_digits("a1²٣") == "a1²3"
    with pytest.raises(InputError, match=r"unknown extra rule 'digits': choose from ascii_digits, hong_kong_forms"):
        normalise("", "fa", ["digits"])


def test_readable() -> None:
    assert readable("好" * 400 + "\ufffd") == "好" * 400
    assert readable("好\ue123") is None
    assert readable("") == ""


def test_truncate() -> None:
    assert truncate("short", 10) == "short"
    assert truncate("One two.\n\nThree four five six", 12) == "One two."
    assert truncate("一句話。第二句話。第三句", 10) == "一句話。第二句話。"
    assert truncate("word another third", 14) == "word another"
    assert truncate("x" * 20, 10) == "x" * 10
    assert truncate("य" * 8 + "ि" + "क", 8) == "य" * 7


@given(st.text(), st.integers(1, 30))
def test_truncate_keeps_a_beginning(text: str, limit: int) -> None:
    cut = truncate(text, limit)
    assert len(cut) <= limit
    assert text.startswith(cut)
