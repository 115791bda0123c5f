"""Quality filters: each planted fault is found by its filter, clean text passes, and texts of any kind are judged."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.document import Document
from langgraft.corpus.filters import (
    FILTERS,
    Bounds,
    Text,
    Thresholds,
    defaults,
    shared_lines,
    with_changes,
    without_lines,
)
from langgraft.errors import CorpusError

EN = "the of and to in is that it was for on as with his they be at one have this".split()  # noqa: SIM905


def prose(seed: int, words: int = 300, code: str = "en") -> str:
    """Sentences of made-up words with stop words between them, eight words a sentence."""
    rng = random.Random(seed)
    letters = {"en": "abcdefghilmnoprstu", "hi": "कखगचजटडतदनपबमरलवसह", "th": "กขคงจชดตทนบปมยรลวสห", "yue": ""}[code]
    han = [chr(0x4E00 + i) for i in range(600)]
    sentences, stops = [], EN if code == "en" else ["".join(letters[i : i + 2]) for i in range(8)] or han[:20]
    for _ in range(words // 8):
        made = [
            rng.choice(stops) if rng.random() < 0.4 else "".join(rng.choices(letters or han, k=rng.randint(2, 8)))
            for _ in range(8)
        ]
        sentences.append((" " if code in ("en", "hi") else "").join(made) + ("." if code == "en" else "。"))
    return "\n".join(sentences)


REPEATED = "\n".join(["Buy the best shoes in town today."] * 40)
FAULTS = [
    ("en", "lorem_ipsum", "Lorem ipsum dolor sit amet."),
    ("en", "curly_brackets", prose(1) + "{}" * 60),
    ("en", "digits", "12345 67890 " * 30 + prose(1, 40)),
    ("en", "without_letters", prose(1, 80) + " !! ?? -- ++" * 40),
    ("en", "mean_word_length", "x y " * 60 + "\n".join("abcdefghijklm"[i % 13] for i in range(40))),
    ("en", "symbols", "# ".join(prose(1).split()[:120])),
    ("en", "bullet_lines", "\n".join("- " + line for line in prose(1).split("\n"))),
    ("en", "ellipsis_lines", prose(1).replace(".", "...").replace("#", "")),
    ("en", "duplicate_lines", "\n".join([*prose(1).split("\n"), *["Home | About"] * 45])),
    ("en", "duplicate_line_characters", prose(1) + "\n" + "\n".join(prose(1).split("\n")[:12])),
    ("en", "duplicate_paragraphs", "\n\n".join(["One short part here", *["Again, the same"] * 4])),
    ("en", "top_2_grams", " ".join(f"cheap flights {word}" for word in prose(2).split()[:100])),
    ("en", "duplicate_5_grams", " ".join(prose(3).split()[:60] * 2)),
    ("th", "duplicate_5_grams", prose(3, 80, "th") * 3),
    ("yue", "top_2_grams", prose(4, 30, "yue") + "平靚正鞋" * 90),
]


@pytest.mark.parametrize(("code", "name", "text"), FAULTS, ids=lambda value: value if value in FILTERS else "")
def test_a_planted_fault_is_found(code: str, name: str, text: str) -> None:
    bounds = defaults(code)
    only = Thresholds(code, {name: bounds.bounds[name]})
    found = only.judge(text)
    assert found is not None
    assert found[0] == name
    assert not bounds.bounds[name].keeps(found[1])
    assert bounds.judge(text) is not None


@pytest.mark.parametrize("code", ["en", "hi", "th", "yue"])
@pytest.mark.parametrize("seed", range(5))
def test_clean_text_passes(code: str, seed: int) -> None:
    assert defaults(code).judge(prose(seed, code=code)) is None


@pytest.mark.parametrize("code", ["en", "th", "yue", "fa"])
def test_short_text_is_not_judged_by_counts(code: str) -> None:
    for text in ("好", "Yes.", "no no no no", "1. 2. 3.", "a\na\na", ""):
        assert defaults(code).judge(text) is None


def test_measures() -> None:
    text = Text("one two three four five " * 20, "en")
    assert FILTERS["duplicate_5_grams"].measure(text) == pytest.approx(0.95)
    assert FILTERS["top_2_grams"].measure(text) == pytest.approx(9 * 20 / 380)  # "three four"
    # Half of the text stands before; 100 different words twice.
    words = [f"w{i:03d}" for i in range(100)]
    assert FILTERS["duplicate_10_grams"].measure(Text(" ".join(words * 2), "en")) == pytest.approx(0.5)
    assert FILTERS["duplicate_5_grams"].measure(Text(" ".join(words), "en")) == 0
    assert FILTERS["mean_word_length"].measure(Text(" ".join(words), "en")) == 4
    assert FILTERS["mean_word_length"].measure(Text("字" * 500, "yue")) is None


def naive_top(text: str, n: int) -> float:
    """Share of the characters in the most frequent n-gram, counted plainly."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    most = max(grams.count(gram) for gram in grams)
    if most < 2:
        return 0.0
    longest = max(sum(map(len, gram)) for gram in grams if grams.count(gram) == most)
    return min(1.0, longest * most / sum(map(len, words)))


