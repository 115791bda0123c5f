"""Languages, scripts and counting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft import text
from langgraft.errors import InputError


def test_every_row_is_sound() -> None:
    known = text.languages()
    assert len(known) >= 120
    assert list(known) == sorted(known)
    for entry in known.values():
        assert entry.scripts
        assert set(entry.scripts) <= set(text.SCRIPTS)
        # The language's own name is written in one of its scripts.
        letters = "".join(c for c in entry.native_name if text.script_of(c) not in ("Common", "Inherited"))
        assert text.in_scripts(letters, entry.scripts), entry


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("hin", "hi"),
        ("zho", "zh"),
        ("cmn", "zh"),
        ("PT-br", "pt"),
        ("zh_Hant", "zh"),
        ("yue", "yue"),
        ("fil", "tl"),
    ],
)
def test_other_codes(code: str, expected: str) -> None:
    assert text.language(code).code == expected


def test_facts() -> None:
    assert text.language("ja").scripts == ("Han", "Hiragana", "Katakana")
    assert [text.language(c).spaces for c in ("th", "yue", "hi", "ko")] == [False, False, True, True]
    assert [text.language(c).marks for c in ("hi", "th", "ar", "ta", "km")] == [True] * 5
    assert [text.language(c).marks for c in ("yue", "en", "ru", "ja", "vi")] == [False] * 5


@pytest.mark.parametrize(
    ("code", "hint"),
    [("Hindi", "hi (Hindi)"), ("cantonse", "yue (Cantonese)"), ("hij", "did you mean"), ("??", "ISO")],
)
def test_unknown_language(code: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        text.language(code)
    assert hint in str(error.value)


def test_scripts() -> None:
    assert [text.script_of(c) for c in "aक漢ーけ１\u0301"] == [
        *("Latin", "Devanagari", "Han", "Common", "Hiragana", "Common", "Inherited")
    ]
    assert text.script_of("\U00012000") == "Unknown"
    assert text.script_shares("漢字ab") == {"Han": 0.5, "Latin": 0.5}
    assert text.script_shares("12 3!") == {}


def test_in_scripts() -> None:
    assert text.in_scripts("スーパー", ("Katakana",))
    assert text.in_scripts("हिन्दी।", ("Devanagari",))
    assert text.in_scripts("می\u200cخواهم", ("Arabic",))
    assert not text.in_scripts("漢a", ("Han",))
    assert not text.in_scripts("漢 字", ("Han",))
    assert not text.in_scripts("\ufe0f", ("Han",))
    assert not text.in_scripts("", ("Han",))
    with pytest.raises(InputError, match="did you mean Han"):
        text.in_scripts("漢", ("Hann",))


def test_counts() -> None:
    assert text.words("दो शब्द", "hi") == 2
    assert text.words("two words", text.language("en")) == 2
    assert text.words("兩個字", "yue") is None
    assert text.graphemes("नमस्ते") == 3
    assert text.graphemes("e\u0301") == 1
    assert text.utf8_bytes("嘅") == 3


@given(st.text())
def test_shares_sum_to_one(sample: str) -> None:
    shares = text.script_shares(sample)
    assert not shares or abs(sum(shares.values()) - 1) < 1e-9
    assert text.utf8_bytes(sample) >= len(sample)
    assert text.graphemes(sample) <= len(sample)
