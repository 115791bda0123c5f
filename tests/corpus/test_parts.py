"""A corpus cleaned in parts, by several machines or by datatrove's tasks: the bytes of one machine alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_killed import content, corpus, inputs, left

from langgraft.corpus import clean, shards
from langgraft.corpus.clean import Cleaner, Settings
from langgraft.corpus.document import Document, Input
from langgraft.corpus.filters import Bounds, Thresholds
from langgraft.corpus.part import Part, cores
from langgraft.errors import BusyError, InputError
from langgraft.store import lock


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What one process makes; the text and the folder's name are there to be used again."""
    monkeypatch.setattr(shards, "DOCUMENTS", 30)
    inputs(tmp_path)
    corpus(tmp_path)
    return content(tmp_path)


def test_parts_in_any_order_and_one_call_that_joins_them(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left(tmp_path)
    read = [corpus(tmp_path, part=Part(number, 3))["target"]["documents"]["read"] for number in (3, 1, 2)]
    assert content(tmp_path) == whole, "a part writes shards and nothing else"
    assert sum(read) == 200
    assert all(60 <= n <= 80 for n in read)
    monkeypatch.setattr(clean, "normalise", None)  # whatever cleaned a document now would fail
    corpus(tmp_path)
    assert content(tmp_path) == whole
    assert left(tmp_path) == before


def test_what_a_part_left_out_is_cleaned_at_the_end(tmp_path: Path, whole: dict[str, bytes]) -> None:
    corpus(tmp_path, part=Part(2, 4))
    assert len(list((tmp_path / "out.work" / "target" / "shards").iterdir())) == 2
    corpus(tmp_path)
    assert content(tmp_path) == whole


def test_parts_share_the_folder_and_keep_others_out(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with lock(tmp_path / "out.work", what="corpus, part 1/2", shared=True):
        corpus(tmp_path, part=Part(2, 2))
        with pytest.raises(BusyError):
            corpus(tmp_path)
    with lock(tmp_path / "out.work", what="corpus"), pytest.raises(BusyError, match="in use by process"):
        corpus(tmp_path, part=Part(2, 2))
    corpus(tmp_path)
    assert content(tmp_path) == whole


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/4", "1/0", "-1/4", "1/2/3"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="write which of how many, such as 3/16"):
        Part.parse(text)


def test_every_shard_has_one_part() -> None:
    parts = [Part.parse(f"{number}/4") for number in range(1, 5)]
    assert [[str(part) for part in parts if part.has(shard)] for shard in (0, 3, 4)] == [["1/4"], ["4/4"], ["1/4"]]
    assert cores() >= 1


def test_datatrove_tasks_make_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    local = pytest.importorskip("datatrove.executor.local")
    from langgraft.corpus.datatrove_steps import Prepare

    step = Prepare(
        [Input(str(tmp_path / "a.jsonl")), Input(str(tmp_path / "b.txt"), encoding="utf-8")],
        tmp_path / "out",
        language="en",
        decontaminate=[str(tmp_path / "bench.txt")],
        seed=3,
    )
    # By fork, so that the tasks know of the small shards.
    tasks = local.LocalPipelineExecutor([step], tasks=2, start_method="fork", logging_dir=str(tmp_path / "log/tasks"))
    join = local.LocalPipelineExecutor([step], tasks=1, depends=tasks, logging_dir=str(tmp_path / "log/join"))
    (tmp_path / "out").rename(tmp_path / "by-one")
    join.run()
    assert content(tmp_path) == whole
    stats = json.loads((tmp_path / "log/tasks/stats.json").read_text())[0]["stats"]
    assert stats["target_read"]["total"] == 200
    assert stats["target_read"]["n"] == 2, "both tasks had shards to clean"


def test_the_datatrove_step_cleans_as_we_do(tmp_path: Path) -> None:
    local = pytest.importorskip("datatrove.executor.local")
    from datatrove.data import Document as Record
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    from langgraft.corpus.datatrove_steps import Clean

    bounds = Thresholds("yue", {"digits": Bounds(high=0.3)})
    settings = Settings("yue", min_characters=5, thresholds=bounds, mask=("email",))
    texts = {
        "kept": "我哋今日去邊度食飯呀？佢話聽日會落雨，所以唔去行山喇。",
        "masked": "有咩問題就寄電郵去 chan@bookshop.hk 搵我哋嘅同事啦，佢哋會好快覆你㗎。",
        "mixed": "我琴日喺街市買咗三斤菜心同埋一條魚。\nThis line of the page is written in the English language.",
        "english": "The quick brown fox jumps over the lazy dog, and then it sleeps until the next morning.",
        "digits": "佢哋話 1234567890 1234567890 係電話號碼嚟㗎。" * 20,
        "short": "好。",
    }
    wanted: dict[str, Any] = {}
    for name, text in texts.items():
        *_, last = Cleaner(settings)(Document(text, name, "yue", "shop", ""))
        wanted[name] = last.text if isinstance(last, Document) else last.reason
    excluded = JsonlWriter(str(tmp_path / "excluded"), compression=None)
    written = JsonlWriter(str(tmp_path / "kept"), compression=None)
    records = [Record(text, name, metadata={"source": "shop"}) for name, text in texts.items()]
    local.LocalPipelineExecutor(
        [records, Clean(settings, excluded), written], tasks=1, logging_dir=str(tmp_path / "log")
    ).run()
    found = {}
    for folder, key in (("kept", None), ("excluded", "filter_reason")):
        for line in (tmp_path / folder / "00000.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert row["metadata"]["source"] == "shop"
            found[row["id"]] = row["metadata"][key] if key else row["text"]
    assert found == wanted
    assert (wanted["english"], wanted["digits"], wanted["short"]) == ("script", "digits", "too_short")
    assert "English" not in wanted["mixed"]
    assert "chan@" not in wanted["masked"]
