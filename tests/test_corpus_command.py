"""`langgraft corpus`: options of readers, damage in the summary, and what was dropped."""

import json
from pathlib import Path

import pytest
from command import langgraft

from langgraft.cli import app
from langgraft.commands import reader_options
from langgraft.corpus.prepare import read_split
from langgraft.errors import CorpusError, RecipeError


def test_reader_options() -> None:
    given = ["code=keep", "gap=2.5", "header=true"]
    assert reader_options(given, ["a.md"]) == [{"code": "keep", "gap": 2.5, "header": True}]
    with pytest.raises(RecipeError, match="--option code must be name=value"):
        reader_options(["code"], ["a.md"])


def test_reader_options_of_one_input() -> None:
    inputs = ["hub:a/b", "docs/*.md", "x.xml"]
    given = ["docs/*.md:code=keep", "x.xml:tables=drop", "hub:a/b:revision=a=b", "n=1", "x.xml:n=2"]
    assert reader_options(given, inputs) == [
        {"n": 1, "revision": "a=b"},
        {"n": 1, "code": "keep"},
        {"n": 2, "tables": "drop"},
    ]
    with pytest.raises(
        RecipeError, match=r"y.xml is no input; write it as among the inputs: hub:a/b, docs/\*.md, x.xml"
    ):
        reader_options(["y.xml:tables=drop"], inputs)


def test_options_for_inputs_of_two_readers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = "\n\n".join(f"Page {i} of an English text about the weather in the north of the country." for i in range(9))
    (tmp_path / "a.md").write_text(f"{story}\n\n```\nthe code that is to be kept\n```\n")
    (tmp_path / "b.txt").write_text("\n".join(f"Line {i} tells of storms that came from the west." for i in range(40)))
    notes, lines = str(tmp_path / "a.md"), str(tmp_path / "b.txt")
    arguments = ["--language", "en", "--dev", "1", "--test", "1", "--no-near-duplicates"]
    with pytest.raises(SystemExit) as ended:
        app(["corpus", notes, lines, "-o", str(tmp_path / "out"), *arguments, "--option", f"{notes}:code=keep"])
    assert ended.value.code in (0, None), capsys.readouterr().err
    rows = [row for name in ("train", "dev", "test") for row in read_split(tmp_path / "out", "target", name)]
    assert any("code that is to be kept" in row.text for row in rows)
    with pytest.raises(CorpusError, match="reader `text` has no option `code`"):
        app(["corpus", notes, lines, "-o", str(tmp_path / "two"), *arguments, "--option", "code=keep"])


def test_damage_and_drops_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"Line {i} of an English text about the weather in the north of the country." for i in range(40)]
    (tmp_path / "a.txt").write_text("\n".join([*rows, "这是一个完全不同语言的句子，应该被丢弃。"]) + "\n")
    (tmp_path / "b.json").write_text('["cut"')
    inputs = [str(tmp_path)]
    arguments = [*inputs, "-o", str(tmp_path / "out"), "--language", "en", "--show-dropped", "--json"]
    with pytest.raises(SystemExit) as ended:
        app(["corpus", *arguments, "--no-near-duplicates"])
    assert ended.value.code in (0, None)
    shown = capsys.readouterr()
    files = json.loads(shown.out)["target"]["files"]
    assert files["readers"] == {"json": 1, "text": 1}
    assert files["damaged"][0]["file"].endswith("b.json")
    assert "damaged: " in shown.err
    assert "a.txt:41: 这是" in shown.err


def english(folder: Path) -> Path:
    """Pages with a menu and an address, and one that is a table; beside them what bounds are derived from."""
    menu = "Home | About the weather | Contact"
    pages = [
        f"{menu}\nPage {i} tells of the weather in the north and of mail to reader{i}@post.org." for i in range(40)
    ]
    figures = " ".join(str(i * 7919) for i in range(80))
    pages.append(f"{menu}\nThe table of the weather in the north\n{figures}")
    (folder / "pages.jsonl").write_text("\n".join(json.dumps({"text": page}) for page in pages))
    clean = [f"Line {i} of a clean English text about the weather in the north of the country." for i in range(120)]
    (folder / "clean.txt").write_text("\n".join(clean))
    (folder / "eng.yml").write_text("new_line_ratio: 0.3\n")
    return folder / "pages.jsonl"


@pytest.mark.parametrize(
    ("how", "origin"),
    [
        (["--quality"], "defaults"),
        (["--reference", "clean.txt"], "derived from 120 documents of clean.txt, tail 0.01"),
        (["--fineweb", "eng.yml"], "FineWeb-2 configuration eng.yml"),
    ],
)
def test_filters_masking_card_page_and_what_was_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str], origin: str
) -> None:
    pages = english(tmp_path)
    monkeypatch.chdir(tmp_path)
    more = [*how, "--boilerplate", "20", "--mask", "all", "--no-near-duplicates", "--json"]
    done = langgraft("corpus", pages, "-o", "out", "--language", "en", *more)
    assert done.code == 0, done.err
    target = json.loads(done.out)["target"]
    assert target["filters"]["origin"] == origin
    assert target["dropped"]["digits"]["documents"] == 1
    assert target["masked"] == {"email": 40}
    assert target["dropped_lines"]["boilerplate"]["lines"] == 40
    assert (tmp_path / "out" / "README.md").is_file()
    assert (tmp_path / "out" / "corpus.html").is_file()
    shown = langgraft("dropped", "out", "--json")
    assert json.loads(shown.out)["dropped"]["digits"]["documents"] == 1
    assert "boilerplate: 40 lines left out of 40 documents" in shown.err
    whole = langgraft("dropped", "out", "--reason", "digits")
    assert " 625601" in whole.err  # the last of the figures
    wrong = langgraft("dropped", "out", "--reason", "digit")
    assert (wrong.code, "did you mean `digits`" in wrong.sentence()) == (2, True)


def test_filters_that_cannot_be(tmp_path: Path) -> None:
    pages = english(tmp_path)
    start = ["corpus", pages, "-o", tmp_path / "out", "--language", "en"]
    both = langgraft(*start, "--reference", tmp_path / "clean.txt", "--fineweb", tmp_path / "eng.yml")
    assert (both.code, "not both" in both.sentence()) == (2, True)
    kind = langgraft(*start, "--mask", "emial")
    assert (kind.code, "email" in kind.sentence()) == (2, True)
    assert not (tmp_path / "out").exists()
