"""Languages, scripts and counting."""

import pytest
import regex
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


TEXTS = st.text(
    st.one_of(
        st.sampled_from("ab é1२ก่ำ漢かم،“…\u200c\u00ad \n\t.,_@𞤀😀𠮶\ud800\ue000"),
        st.characters(codec=None),
    ),
    max_size=40,
)
CLASSES = (r"[\p{L}\p{M}]", r"\p{N}", r"[\s\p{P}\p{Z}\p{C}]")


@pytest.mark.parametrize("pattern", CLASSES)
@given(TEXTS)
def test_runs_are_what_regex_finds(pattern: str, sample: str) -> None:
    slow, runs = regex.compile(f"{pattern}+"), RUNS[pattern]
    assert runs.findall(sample) == slow.findall(sample)
    assert runs.sub("-", sample) == slow.sub("-", sample)
    assert runs.count(sample) == sum(map(len, slow.findall(sample)))
    assert not (runs.absent(sample) and slow.search(sample))


RUNS = {pattern: text.Runs(pattern) for pattern in CLASSES}


@pytest.mark.parametrize("script", ["Thai", "Latin", "Devanagari", "Han"])
@given(st.one_of(TEXTS, st.text("กขค่ำ 12.,\n“”ABab漢字कि्", max_size=12)))
def test_only_script_is_what_shares_say(script: str, sample: str) -> None:
    alone = text.script_shares(sample) == {script: 1.0}
    found = text.only_script(sample, script)
    assert found == alone or (not found and any(char > "\uffff" or "\ud800" <= char <= "\udfff" for char in sample))


def test_find_language() -> None:
    assert text.find_language("hin") == text.language("hi")
    assert text.find_language("xx") is None
