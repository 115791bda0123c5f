"""The evaluate stage: figures of both languages, gates, generations; without source text too."""

import gzip
import json
from pathlib import Path

from command import Finished

from langgraft.evaluation.prompts import KINDS


def test_results_are_in_the_folder_and_in_the_report(finished: Finished) -> None:
    results = json.loads((finished.stage("evaluate") / "results.json").read_text(encoding="utf-8"))
    report = json.loads((finished.run / "report.json").read_text(encoding="utf-8"))
    for key in ("bits_per_byte", "tokens", "generations"):
        assert results[key] == report[key]
    assert results["bits_per_byte"]["target"]["documents"] == 20
    prompts = [(entry["language"], entry["prompt"], entry.get("kind")) for entry in results["generations"]]
    assert prompts[0] == ("yue", "我今日", None)
    assert [kind for _, _, kind in prompts[1:9]] == [kind for kind in KINDS for _ in range(2)]
    assert prompts[9] == ("en", "The quick", None)
    assert len(prompts) == 13
    for entry in results["generations"]:
        assert set(entry["written_in"]) == {"base", "surgery", "adapted"}
    assert all(isinstance(entry[kind], str) for entry in results["generations"] for kind in entry["written_in"])


def test_a_source_without_test_documents_is_left_out(finished: Finished, tmp_path: Path) -> None:
    """All source text may be replay; then there is nothing to measure forgetting on."""
    copy = finished.copy(tmp_path, without=("evaluate", "export"))
    corpus = copy.stage("corpus") / "text" / "source" / "test.jsonl.gz"
    corpus.write_bytes(gzip.compress(b""))
    assert copy.again("--until", "evaluate").code == 0
    results = json.loads((copy.stage("evaluate") / "results.json").read_text(encoding="utf-8"))
    assert set(results["bits_per_byte"]) == {"target"}
    assert results["gates"] == []


def test_a_file_of_prompts_counts_by_its_content(finished: Finished, tmp_path: Path) -> None:
    copy, file = finished.copy(tmp_path, without=("export",)), tmp_path / "prompts.toml"
    more = ("--until", "evaluate", "--set", f"evaluate.prompts.file={json.dumps(str(file))}")
    less = ("--set", "evaluate.prompts.shipped=false", "--set", "evaluate.documents=2")
    missing = copy.again(*more, *less)
    assert missing.code == 2
    assert "does not exist" in missing.sentence()
    file.write_text('[[yue]]\nkind = "poem"\ntext = "落雨大"\n', encoding="utf-8")
    assert "kind must be one of" in copy.again(*more, *less).sentence()
    file.write_text('[[yue]]\nkind = "continuation"\ntext = "落雨大"\n', encoding="utf-8")
    assert copy.again(*more, *less).code == 0
    results = json.loads((copy.stage("evaluate") / "results.json").read_text(encoding="utf-8"))
    assert [entry["prompt"] for entry in results["generations"]] == ["我今日", "落雨大", "The quick"]
