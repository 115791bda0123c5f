"""Duplicates: the first stays, order stays, near ones are found and nothing else is."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraft.corpus import dedup
from langgraft.corpus.dedup import Duplicates, check_leaks, find_duplicates
from langgraft.corpus.document import Document
from langgraft.corpus.near import folded, jaccard, shingles, text_key
from langgraft.corpus.shards import Shards, write_shard

LONG = "香港嘅夜景真係好靚，好多人都鍾意影相，我哋今日去邊度食飯呀，聽日會唔會落雨都未知。"
ENGLISH = "the quick brown fox jumps over the lazy dog and then it sleeps all day in the warm sun of june " * 3
SYLLABLES = {
    "en": [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er")],
    "th": [chr(0x0E01 + i) + vowel for i in range(40) for vowel in ("\u0e32", "\u0e34", "\u0e39", "")],
}


def stored(texts: Sequence[str], folder: Path, code: str = "yue", *, near: bool = True, size: int = 700) -> Shards:
    """Texts as shards of `size`, without any cleaning."""
    folders = []
    for start in range(0, len(texts), size):
        part = [Document(t, f"f:{i:04d}", code, "s", "") for i, t in enumerate(texts[start : start + size], start)]
        folders.append(folder / f"{start:06d}")
        write_shard(folders[-1], part, part, code=code, near=near)
    return Shards(folders)


def found(texts: Sequence[str], folder: Path, code: str = "yue", *, near: bool = True, size: int = 700) -> Duplicates:
    return find_duplicates(stored(texts, folder, code, near=near, size=size), code, folder, near=near)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("ab c。", max_size=4), min_size=1, max_size=40), st.booleans())
def test_keeps_the_first_of_equal_texts(tmp_path_factory: pytest.TempPathFactory, texts: list[str], near: bool) -> None:
    result = found(texts, tmp_path_factory.mktemp("shards"), near=near, size=7)
    keys = [text_key(text) for text in texts]
    assert list(result.first) == [keys.index(key) for key in keys]
    assert not result.near.any()


def test_near_duplicates_and_clusters(tmp_path: Path) -> None:
    texts = [LONG, LONG.replace("未知", "未定"), "完全唔同嘅一句說話，" * 5, LONG + "啦", LONG, LONG + "啦！"]
    result = found(texts, tmp_path / "a", size=2)
    # The last repeats one that was itself dropped: it goes to the one that stays.
    assert list(result.first) == [0, 0, 2, 0, 0, 0]
    assert list(result.near) == [False, True, False, True, False, False]
    assert result.clusters() == {"clusters": 1, "dropped": 2, "largest": 3}
    assert list(result.sizes()) == [4, 0, 0, 0, 0, 0]
    assert list(found(texts, tmp_path / "b", near=False).first) == [0, 1, 2, 3, 0, 3]
    assert list(found([ENGLISH, ENGLISH + "indeed"], tmp_path / "c", "en").first) == [0, 0]


def test_short_texts_are_compared_exactly(tmp_path: Path) -> None:
    assert found(["我哋今日去邊度食飯呀", "我哋今日去邊度食飯啊"], tmp_path).kept().all()


def test_no_documents(tmp_path: Path) -> None:
    assert len(find_duplicates(Shards([]), "yue", tmp_path).first) == 0
    assert found(["短"], tmp_path).clusters() == {"clusters": 0, "dropped": 0, "largest": 0}


def test_a_bucket_of_many_is_searched_to_its_first(tmp_path: Path) -> None:
    texts = [f"{ENGLISH} {i} {i}" for i in range(100)]
    result = found(texts, tmp_path, "en")
    assert set(result.first) == {0}
    assert result.clusters() == {"clusters": 1, "dropped": 99, "largest": 100}


def _text(rng: random.Random, code: str, words: int) -> list[str]:
    return ["".join(rng.choices(SYLLABLES[code], k=rng.randint(1, 3))) for _ in range(words)]


def _edited(rng: random.Random, code: str, words: list[str], rate: float) -> list[str]:
    """`words` with a share of them replaced, left out or doubled."""
    out = []
    for word in words:
        kind = rng.choice("rdi") if rng.random() < rate else ""
        out += {"": [word], "r": _text(rng, code, 1), "d": [], "i": [word, *_text(rng, code, 1)]}[kind]
    return out


@pytest.mark.parametrize("code", ["en", "th"])
def test_planted_duplicates_are_found(tmp_path: Path, code: str) -> None:
    """Must-show: precision and recall of 0.98 at a Jaccard similarity of 0.8, at several edit rates."""
    rng = random.Random(0)
    joint = " " if code == "en" else ""
    texts, planted = [], dict[int, int]()
    for n in range(150):
        words = _text(rng, code, rng.randint(20, 300))
        texts.append(words)
        for rate in (0.0, 0.005, 0.02, 0.04, 0.08, 0.2):
            planted[len(texts)] = n * 7
            texts.append(_edited(rng, code, words, rate))
    joined = [joint.join(words) for words in texts]
    sets = [shingles(folded(text), code) for text in joined]
    result = found(joined, tmp_path, code)
    alike = {i: jaccard(sets[i], sets[of]) for i, of in planted.items()}
    wanted = {i for i, value in alike.items() if value >= 0.8}
    dropped = {int(i) for i in np.flatnonzero(~result.kept())}
    assert 200 < len(wanted) < 800
    assert len(wanted & dropped) / len(wanted) >= 0.98
    # What was dropped is as alike as it should be to the document it is said to repeat.
    right = [i for i in dropped if jaccard(sets[i], sets[int(result.first[i])]) >= 0.8]
    assert len(right) / len(dropped) >= 0.98
    assert sum(i in wanted for i in dropped) / len(dropped) >= 0.98


def test_candidates_are_compared_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that the figures above must catch: candidates taken as duplicates."""
    words = _text(random.Random(1), "en", 100)
    half = " ".join([*words[:80], *_text(random.Random(2), "en", 20)])
    assert found([" ".join(words), half], tmp_path / "a", "en").kept().all()
    monkeypatch.setattr(dedup, "jaccard", lambda *_: 1.0)
    monkeypatch.setattr(dedup, "ESTIMATE", 0.0)
    assert not found([" ".join(words), half], tmp_path / "b", "en").kept().all()


def test_leaks() -> None:
    train = [LONG, "短句", "另一句"]
    assert check_leaks(train, [LONG + "啦", "短 句。", "冇關係嘅"], "yue") == 2
    assert check_leaks(train, [LONG + "啦", "短 句。"], "yue", near=False) == 1
    assert check_leaks(train, [], "yue") == 0
    many = [f"{i} {LONG[i % 20 :]}{i * 7919}" for i in range(2100)]
    assert check_leaks(many, many[2050:2060], "yue") == 10
