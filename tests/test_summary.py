"""The report of a run that is only partly done, and figures that are sums over splits."""

import json

from command import Finished

from langgraft.pipeline import plan
from langgraft.recipe_file import load_recipe
from langgraft.runs import MARKER, machine, versions
from langgraft.summary import collect


def folders(finished: Finished) -> dict:
    return {item.stage.name: item.folder for item in plan(load_recipe(finished.recipe), finished.runs)}


def test_sections_appear_with_their_stages(finished: Finished) -> None:
    recipe, found = load_recipe(finished.recipe), folders(finished)
    expected = {
        "corpus": "corpus",
        "tokenizer": "tokenizer",
        "pretrain": "training",
        "evaluate": "tokens",
        "export": "export",
    }
    for count in range(len(found) + 1):
        done = dict(list(found.items())[:count])
        report = collect(recipe, done)
        for stage, section in expected.items():
            assert (section in report) == (stage in done)
        assert len(report["stages"]) == count


def test_counts_are_sums_over_the_splits(finished: Finished) -> None:
    report = collect(load_recipe(finished.recipe), folders(finished))
    assert report["corpus"]["target"]["documents"] == 400
    assert report["corpus"]["target"]["licenses"] == {"CC0-1.0": 400}
    assert report["corpus"]["target"]["invalid_utf8"] == 0
    assert [point["step"] for point in report["training"]["curve"]] == list(range(1, 13))
    assert report["machine"]["device"] == "cpu"


def test_gates_name_their_stage(finished: Finished) -> None:
    gates = collect(load_recipe(finished.recipe), folders(finished))["gates"]
    assert {gate["stage"] for gate in gates} == {"tokenizer", "surgery", "evaluate", "export"}


def test_the_marker_says_what_it_was_made_from(finished: Finished) -> None:
    marker = json.loads((finished.stage("pretrain") / MARKER).read_text(encoding="utf-8"))
    assert marker["record"]["fields"]["pretrain.tokens"] == 1536
    assert set(marker["record"]["needs"]) == {"corpus", "surgery"}
    assert marker["options"]["weight_decay"] == 0.1
    assert marker["versions"] == versions()
    assert not any(key.startswith("compute") for key in marker["record"]["fields"])


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0
    assert found["cpu"]
