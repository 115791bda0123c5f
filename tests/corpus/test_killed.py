"""Killed at any step of `prepare` and run again: the same bytes as without, and nothing left over."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langgraft.corpus import shards
from langgraft.corpus.document import Input
from langgraft.corpus.prepare import prepare
from langgraft.errors import WorkerError
from langgraft.progress import Log

# The module and function at whose nth call the process dies.
MOMENTS = {
    "reading": ("langgraft.corpus.shards", "_is_ready", 3),
    "evaluation texts": ("langgraft.corpus.prepare", "index", 1),
    "cleaning": ("langgraft.corpus.clean", "normalise", 150),
    "writing a shard": ("langgraft.corpus.shards", "signatures", 4),
    "bands": ("langgraft.corpus.dedup", "bands", 2),
    "comparing": ("langgraft.corpus.dedup", "jaccard", 3),
    "keeping": ("langgraft.corpus.output", "line_of", 5),
    "splits": ("langgraft.corpus.output", "utf8_bytes", 20),
    "gate": ("langgraft.corpus.prepare", "check_leaks", 1),
    "summary": ("langgraft.corpus.prepare", "write_json", 1),
    "renaming": ("langgraft.store", "fsync_tree", 7),
}
SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import importlib
from pathlib import Path
from test_killed import corpus, small_shards
module, name, count = importlib.import_module(sys.argv[3]), sys.argv[4], int(sys.argv[5])
original, calls = getattr(module, name), 0
def replaced(*given, **options):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given, **options)
setattr(module, name, replaced)
small_shards()
corpus(Path(sys.argv[2]))
"""


def small_shards() -> None:
    """Shards of 50 documents."""
    shards.DOCUMENTS = 50


def corpus(folder: Path, **options: Any) -> dict[str, Any]:
    return prepare(
        [Input(str(folder / "a.jsonl")), Input(str(folder / "b.txt"), encoding="utf-8")],
        folder / "out",
        language="en",
        decontaminate=[str(folder / "bench.txt")],
        seed=3,
        log=Log(quiet=True),
        **options,
    )


def inputs(folder: Path) -> None:
    """200 documents with exact and near duplicates, some overlap with an evaluation set, and bad bytes."""
    rng = random.Random(0)
    words = ["the", "of", "and", "to", "in", "is", "was", "for", "on", "that", "by", "this", "with", "people", "they"]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(120)]
    texts += [texts[i] + " indeed" for i in range(40)] + texts[40:60] + ["short"] * 20
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[::2]))
    (folder / "b.txt").write_bytes("\n".join(texts[1::2]).encode() + b"\n\xff\xfe\n")
    (folder / "bench.txt").write_text(texts[7] + "\n")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the result; paths in it are made those of one folder."""
    out = {p.relative_to(folder / "out"): p for p in (folder / "out").rglob("*") if p.is_file()}
    return {str(name): path.read_bytes() for name, path in sorted(out.items())}


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(shards, "DOCUMENTS", 50)
    inputs(tmp_path)
    summary = corpus(tmp_path)["target"]
    assert {"duplicate", "near_duplicate", "contaminated"} <= set(summary["dropped"])
    assert summary["invalid_utf8"]["count"] == 1
    return content(tmp_path)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_killed_at_each_step_and_run_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    after = left(tmp_path)
    for moment, (module, name, count) in MOMENTS.items():
        killed = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path), module, name, str(count)],
            capture_output=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr.decode())
        # What an earlier run made is whole, whenever this one died.
        assert content(tmp_path) == whole, moment
        assert (tmp_path / "out.work").is_dir(), moment
        corpus(tmp_path)
        assert content(tmp_path) == whole, moment
        assert left(tmp_path) == after, moment


def test_shards_that_are_done_are_not_made_again(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    write = shards.write_shard

    def dies(folder: Path, *given: Any, **options: Any) -> None:
        made.append(folder.name)
        if len(made) == 3:
            raise KeyboardInterrupt
        write(folder, *given, **options)

    monkeypatch.setattr(shards, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        corpus(tmp_path)
    corpus(tmp_path)
    assert made == ["000000", "000001", "000002", "000002", "000003"]
    assert content(tmp_path) == whole


def test_a_worker_that_dies_is_an_error_that_keeps_the_shards(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from langgraft.corpus import prepare as module

    monkeypatch.setattr(module, "_IN_ONE_PROCESS", 0)
    assert corpus(tmp_path, workers=2)
    assert content(tmp_path) == whole
    monkeypatch.setattr(shards, "_work", _die)
    with pytest.raises(WorkerError, match="a process that cleans text ended before its work"):
        corpus(tmp_path, workers=2)
    assert (tmp_path / "out.work").is_dir()
    monkeypatch.undo()
    monkeypatch.setattr(shards, "DOCUMENTS", 50)
    corpus(tmp_path)
    assert content(tmp_path) == whole


def _die(*_: Any) -> None:
    import os

    os._exit(9)
