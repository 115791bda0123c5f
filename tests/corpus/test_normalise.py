"""Unicode repair and the rules of single languages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraft.corpus.normalise import _REPAIRABLE, RULES, _repairer, normalise, readable, truncate
from langgraft.text import languages

TRICKY = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(" \n\t\u200b\u200c\u200d\u3000，。（）()：︰—…·漢嘅\ue123يكÃ©â€™\u0301\ufeff"),
    )
)


@settings(max_examples=300, deadline=None)
@given(TRICKY, st.sampled_from(["en", "fa", "ja", "yue", "th"]))
def test_idempotent(text: str, code: str) -> None:
    once = normalise(text, code)
    assert normalise(once, code) == once
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


def test_rules_name_languages() -> None:
    assert set(RULES) <= set(languages())


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("de", "schÃ¶n", "schön"),
        ("hi", "à¤¹à¤¿à¤¨à¥\x8dà¤¦à¥€", "हिन्दी"),
        ("en", "“ok” ‘x’ ﬁ &amp; ½ … ①", "“ok” ‘x’ ﬁ &amp; ½ … ①"),
        ("en", "cafe\u0301 \u200ba\x07b\ufeff  c\u00a0d ", "café ab c d"),
        ("en", "a \n b\r\n\n\n\nc", "a\nb\n\nc"),
        ("ja", "ＡＢＣ１２、 カタカナ ﾊﾝｶｸ", "ＡＢＣ１２、カタカナ ﾊﾝｶｸ"),
        ("fa", "مي\u200cخواهم كتاب", "می\u200cخواهم کتاب"),
        ("fa", "می\u200c\u200cخواهم \u200c و", "می\u200cخواهم و"),
        ("ar", "كتابي", "كتابي"),
        ("hi", "क्\u200dष र्\u200cय", "क्\u200dष र्\u200cय"),
        ("yue", "我要宣稱 ， 藝術 同 創新 ︰ 好 — — 係 ?", "我要宣稱，藝術同創新︰好——係?"),
        ("yue", "我響 1970 年代 Rosetta Stone", "我響 1970 年代 Rosetta Stone"),
        ("yue", "噉樣\uece1嗎（英語：）呢（）", "噉樣𠺢嗎呢"),
        ("yue", "\uf8ff", "\uf8ff"),
        ("th", "น\u0e49ำ ไทย", "น\u0e49ำ ไทย"),
        ("th", "ท\uf70a ป\uf702 ฝ\uf71a", "ท่ ปี ฝฺ"),
        ("sw", "f() ( x )", "f() ( x )"),
    ],
)
def test_examples(code: str, text: str, expected: str) -> None:
    assert normalise(text, code) == expected


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
