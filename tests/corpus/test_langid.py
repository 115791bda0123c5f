"""Language checks: clear contradictions are dropped, doubtful text stays."""

import gzip
import json
from pathlib import Path

import pytest
from pico import CANTONESE, ENGLISH

from langgraft.corpus.langid import Identifier, chinese_markers, guess

MATERIALS = Path(__file__).parents[3] / "shared" / "materials"
GERMAN = "Dieser Satz ist eindeutig auf Deutsch geschrieben und lang genug, um ihn zu erkennen."


def reason(code: str, text: str) -> tuple[bool, str]:
    return tuple(Identifier(code).check(text))


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("en", GERMAN, (False, "language")),
        ("de", GERMAN, (True, "ok")),
        ("de", "Ja.", (True, "short")),
        ("hi", GERMAN, (False, "script")),
        ("hi", "123 !?", (False, "script")),
        ("en", "", (False, "script")),
        ("yue", "他們沒有說這是什麼時候的事。", (False, "written_chinese")),
        ("yue", "我琴日喺街市買咗三斤菜心。", (True, "ok")),
        ("yue", "香港仔海濱公園", (True, "neutral")),
        ("yue", "他話「這是我們的」，但係佢唔信我哋。", (True, "ok")),
        ("yue", "これは日本語の文章ですから広東語ではありません", (False, "script")),
        ("yue", "東京大学入学試験問題集をください", (False, "language")),
        ("zh", "佢哋冇話俾我聽係幾時嘅事。", (False, "cantonese")),
        ("zh", "他們沒有說這是什麼時候的事。", (True, "ok")),
        ("ja", "これは日本語の文章です。", (True, "ok")),
        ("ja", "他們沒有說這是什麼時候的事，我們也不知道。", (False, "language")),
        ("ha", GERMAN, (True, "short")),  # the model does not know Hausa: nothing to contradict
        ("nb", "Dette er en setning på norsk som er lang nok til å kjennes igjen.", (True, "ok")),
    ],
)
def test_verdicts(code: str, text: str, expected: tuple[bool, str]) -> None:
    assert reason(code, text) == expected


def test_fixture_sentences() -> None:
    assert all(Identifier("yue").check(text).keep for text in CANTONESE)
    assert all(Identifier("en").check(text).keep for text in ENGLISH)


def test_close_relatives_need_more_text() -> None:
    hindi = "यह हिन्दी में लिखा हुआ एक वाक्य है "
    assert Identifier("mr").check(hindi).keep
    assert not Identifier("mr").check(hindi * 2 + "और इसको पढ़ने के लिए आपको हिन्दी आनी चाहिए क्योंकि यह लंबा है।").keep


def test_guess() -> None:
    assert guess(GERMAN)[0] == "de"
    assert guess(" \n") == ("", 0.0)
    assert chinese_markers("關係很好，目的地") == (0, 1)


@pytest.mark.skipif(not MATERIALS.exists(), reason="needs the real texts")
@pytest.mark.parametrize(
    ("file", "low", "high"),
    [("yue/common_voice_yue", 0.99, 1.0), ("zh/libreoffice_help", 0.0, 0.02), ("zh/hf_course", 0.0, 0.0)],
)
def test_real_text(file: str, low: float, high: float) -> None:
    with gzip.open(MATERIALS / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    identifier = Identifier("yue")
    assert low <= sum(identifier.check(text).keep for text in texts) / len(texts) <= high
