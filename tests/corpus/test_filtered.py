"""A corpus with filters, boilerplate lines and masking: what goes and why, the same bytes in every way of running."""

import filecmp
import random
from pathlib import Path
from typing import Any

import pytest

from langgraft.corpus import prepare as module
from langgraft.corpus import shards
from langgraft.corpus.document import Input
from langgraft.corpus.dropped import dropped, read_dropped
from langgraft.corpus.filters import defaults
from langgraft.corpus.prepare import prepare, read_split
from langgraft.errors import CorpusError
from langgraft.progress import Log
from langgraft.store import read_json

MENU = "Home | About the weather | Contact"
WORDS = [
    "the",
    "weather",
    "in",
    "north",
    "country",
    "was",
    "often",
    "cold",
    "and",
    "people",
    "of",
    "small",
    "towns",
    "by",
    "sea",
    "went",
    "out",
    "to",
    "look",
    "at",
    "ships",
    "that",
    "came",
    "home",
    "from",
    "long",
    "journeys",
    "with",
    "stories",
    "letters",
    "which",
    "they",
    "had",
    "written",
    "about",
    "other",
    "places",
]


def article(number: int) -> str:
    draw = random.Random(number)
    sentences = [" ".join(draw.choices(WORDS, k=12)).capitalize() + "." for _ in range(8)]
    return "\n".join([MENU, f"Article {number} by reader{number}@post.org", *sentences])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pages = tmp_path / "pages"
    pages.mkdir()
    for number in range(60):
        (pages / f"{number:03d}.txt").write_text(article(number))
    (pages / "menu.txt").write_text(f"{MENU}\n{MENU.upper()}\n")
    figures = " ".join(str(i * 7919) for i in range(80))
    (pages / "zz-table.txt").write_text(f"{MENU}\nThe table of the weather in the north\n{figures}\n")
    return pages


def run(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    chosen = {"thresholds": defaults("en"), "boilerplate": 20, "mask": ["email"], **options}
    return prepare(
        [Input(str(folder), reader="document", name="web")], out, language="en", dev=4, test=4, log=Log(quiet=True),
        **chosen,
    )  # fmt: skip


def test_every_drop_has_its_reason_and_can_be_read_back(folder: Path, tmp_path: Path) -> None:
    target = run(folder, tmp_path / "out")["target"]
    assert target["documents"] == {"read": 62, "kept": 60, "truncated": 0}
    rows = {row["reason"]: row for row in read_dropped(tmp_path / "out", "target") if "part" not in row}
    assert set(rows) == set(target["dropped"]) == {"boilerplate", "digits"}
    assert rows["boilerplate"]["text"].startswith("Home | About")
    lines = [row for row in read_dropped(tmp_path / "out", "target") if "part" in row]
    assert [row["text"] for row in lines] == [MENU] * 60
    assert float(rows["digits"]["measured"]) > 0.3
    assert target["dropped"]["digits"]["examples"][0]["measured"] == rows["digits"]["measured"]
    assert target["filters"]["origin"] == "defaults"
    assert target["dropped_lines"]["boilerplate"]["lines"] == 60
    assert (target["mask"], target["masked"]) == (["email"], {"email": 60})
    text = next(read_split(tmp_path / "out", "target", "train")).text
    assert "Home" not in text
    assert "<EMAIL>" in text


def test_personal_data_is_masked_in_what_was_left_out_too(folder: Path, tmp_path: Path) -> None:
    (folder / "zz-mail.txt").write_text(
        "Write to somebody@post.org 12345 67890 12345 67890 12345 67890 12345 67890 12345"
    )
    run(folder, tmp_path / "out")
    (row,) = (row for row in read_dropped(tmp_path / "out", "target") if row["id"].endswith("zz-mail.txt"))
    assert row["text"].startswith("Write to <EMAIL> 12345")


def test_dropped_texts_by_reason(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "run" / "text")
    every = dropped(tmp_path / "run", examples=2)
    assert {reason: facts["documents"] for reason, facts in every["dropped"].items()} == {"boilerplate": 1, "digits": 1}
    assert every["dropped_lines"]["boilerplate"]["lines"] == 60
    assert len(every["dropped_lines"]["boilerplate"]["examples"]) == 2
    only = dropped(tmp_path / "run" / "text", reason="digits")
    assert list(only["dropped"]) == ["digits"]
    assert only["dropped_lines"] == {}
    assert only["dropped"]["digits"]["examples"][0]["text"].startswith(MENU)
    with pytest.raises(CorpusError, match="for the reason digit; did you mean `digits`"):
        dropped(tmp_path / "run", reason="digit")


def test_nothing_is_filtered_unless_asked_for(folder: Path, tmp_path: Path) -> None:
    target = run(folder, tmp_path / "out", thresholds=None, boilerplate=0, mask=())["target"]
    assert target["documents"]["kept"] == 62
    assert target["filters"] is None
    assert (target["dropped_lines"], target["masked"]) == ({}, {})
    assert MENU in next(read_split(tmp_path / "out", "target", "train")).text


def test_the_source_language_has_no_bounds_but_loses_boilerplate(folder: Path, tmp_path: Path) -> None:
    source = [Input(str(folder), reader="document", name="en")]
    side = run(folder, tmp_path / "out", source=source, source_language="en")["source"]
    assert "digits" not in side["dropped"]
    assert side["filters"] is None
    assert side["dropped_lines"]["boilerplate"]["lines"] > 0


def same(one: Path, other: Path) -> bool:
    names = [str(path.relative_to(one)) for path in one.rglob("*") if path.is_file()]
    assert names
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def test_processes_change_no_byte(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, tmp_path / "one")
    monkeypatch.setattr(module, "_IN_ONE_PROCESS", 0)
    monkeypatch.setattr(shards, "DOCUMENTS", 16)
    run(folder, tmp_path / "two", workers=2)
    assert same(tmp_path / "one", tmp_path / "two")


def test_a_run_that_was_stopped_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, tmp_path / "whole")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "find_duplicates", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "out")
    work = tmp_path / "out.work" / "target"
    counted = (work / "shared.json").stat().st_mtime_ns
    seen: list[int] = []
    with monkeypatch.context() as patch:
        find = module.find_duplicates
        patch.setattr(
            module,
            "find_duplicates",
            lambda *a, **k: seen.append((work / "shared.json").stat().st_mtime_ns) or find(*a, **k),
        )
        patch.setattr(shards, "write_shard", stop)
        run(folder, tmp_path / "out")
    assert seen == [counted]
    assert same(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize(
    "change", [{"boilerplate": 0}, {"mask": ()}, {"thresholds": defaults("en", {"digits": False})}]
)
def test_other_filters_do_not_go_on_from_old_shards(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "find_duplicates", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "out")
    run(folder, tmp_path / "out", **change)
    run(folder, tmp_path / "fresh", **change)
    assert same(tmp_path / "fresh", tmp_path / "out")
    assert read_json(tmp_path / "out" / "summary.json")["target"]["documents"]["kept"] >= 60


def test_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="emial"):
        run(folder, tmp_path / "out", mask=["emial"])
    with pytest.raises(CorpusError, match="does not exist; prepare a corpus"):
        list(read_dropped(tmp_path, "target"))
    run(folder, tmp_path / "out")
    path = tmp_path / "out" / "target" / "dropped.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match="is damaged"):
        list(read_dropped(tmp_path / "out", "target"))