def naive_duplicates(text: str, n: int) -> float:
    """Share of the characters in n-grams that stood before, counted plainly."""
    words = text.split()
    covered: set[int] = set()
    for i in range(len(words) - n + 1):
        if any(words[j : j + n] == words[i : i + n] for j in range(i)):
            covered.update(range(i, i + n))
    return sum(len(words[i]) for i in covered) / sum(map(len, words))


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dd"]), min_size=50, max_size=70))
def test_ngrams_are_as_counted_plainly(words: list[str]) -> None:
    text = " ".join(words)
    for n in (2, 3, 4):
        assert FILTERS[f"top_{n}_grams"].measure(Text(text, "en")) == pytest.approx(naive_top(text, n))
    for n in (5, 8, 10):
        assert FILTERS[f"duplicate_{n}_grams"].measure(Text(text, "en")) == pytest.approx(naive_duplicates(text, n))


@given(st.text(max_size=400), st.sampled_from(["en", "th", "yue", "ja", "fa"]))
def test_every_measure_takes_any_text(text: str, code: str) -> None:
    for name, row in FILTERS.items():
        value = row.measure(Text(text, code, frozenset("aเ的")))
        assert value is None or value >= 0, name


def test_changes() -> None:
    changed = defaults("en", {"digits": ["", 0.1], "newlines": [0.0, 0.5], "symbols": False})
    assert changed.bounds["digits"] == Bounds(None, 0.1)
    assert changed.bounds["newlines"] == Bounds(0.0, 0.5)
    assert "symbols" not in changed.bounds
    with pytest.raises(CorpusError, match="filter `digit` is unknown; did you mean `digits`"):
        with_changes(changed, {"digit": [0, 1]})
    for wrong in (0.3, [0.3], [1, 0], ["a", 1], [True, 2], True):
        with pytest.raises(CorpusError, match=r"filter `digits`: bounds are \[low, high\]"):
            with_changes(changed, {"digits": wrong})


def documents(source: str = "s") -> list[Document]:
    menu = "Home | News | Contact us today"
    return [Document(f"{menu}\nText number {i} is about {i}\nok", str(i), "en", source, "") for i in range(30)]


def test_boilerplate() -> None:
    shared = shared_lines(documents(), 20)
    assert without_lines(documents()[3], shared) == (
        "Text number 3 is about 3\nok",
        ["Home | News | Contact us today"],
    )
    # Another source has not these lines, one line alone is never boilerplate, and too few documents share this one.
    assert without_lines(documents("other")[3], shared) == (documents()[3].text, [])
    alone = Document("Home | News | Contact us today", "x", "en", "s", "")
    assert without_lines(alone, shared) == (alone.text, [])
    assert shared_lines(documents(), 31) == {"s": frozenset()}


def test_boilerplate_forgets_rare_lines_to_bound_its_memory() -> None:
    def line(i: int) -> str:
        rare = "\nOnce in a hundred pages" if i % 100 == 0 else ""
        return f"The footer of every page\nLine number {i} alone{rare}"

    many = [Document(line(i), str(i), "en", "s", "") for i in range(2000)]
    assert without_lines(many[100], shared_lines(many, 20))[0] == "Line number 100 alone"
    forgetful = shared_lines(many, 20, window=50)
    assert without_lines(many[100], forgetful)[0] == "Line number 100 alone\nOnce in a hundred pages"


def test_the_page_names_every_filter_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "filters.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    between = {f"top_{n}_grams" for n in (2, 3, 4)} | {f"duplicate_{n}_grams" for n in range(5, 11)}
    assert told | between == set(FILTERS)
    for row in rows:
        name, high = re.findall(r"`(\w+)`", row)[0], FILTERS[re.findall(r"`(\w+)`", row)[0]].bounds.high
        assert high is None or f"{high:g}" in row.split("|")[3], name
