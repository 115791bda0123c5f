"""The corpus stage: what it leaves in its folder, and what the report takes from it."""

import json

from command import Finished

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
