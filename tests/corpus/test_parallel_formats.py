"""Formats of parallel text: what they look like, that nothing is lost, and that the same seed gives the same texts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.document import Pair
from langgraft.corpus.parallel import FORMATS, TEMPLATES, check_format, formatted
from langgraft.errors import RecipeError
from langgraft.text import language

HINDI, CANTONESE, ENGLISH = language("hi"), language("yue"), language("en")


def pairs(count: int, source: str = "a") -> list[Pair]:
    return [Pair(f"पाठ{i} यहाँ है।", f"text{i} is here.", str(i), source, "CC0-1.0") for i in range(count)]


def texts(name: str, of: list[Pair], seed: int = 0, **options: object) -> list[str]:
    return list(formatted(of, name, HINDI, ENGLISH, seed=seed, options=options))


def test_translation_goes_both_ways_under_a_header() -> None:
    found = texts("translation", pairs(1), templates=["From {from} to {to}: {text} = {translation}"])
    assert found == [
        "From English to Hindi: text0 is here. = पाठ0 यहाँ है।",
        "From Hindi to English: पाठ0 यहाँ है। = text0 is here.",
    ]
    own = texts("translation", pairs(1), templates=["{from_native}|{to_native}|{text}|{translation}"])
    assert own[0] == "English|हिन्दी|text0 is here.|पाठ0 यहाँ है।"
    assert texts("translation", pairs(1), templates=["{text}/{translation}"], directions="to_source") == [
        "पाठ0 यहाँ है।/text0 is here."
    ]


def test_headers_vary_and_every_pair_is_there_once_each_way() -> None:
    found = texts("translation", pairs(200))
    assert len({text.split("text")[0].split("पाठ")[0] for text in found}) >= len(TEMPLATES)
    together = "\n".join(found)
    assert Counter(together.count(pair.pair) for pair in pairs(200)) == {2: 200}
    assert {text.count("text") for text in found} == {1, 2, 3, 4}  # pairs of a document


def test_braces_in_text_are_only_text() -> None:
    odd = [Pair("{text} {0}", "a {curly} thing", "0", "a", "")]
    assert texts("translation", odd, templates=["{text} = {translation}"])[0] == "a {curly} thing = {text} {0}"


def test_interleaved_is_line_by_line() -> None:
    found = texts("interleaved", pairs(100))
    lines = [line for text in found for line in text.split("\n")]
    assert len(lines) == 200
    for text in found:
        kinds = ["text" in line for line in text.split("\n")]
        assert kinds == [kinds[0], not kinds[0]] * (len(kinds) // 2)
    assert {"text" in text.split("\n")[0] for text in found} == {True, False}  # either language comes first


def test_bilingual_rows_are_those_of_h2() -> None:
    assert texts("bilingual", pairs(1)) == ["पाठ0 यहाँ है। (text0 is here.)"]
    found = texts("bilingual", pairs(40), most=2)
    assert "पाठ0 यहाँ है। (text0 is here.) पाठ1 यहाँ है। (text1 is here.)" in found[0] + " " + found[1]
    assert texts("bilingual", [Pair("दो\nपंक्तियाँ", "two\nlines", "0", "a", "")]) == ["दो पंक्तियाँ (two lines)"]


def test_code_switched_documents_hold_both_languages_and_each_pair_once() -> None:
    found = texts("code_switched", pairs(300))
    for text in found:
        assert "text" in text
        assert "पाठ" in text
    together = "\n".join(found)
    held = [(pair.pair in together) + (pair.text in together) for pair in pairs(300)]
    assert held.count(1) >= 299  # a single pair at the end may be left
    assert max(held) == 1


def test_documents_do_not_reach_over_sources() -> None:
    of = [*pairs(3, "a"), *pairs(3, "b")]
    assert len(texts("interleaved", of, most=1000, seed=1)) >= 2
    alone = [Pair(f"पाठ{i}", f"text{i}", str(i), str(i), "") for i in range(5)]
    assert texts("code_switched", alone) == []  # nothing to switch between
    assert len(texts("bilingual", alone)) == 5


def test_languages_without_spaces_are_not_glued_to_english() -> None:
    of = [Pair(f"第{i}句。", f"Sentence {i}.", str(i), "a", "") for i in range(4)]
    (text,) = list(formatted(of, "code_switched", CANTONESE, ENGLISH, options={"least": 4, "most": 4}))
    assert text.count("。 ") + text.count(". ") == 3
    both = list(formatted(of, "code_switched", CANTONESE, language("ja"), options={"least": 4, "most": 4}))
    assert "。Sentence" in both[0]


@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 5), st.integers(0, 30))
def test_the_same_seed_gives_the_same_texts(name: str, seed: int, count: int) -> None:
    assert texts(name, pairs(count), seed) == texts(name, pairs(count), seed)


def test_another_seed_gives_other_texts() -> None:
    for name in FORMATS:
        assert texts(name, pairs(100), 1) != texts(name, pairs(100), 2)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("interlaced", {}, "format of parallel text `interlaced` is unknown; did you mean `interleaved`"),
        ("bilingual", {"moost": 2}, "format `bilingual` has no option `moost`; did you mean `most`"),
        ("bilingual", {"most": 0}, "most is a number of pairs from 1 on, not 0"),
        ("translation", {"templates": []}, "templates is a list of one or more texts"),
        ("translation", {"templates": ["{text}"]}, r"needs \{text\} and \{translation\}"),
        ("translation", {"templates": ["{text} {translation} {too}"]}, r"has \{too\}; there are from, "),
        ("translation", {"templates": ["{text} {translation"]}, "cannot be read"),
        ("translation", {"templates": [3]}, "cannot be read"),
        ("translation", {"directions": "there"}, 'directions is "both", "to_target" or "to_source", not \'there\''),
    ],
)
def test_what_cannot_be_is_told(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check_format(name, options)
