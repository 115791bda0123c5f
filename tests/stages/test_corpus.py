"""The corpus stage: what it leaves in its folder, and what the report takes from it."""

import json
from pathlib import Path

from command import Finished, langgraft

from langgraft.corpus.prepare import read_split


def test_splits_lie_in_the_folder_and_are_counted(finished: Finished) -> None:
    folder = finished.stage("corpus")
    sizes = {name: len(list(read_split(folder / "text", "target", name))) for name in ("train", "dev", "test")}
    assert sizes == {"train": 360, "dev": 20, "test": 20}
    marker = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    assert {name: split["documents"] for name, split in marker["summary"]["target"]["splits"].items()} == sizes
    assert marker["summary"]["source"]["splits"]["test"]["documents"] == 6


def test_documents_carry_language_source_and_licence(finished: Finished) -> None:
    document = next(read_split(finished.stage("corpus") / "text", "target", "test"))
    assert (document.language, document.license) == ("yue", "CC0-1.0")
    assert document.source


def test_filters_of_the_recipe_reach_the_corpus(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("tokenizer", "surgery", "pretrain", "evaluate", "export"))
    bounds = "corpus.filters.bounds.digits=['', 0.0]"
    done = copy.again("--set", bounds, "--set", "corpus.mask=['all']", "--until", "corpus")
    assert done.code == 0, done.err
    text = copy.stage("corpus") / "text"
    summary = json.loads((text / "summary.json").read_text(encoding="utf-8"))
    assert summary["target"]["filters"]["bounds"]["digits"] == [None, 0.0]
    assert summary["source"]["filters"] is None
    assert "phone" in summary["source"]["mask"]
    assert "corpus.html" in done.err
    assert (text / "README.md").read_text(encoding="utf-8").startswith("---\nlanguage:\n- yue\n- en\n")


def test_files_the_bounds_come_from_are_part_of_the_fingerprint(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("tokenizer", "surgery", "pretrain", "evaluate", "export"))
    config = tmp_path / "yue.yml"
    chosen = ("--set", f"corpus.filters.fineweb={config}")
    missing = copy.again(*chosen, "--until", "corpus")
    assert (missing.code, "yue.yml does not exist" in missing.err) == (2, True)
    config.write_text("new_line_ratio: 0.3\n")
    assert copy.again(*chosen, "--until", "corpus").code == 0
    config.write_text("new_line_ratio: 0.4\n")
    plan = langgraft("plan", copy.recipe, "--runs", copy.runs, *chosen)
    assert "corpus.filters.fineweb" in plan.out + plan.err
