"""Documents in more than one language."""

from pathlib import Path

import pytest

from langgraft.corpus.langid import Identifier
from langgraft.corpus.mixed import select

PERSIAN = "نصب یک بسته به معنی دادن اختیار به سازنده آن است، چرا که او تصمیم می‌گیرد چه چیزی اجرا شود."
ENGLISH = "What makes this system so popular with administrators is how easily software can be installed."
HEADING = "فصل ۶. نگهداری"
FORMATS = Path(__file__).parents[3] / "shared" / "materials" / "formats"


def lines(*parts: str) -> str:
    return "\n\n".join(parts)


def test_foreign_lines_are_left_out() -> None:
    found = select(Identifier("fa"), lines(HEADING, ENGLISH, PERSIAN))
    assert found.keep
    assert found.text == lines(HEADING, PERSIAN)
    assert found.left_out == {"script": [ENGLISH]}
    assert found.mix == {"fa": len(HEADING) + len(PERSIAN), "en": len(ENGLISH)}


def test_modes() -> None:
    text = lines(HEADING, ENGLISH, PERSIAN)
    assert select(Identifier("fa"), text, "keep").text == text
    assert select(Identifier("fa"), text, "document").text == text  # most of it is Persian
    assert not select(Identifier("fa"), lines(ENGLISH, ENGLISH, ENGLISH, HEADING), "document").keep
    kept = select(Identifier("fa"), ENGLISH, "keep")
    assert (kept.keep, kept.text, kept.mix) == (True, ENGLISH, {"en": len(ENGLISH)})


def test_a_document_with_next_to_nothing_in_the_language_is_dropped() -> None:
    found = select(Identifier("fa"), lines("یادداشت", *[ENGLISH] * 6))
    assert (found.keep, found.reason, found.text) == (False, "script", "")


def test_one_line_is_judged_as_a_document() -> None:
    assert select(Identifier("fa"), "Dog").reason == "script"
    assert select(Identifier("fa"), HEADING).keep


@pytest.mark.parametrize(
    "code_line",
    ["for (int i = 0; i < n; i++) { total += values[i]; }", "deb-src", "$ sudo apt-get install --yes package", "12.5"],
)
def test_code_stays_with_its_text(code_line: str) -> None:
    text = lines(PERSIAN, code_line, PERSIAN)
    assert select(Identifier("fa"), text).text == text
    assert code_line not in select(Identifier("fa"), lines(PERSIAN, ENGLISH, code_line, ENGLISH, PERSIAN)).text


def test_names_do_not_make_a_line_foreign() -> None:
    text = lines(PERSIAN, "فایل sources.list را در Debian GNU/Linux Administrator Handbook باز کنید", ENGLISH)
    assert "sources.list" in select(Identifier("fa"), text).text
    names = lines(ENGLISH, "DataCollatorWithPadding در TensorFlow Datasets", PERSIAN)
    assert "DataCollator" in select(Identifier("fa"), names).text


def test_close_relatives_by_line() -> None:
    cantonese = "我哋琴日喺街市買咗三斤菜心，佢話聽日再嚟。"
    short = "他說這是我們的。"
    long = "他們沒有說這是什麼時候的事情，可是我們都知道那個地方的人從來不會把真正的原因告訴別人。"
    assert select(Identifier("yue"), lines(cantonese, short, cantonese)).text == lines(cantonese, short, cantonese)
    found = select(Identifier("yue"), lines(cantonese, long, cantonese))
    assert found.text == lines(cantonese, cantonese)
    assert found.left_out == {"written_chinese": [long]}
    # Short lines that say nothing one by one are judged together.
    assert select(Identifier("yue"), lines(*[short] * 5)).reason == "written_chinese"


def test_other_language_in_the_same_script() -> None:
    german = "Dieser Satz ist eindeutig auf Deutsch geschrieben und lang genug, um ihn zu erkennen."
    assert select(Identifier("en"), lines(ENGLISH, german)).left_out == {"language": [german]}


@pytest.mark.skipif(not FORMATS.exists(), reason="needs the real files")
def test_real_traps() -> None:
    from langgraft.corpus.document import Input, Report
    from langgraft.corpus.normalise import normalise
    from langgraft.corpus.readers import read
    from langgraft.text import script_shares

    identifier = Identifier("fa")

    def chosen(folder: str) -> list[tuple[str, str]]:
        documents = read([Input(str(FORMATS / folder))], "fa", Report())
        return [(d.id, select(identifier, normalise(d.text, "fa")).text) for d in documents]

    handbook = dict(chosen("html_handbook_mixed_fa"))
    for name, text in handbook.items():
        assert bool(text) == ("fa-IR" in name)
        assert not text or script_shares(text)["Arabic"] > 0.8
    assert not any(text for _, text in chosen("html_mislabelled_gimp_fa_is_english"))
