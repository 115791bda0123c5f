"""Keys, shingles, signatures: the fast forms mean what the plain ones say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from langgraft.corpus.near import (
    BANDS,
    PERMUTATIONS,
    bands,
    characters,
    folded,
    jaccard,
    ngrams,
    shingles,
    signatures,
    text_key,
    words,
)

TEXT = st.text("ab c。,ก ข字A\u200c", max_size=30)


def plain(text: str, code: str) -> set[str]:
    """Shingles as strings."""
    units, size, joint = (folded(text).split(), 3, " ") if code == "en" else (folded(text).replace(" ", ""), 5, "")
    return {joint.join(units[i : i + size]) for i in range(max(1, len(units) - size + 1))} if units else set()


@given(TEXT, TEXT)
def test_hashes_are_as_alike_as_the_strings(a: str, b: str) -> None:
    for code in ("en", "th"):
        left, right = plain(a, code), plain(b, code)
        expected = len(left & right) / len(left | right) if left & right else 0.0
        assert jaccard(shingles(folded(a), code), shingles(folded(b), code)) == expected
        assert len(shingles(folded(a), code)) == len(left)


@given(st.lists(st.text("abก字", min_size=1, max_size=5), max_size=8))
def test_words_have_one_hash_each(parts: list[str]) -> None:
    fold = " ".join(parts)
    hashes = words(fold).tolist()
    assert len(hashes) == len(parts)
    assert [a == b for a in hashes for b in hashes] == [a == b for a in parts for b in parts]
    assert len(characters(fold)) == sum(map(len, parts))


def test_scripts_without_spaces_are_counted_by_character() -> None:
    assert len(words("internationalization ของไทย gpt4 字", single=True)) == 1 + 6 + 1 + 1
    assert len(words("ไทย", single=False)) == 1
    assert len(words("")) == 0


def test_ngrams() -> None:
    units = words("a b c d a b c")
    grams = ngrams(units, 3)
    assert len(grams) == 5
    assert grams[0] == grams[4]
    assert len(np.unique(grams)) == 4
    assert len(ngrams(units[:2], 3)) == 1
    assert len(ngrams(units[:0], 3)) == 0


def test_key_ignores_case_space_and_punctuation() -> None:
    assert text_key("Ab c!") == text_key("abc") != text_key("abd")
    assert text_key("！") != text_key("？")
    assert text_key("हिन्दी") != text_key("हनद")


def test_signatures_estimate_the_similarity() -> None:
    rng = np.random.default_rng(0)
    a = np.unique(rng.integers(0, 2**63, 900, dtype=np.uint64))
    b = np.unique(np.concatenate([a[:800], rng.integers(0, 2**63, 100, dtype=np.uint64)]))
    rows = signatures([a, b])
    assert rows.shape == (2, PERMUTATIONS)
    assert abs((rows[0] == rows[1]).mean() - jaccard(a, b)) < 0.12
    found = bands(signatures([a, a]))
    assert found.shape == (2, BANDS)
    assert (found[0] == found[1]).all()
    assert signatures([]).shape == (0, PERMUTATIONS)
