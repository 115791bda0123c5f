"""The evaluate stage: figures of both languages, gates, generations; without source text too."""

import gzip
import json
from pathlib import Path

from command import Finished


def test_results_are_in_the_folder_and_in_the_report(finished: Finished) -> None:
    results = json.loads((finished.stage("evaluate") / "results.json").read_text(encoding="utf-8"))
    report = json.loads((finished.run / "report.json").read_text(encoding="utf-8"))
    for key in ("bits_per_byte", "tokens", "generations"):
        assert results[key] == report[key]
    assert results["bits_per_byte"]["target"]["documents"] == 20
    assert [(entry["language"], entry["prompt"]) for entry in results["generations"]] == [
        ("yue", "我今日"),
        ("en", "The quick"),
    ]
    assert all(entry["base"] and entry["adapted"] for entry in results["generations"])


def test_a_source_without_test_documents_is_left_out(finished: Finished, tmp_path: Path) -> None:
    """All source text may be replay; then there is nothing to measure forgetting on."""
    copy = finished.copy(tmp_path, without=("evaluate", "export"))
    corpus = copy.stage("corpus") / "text" / "source" / "test.jsonl.gz"
    corpus.write_bytes(gzip.compress(b""))
    assert copy.again("--until", "evaluate").code == 0
    results = json.loads((copy.stage("evaluate") / "results.json").read_text(encoding="utf-8"))
    assert set(results["bits_per_byte"]) == {"target"}
    assert results["gates"] == []
