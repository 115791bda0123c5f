"""Duplicates: the first stays, order stays, near ones are found."""

from hypothesis import given, settings
from hypothesis import strategies as st

from langgraft.corpus.dedup import Deduplicator, check_leaks, shingles, text_key
from langgraft.corpus.document import Document

LONG = "香港嘅夜景真係好靚，好多人都鍾意影相，我哋今日去邊度食飯呀，聽日會唔會落雨都未知。"
ENGLISH = "the quick brown fox jumps over the lazy dog and then it sleeps all day in the warm sun of june " * 3


def documents(texts: list[str]) -> list[Document]:
    return [Document(text, f"f:{i:04d}", "yue", "s", "") for i, text in enumerate(texts)]


def kept(texts: list[str], code: str = "yue", **options: bool) -> list[str]:
    run = Deduplicator(code, **options).run(documents(texts))
    return [outcome.document.text for outcome in run if not outcome.duplicate_of]


@settings(deadline=None)
@given(st.lists(st.text("ab c。", max_size=4), max_size=40), st.booleans())
def test_keeps_the_first_in_order(texts: list[str], near: bool) -> None:
    expected = list({text_key(text): text for text in reversed(texts)}.values())[::-1]
    expected.sort(key=texts.index)
    assert kept(texts, near=near) == expected
    # Running over the result changes nothing.
    assert kept(expected, near=near) == expected


def test_key_ignores_case_space_and_punctuation() -> None:
    assert text_key("Ab c!") == text_key("abc") != text_key("abd")
    assert text_key("！") != text_key("？")
    assert text_key("हिन्दी") != text_key("हनद")


def test_shingles() -> None:
    assert shingles("a b, c D", "en") == ["a b c", "b c d"]
    assert shingles("一二三 四五六", "yue") == ["一二三四五", "二三四五六"]
    assert shingles("ab", "yue") == ["ab"]


def test_near_duplicates_and_clusters() -> None:
    texts = [LONG, LONG.replace("未知", "未定"), "完全唔同嘅一句說話，" * 5, LONG + "啦", LONG]
    index = Deduplicator("yue")
    outcomes = list(index.run(documents(texts)))
    assert [o.duplicate_of for o in outcomes] == ["", "f:0000", "", "f:0000", "f:0000"]
    assert [o.near for o in outcomes] == [False, True, False, True, False]
    assert index.clusters() == {"clusters": 1, "dropped": 2, "largest": 3}
    assert index.exact == {"f:0000": 1}
    assert kept(texts, near=False) == texts[:4]
    assert kept([ENGLISH, ENGLISH + "indeed"], "en") == [ENGLISH]


def test_short_texts_are_compared_exactly() -> None:
    assert len(kept(["我哋今日去邊度食飯呀", "我哋今日去邊度食飯啊"])) == 2


def test_leaks() -> None:
    train = documents([LONG, "短句", "另一句"])
    assert check_leaks(train, documents([LONG + "啦", "短 句。", "冇關係嘅"]), "yue") == 2
    assert check_leaks(train, documents([LONG + "啦", "短 句。"]), "yue", near=False) == 1
    assert check_leaks(train, [], "yue") == 0


def test_long_streams_go_in_batches() -> None:
    texts = [f"{i} {LONG[i % 20 :]}{i * 7919}" for i in range(2100)]
    assert kept([*texts, *texts]) == kept(texts)
