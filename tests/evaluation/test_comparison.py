"""Runs side by side: a run is better only beyond noise, and only on the same text."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Finished, langgraft
from test_report import Page

from langgraft.errors import InputError
from langgraft.evaluation.comparison import compare_runs, render_comparison, write_comparison

EXAMPLE = Path(__file__).parent / "example_report.json"


def report(mean: float = -0.29, half: float = 0.01, **changes: Any) -> dict[str, Any]:
    """The example, with another change of target bits per byte."""
    found: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    found["bits_per_byte"]["target"]["change"] = {"mean": mean, "low": mean - half, "high": mean + half}
    return {**found, **changes}


def row(found: dict[str, Any], label: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["label"].startswith(label))


def test_a_run_is_better_only_beyond_noise() -> None:
    label = "Cantonese, change against the base"
    clear = row(compare_runs([report(-0.29), report(-0.33), report(-0.2)], "abc"), label)
    assert clear["best"] == "b"
    assert clear["verdict"] == "b is better"
    close = row(compare_runs([report(-0.29), report(-0.30), report(-0.2)], "abc"), label)
    assert close["best"] is None
    assert close["verdict"] == "no measurable difference between b and a"


def test_the_verdict_says_it_for_each_language() -> None:
    found = compare_runs([report(-0.29), report(-0.33)], ["one", "two"])
    assert found["verdict"] == ("Cantonese: two is better; English: no measurable difference between one and two.")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": "another"}, "different bases"),
        ({"language": {"code": "hi", "name": "Hindi"}}, "different languages"),
        ({"bits_per_byte": {"target": {"documents": 3, "bytes": 9}}}, "different text"),
    ],
)
def test_what_cannot_be_compared_is_not(change: dict[str, Any], said: str) -> None:
    found = compare_runs([report(), report(-0.5, **change)], "ab")
    assert any(said in note for note in found["notes"])
    assert all(row["best"] is None for row in found["rows"])
    assert "cannot be ranked" in found["verdict"]


def test_measures_and_costs_are_compared_too() -> None:
    def measured(mean: float) -> dict[str, Any]:
        figure = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
        measure = {"models": {"base": figure, "adapted": figure}, "better": "higher", "chance": 0.25, "items": 100}
        return report(choice={"translation": {"to_target": measure}})

    found = compare_runs([measured(0.3), measured(0.5)], "ab")
    assert row(found, "translation into Cantonese")["best"] == "b"
    assert row(found, "Training tokens")["values"][0] > 0
    assert row(found, "Checks failed")["values"] == [0, 0]


def test_the_page_is_whole_and_the_files_are_written(tmp_path: Path) -> None:
    found = compare_runs([report(), report(-0.33), report(-0.2)], ["a<b", "b", "c"])
    page = Page(render_comparison(found))
    assert "a<b" in page.words
    assert len(page.all("svg")) == 6  # bits of both languages, a score; each for wide pages and for narrow ones
    path = write_comparison(found, tmp_path / "out")
    assert path.read_text(encoding="utf-8") == render_comparison(found)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")) == found


def test_parts_may_be_missing() -> None:
    Page(render_comparison(compare_runs([{}, {}], "ab")))
    for key in report():
        less = {name: value for name, value in report().items() if name != key}
        Page(render_comparison(compare_runs([less, report()], "ab")))


@pytest.mark.parametrize("names", [["a"], ["a", "a"], list("abcdefg")])
def test_two_to_six_different_runs(names: list[str]) -> None:
    with pytest.raises(InputError, match="between two and 6 different runs"):
        compare_runs([report()] * len(names), names)


def test_the_command_compares_runs(finished: Finished, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished.run, tmp_path / "runs" / "pico"))
    changed = copy.deepcopy(json.loads((other / "report.json").read_text(encoding="utf-8")))
    change = changed["bits_per_byte"]["target"]["change"]
    changed["bits_per_byte"]["target"]["change"] = {
        key: value - 0.9 if isinstance(value, float) else value for key, value in change.items()
    }
    (other / "report.json").write_text(json.dumps(changed), encoding="utf-8")
    done = langgraft("show", finished.run, other, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert "/runs/pico is better; English: no measurable difference" in done.err
    assert (tmp_path / "out" / "comparison.html").is_file()
    assert json.loads(done.out)["runs"][1] == f"{tmp_path.name}/runs/pico"
    one = langgraft("show", finished.run, "--json")
    assert json.loads(one.out)["schema"] == 1
