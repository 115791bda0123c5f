"""What is streamed: whole characters, whole graphemes, nothing of a stop string, and nothing lost."""

import codecs

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langgraft.serving.stream import LONGEST, TextStream

LIVELY = (
    "पुस्तकालय में क्षत्रिय विद्यार्थी हैं। می‌خواهم کتاب‌ها را بخوانم؛ نَه. กำลังน้ำท่วมที่นี่ 我哋今日去飲茶。 "
    "👩‍👩‍👧‍👦🇭🇰🇯🇵👍🏽 e\u0301a\u0308\r\n한국어 각 தமிழ் மொழி བོད་སྐད་ ខ្មែរ"
)
GRAPHEMES = regex.findall(r"\X|\P{M}", LIVELY)
TEXTS = st.lists(st.sampled_from(GRAPHEMES) | st.characters(codec="utf-8"), max_size=40).map("".join)
CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=20)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Bytes cut as tokens might cut them, the lengths taken in turn."""
    found, start, turn = [], 0, 0
    while start < len(data):
        size = cuts[turn % len(cuts)]
        found.append(data[start : start + size])
        start, turn = start + size, turn + 1
    return found


def shown(data: bytes, cuts: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    """What a stream shows, piece by piece."""
    stream = TextStream(stop)
    return [*(stream.feed(piece) for piece in pieces(data, cuts)), stream.finish()]


@settings(max_examples=60)
@given(TEXTS, CUTS)
@example(LIVELY, [1])
@example(LIVELY, [2, 3])
def test_pieces_are_whole_graphemes_and_together_the_text(text: str, cuts: list[int]) -> None:
    parts = shown(text.encode(), cuts)
    assert "".join(parts) == text
    whole = regex.findall(r"\X", text)
    if max(map(len, whole), default=0) <= LONGEST:
        assert [grapheme for part in parts for grapheme in regex.findall(r"\X", part)] == whole


@given(st.binary(max_size=60), CUTS)
def test_bytes_that_are_no_text_neither_fail_nor_hold_the_stream(data: bytes, cuts: list[int]) -> None:
    # Without `final`, the decoder keeps the start of a character that may still come.
    assert "".join(shown(data, cuts)) == codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def test_half_a_character_at_the_limit_is_left_out() -> None:
    assert shown("位他們".encode()[:-1], [2])[-1] == "他"
    assert shown("位他們".encode()[:-1] + b"!", [2])[-1] == "!"


@given(st.text("ab", max_size=30), CUTS, st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_of_a_stop_string_is_ever_shown(text: str, cuts: list[int], stop: list[str]) -> None:
    parts = shown(text.encode(), cuts, tuple(stop))
    ends = [text.find(one) for one in stop if one in text]
    # The bytes come in order, so the stop that is complete first counts.
    ended = [text[:n] for n in range(len(text) + 1) if any(one in text[:n] for one in stop)]
    assert "".join(parts) == (text[: min(ended[0].find(one) for one in stop if one in ended[0])] if ends else text)


def test_a_stop_string_is_named_and_ends_the_stream() -> None:
    stream = TextStream(("\n\n", "।"))
    assert [stream.feed(part.encode()) for part in ("नमस्ते ", "दुनिया", "। फिर")] == ["नमस्ते", " दुनि", "या"]
    assert stream.stopped == "।"
    assert stream.feed(b"more") == stream.finish() == ""


def test_text_comes_as_soon_as_the_next_grapheme_begins() -> None:
    stream = TextStream()
    vowel_sign = "कि".encode()
    assert stream.feed(vowel_sign[:2]) == ""
    assert stream.feed(vowel_sign[2:]) == ""
    assert stream.feed(b" ") == "कि"


@pytest.mark.parametrize("mark", ["\u0301", "\u093c"])
def test_a_model_that_loops_on_a_mark_does_not_hold_the_stream(mark: str) -> None:
    stream = TextStream()
    said = [stream.feed(mark.encode()) for _ in range(10 * LONGEST)]
    assert len("".join(said)) >= 8 * LONGEST
