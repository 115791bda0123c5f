"""A run's report as a model card: model-index that the hub's own tools read back, figures that are the report's."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import Finished
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from langgraft.errors import ModelError
from langgraft.exporting.card import model_card
from langgraft.exporting.card_facts import facts_of, write_run_card
from langgraft.exporting.manifest import manifest_gates, read_manifest

EXAMPLE = Path(__file__).parent.parent / "evaluation" / "example_report.json"


@pytest.fixture
def example() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return loaded


def test_the_hubs_tools_read_the_results_back(pico: Path, example: dict[str, Any]) -> None:
    card = ModelCard(model_card(pico, facts_of(example)))
    results = card.data.eval_results or []
    assert card.data.model_name == example["name"]
    first = results[0]
    assert (first.metric_type, first.dataset_config, first.dataset_split) == ("bits_per_byte", "yue", "test")
    assert first.metric_value == example["bits_per_byte"]["target"]["adapted"]["mean"]
    assert first.metric_args["interval_95_low"] == example["bits_per_byte"]["target"]["adapted"]["low"]
    names = {(result.task_type, result.metric_type) for result in results}
    assert names == {
        ("text-generation", "bits_per_byte"), ("multiple-choice", "accuracy"), ("text-classification", "accuracy"),
        ("text-generation", "acc"), ("translation", "chrf"), ("translation", "bleu"), ("summarization", "chrf"),
        ("summarization", "rouge_l"),
    }  # fmt: skip
    bleu = next(result for result in results if result.metric_type == "bleu")
    assert bleu.dataset_name == "held-out parallel text, English to Cantonese"
    assert bleu.metric_args["signature"] == example["translation"]["to_target"]["bleu"]["signature"]
    assert "agreement, minimal pairs" in {result.dataset_name for result in results}
    _, again = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert again == results
    named = {(result.unique_identifier, result.metric_type) for result in results}
    assert len(named) == len(results)


def test_facts_are_the_reports_figures(example: dict[str, Any]) -> None:
    facts = facts_of(example)
    assert facts["language"] == ["yue", "en"]
    assert "base_model" not in facts  # package:… is no hub id
    assert facts_of({**example, "base": "owner/base"})["base_model"] == "owner/base"
    target = example["bits_per_byte"]["target"]
    row = facts["bits_per_byte"][0]
    assert row["low"] == pytest.approx(target["change"]["low"] * target["base"]["mean"])
    assert {gate["passed"] for gate in facts["gates"]} == {True}


@pytest.mark.parametrize("key", [None, *json.loads(EXAMPLE.read_text(encoding="utf-8"))])
def test_any_section_may_be_missing(pico: Path, example: dict[str, Any], key: str | None) -> None:
    report = {} if key is None else {name: value for name, value in example.items() if name != key}
    assert ModelCard(model_card(pico, facts_of(report))).data.library_name == "transformers"


def test_a_finished_run_has_its_card_beside_the_weights(finished: Finished) -> None:
    folder = finished.stage("export") / "hf"
    card = ModelCard.load(folder / "README.md")
    report = json.loads((finished.run / "report.json").read_text(encoding="utf-8"))
    assert (card.data.eval_results or [])[0].metric_value == pytest.approx(
        report["bits_per_byte"]["target"]["adapted"]["mean"], abs=1e-6
    )
    assert all(gate["passed"] for gate in manifest_gates(folder))
    assert "README.md" in read_manifest(folder)["files"]
    before = (folder / "README.md").stat().st_mtime_ns
    assert write_run_card(report, folder) == folder / "README.md"
    assert (folder / "README.md").stat().st_mtime_ns == before


def test_a_result_without_a_metric_is_refused(pico: Path) -> None:
    with pytest.raises(ModelError, match="entry 1 of `results` lacks"):
        model_card(pico, {"results": [{"task_type": "a"}]})
