"""The evaluate stage: figures of both languages, gates, generations; without source text too."""

import gzip
import json
from pathlib import Path

from command import Finished, langgraft

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


def test_a_killed_evaluation_goes_on_to_the_same_results(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("export",))
    folder = copy.stage("evaluate")
    whole = (folder / "results.json").read_text(encoding="utf-8")
    kept, cut = (folder / "scores" / f"{name}-bits_per_byte-target.jsonl" for name in ("base", "adapted"))
    before, lines = kept.stat(), cut.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:8]) + lines[8][:10])
    for name in ("results.json", "stage.json"):
        (folder / name).unlink()
    done = copy.again("--until", "evaluate")
    assert done.code == 0, done.err
    assert "evaluate: did not finish; goes on where it stopped" in done.err
    assert (folder / "results.json").read_text(encoding="utf-8") == whole
    assert cut.read_bytes().splitlines()[0] == lines[0].rstrip()
    assert sorted(cut.read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert kept.stat().st_size == before.st_size


def test_choice_and_minimal_pairs_reach_the_report(finished: Finished, tmp_path: Path) -> None:
    pairs = [{"good": f"she sees {i} of them", "bad": f"she see {i} of them"} for i in range(20)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    copy = finished.copy(tmp_path / "runs", without=("evaluate", "export"))
    done = copy.again("--until", "evaluate", "--set", f'evaluate.minimal_pairs=["{file}"]')
    assert done.code == 0, done.err
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    assert report["minimal_pairs"]["pairs"]["items"] == 20
    file.write_text("\n".join(map(json.dumps, pairs[:10])), encoding="utf-8")
    planned = langgraft("plan", copy.recipe, "--runs", copy.runs, "--set", f'evaluate.minimal_pairs=["{file}"]')
    assert f"evaluate {file} has other content" in planned.err
