"""A corpus from end to end."""

import filecmp
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pico import CANTONESE, ENGLISH

from langgraft.corpus import prepare as module
from langgraft.corpus.document import Input
from langgraft.corpus.prepare import prepare, read_split
from langgraft.corpus.split import SPLITS
from langgraft.errors import CorpusError, GateError, InputError
from langgraft.progress import Log

MANDARIN = "他們沒有說這是什麼時候的事。"
LONG = "香港嘅夜景真係好靚，好多人都鍾意影相，我哋今日去邊度食飯呀，聽日會唔會落雨都未知。"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    target = tmp_path / "yue.txt"
    lines = [f"第{i}個{text[:12]}" for i in range(20) for text in CANTONESE]
    junk = [
        lines[0] + "！",
        LONG,
        LONG + "啦",
        MANDARIN,
        "English only here",
        "\ufffd\ufffd壞咗",
        "\u200b\u200b",
        "好",
    ]
    target.write_bytes("\n".join([*lines, *junk]).encode() + b"\n\xff\n")
    source = tmp_path / "en.jsonl.gz"
    rows = [json.dumps({"text": f"{text} Of {i} people {i * 7} are {i * 11}."}) for i in range(8) for text in ENGLISH]
    source.write_bytes(gzip.compress("\n".join(rows).encode()))
    return {"target": target, "source": source}


def run(files: dict[str, Path], out: Path, **options: Any) -> dict[str, Any]:
    return prepare(
        [Input(str(files["target"]), license="CC0-1.0", name="t")],
        out,
        **{
            "language": "yue",
            "source": [Input(str(files["source"]), license="MIT", name="s")],
            "min_characters": 2,
            "dev": 5,
            "test": 0.1,
            "log": Log(quiet=True),
            **options,
        },
    )


def test_end_to_end(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(files, out)
    assert summary == json.loads((out / "summary.json").read_text())
    target = summary["target"]
    assert target["documents"] == {"read": 128, "kept": 121, "truncated": 0}
    assert {reason: row["documents"] for reason, row in target["dropped"].items()} == {
        "duplicate": 1,
        "near_duplicate": 1,
        "written_chinese": 1,
        "script": 1,
        "unreadable": 1,
        "empty": 1,
        "too_short": 1,
    }
    assert target["dropped"]["near_duplicate"]["examples"][0]["duplicate_of"] == "t/yue.txt:122"
    assert target["invalid_utf8"] == {"count": 1, "where": [f"{files['target']}:129"]}
    assert {name: size["documents"] for name, size in target["splits"].items()} == {
        "train": 104,
        "dev": 5,
        "test": 12,
    }
    assert target["licenses"] == {"CC0-1.0": 121}
    assert target["near_duplicates"] == {"clusters": 1, "dropped": 1, "largest": 2}
    assert target["leaks"] == summary["source"]["leaks"] == 0
    with gzip.open(out / "target" / "dropped.jsonl.gz", "rt", encoding="utf-8") as dropped:
        assert len(list(dropped)) == 7
    found = [d for name in SPLITS for d in read_split(out, "target", name)]
    assert len({d.id for d in found}) == 121
    assert sum(len(d.text.encode()) for d in found) == sum(s["bytes"] for s in target["splits"].values())
    assert sorted(path.name for path in (out / "source").iterdir()) == [
        *("dev.jsonl.gz", "dropped.jsonl.gz", "test.jsonl.gz", "train.jsonl.gz")
    ]


def test_same_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(files, tmp_path / name)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert filecmp.cmp(path, other, shallow=False), path
    run(files, tmp_path / "three", seed=1)
    assert [d.id for d in read_split(tmp_path / "one", "target", "test")] != [
        d.id for d in read_split(tmp_path / "three", "target", "test")
    ]


def test_limits(files: dict[str, Path], tmp_path: Path) -> None:
    summary = run(files, tmp_path / "out", max_documents=20, max_characters=12, source=())
    assert summary["source"] is None
    assert summary["target"]["documents"]["kept"] == 20
    assert summary["target"]["documents"]["truncated"] > 0
    assert all(len(d.text) <= 12 for d in read_split(tmp_path / "out", "target", "train"))


def test_near_duplicates_can_stay(files: dict[str, Path], tmp_path: Path) -> None:
    summary = run(files, tmp_path / "out", near_duplicates=False)
    assert "near_duplicate" not in summary["target"]["dropped"]


def test_wrong_language_leaves_nothing_behind(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"not Cantonese \(yue\): only 0 of 48 documents .* English \(\d+\)"):
        run({**files, "target": files["source"]}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CorpusError, match="the text is not English"):
        run({**files, "source": files["target"]}, tmp_path / "out")


def test_nothing_left(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nothing is left of .*yue\.txt: all 128 documents .*too_short 126"):
        run(files, tmp_path / "out", min_characters=500)
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(CorpusError, match="no document in"):
        run({**files, "source": empty}, tmp_path / "out")


def test_unknown_language(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown language 'yux'"):
        run(files, tmp_path / "out", language="yux")


def test_leak_is_a_failed_gate(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_leaks", lambda *_, **__: 3)
    with pytest.raises(GateError, match="3 training documents in yue repeat"):
        run(files, tmp_path / "out")


def test_read_split_errors(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist; prepare a corpus"):
        list(read_split(tmp_path, "target", "train"))
    run(files, tmp_path / "out")
    path = tmp_path / "out" / "target" / "train.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorpusError, match="is damaged"):
        list(read_split(tmp_path / "out", "target", "train"))


def test_progress_is_said(files: dict[str, Path], tmp_path: Path) -> None:
    files["target"].write_text("\n".join(f"我哋有{i}個人喺度" for i in range(2500)))
    log = Log(tmp_path / "log.txt", quiet=True)
    run(files, tmp_path / "out", log=log)
    assert "Cantonese: 2,500 documents read, 2,500 kept" in (tmp_path / "log.txt").read_text()
