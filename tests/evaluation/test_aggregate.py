"""Runs with other seeds taken together: mean, spread, intervals over runs and documents; nothing else may differ."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Finished, langgraft
from test_comparison import report, row
from test_report import Page

from langgraft.errors import InputError
from langgraft.evaluation.aggregate import aggregate_runs, over_runs, render_aggregate, write_aggregate

LABEL = "Cantonese, change against the base"


def seeds(count: int) -> list[dict[str, Any]]:
    return [{"pretrain.seed": number, "pretrain.tokens": 9} for number in range(count)]


def test_mean_spread_and_interval_over_runs() -> None:
    """t of two degrees of freedom is 4.303: by hand for three runs, with and without their own intervals."""
    assert over_runs([0.72, 0.72, 0.72])["spread"] == 0
    plain = over_runs([0.1, 0.2, 0.3])
    assert plain["mean"] == pytest.approx(0.2)
    assert plain["spread"] == pytest.approx(0.1)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert plain["high"] - plain["mean"] == pytest.approx(half, rel=1e-6)
    wider = over_runs([{"mean": x, "low": x - 0.3, "high": x + 0.3} for x in (0.1, 0.2, 0.3)])
    assert wider["high"] - wider["mean"] == pytest.approx(math.hypot(half, 0.3))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Runs share their documents: a mean over runs keeps the documents' error, which t alone would not see."""
    rng = np.random.default_rng(0)
    hits = {"with": 0, "without": 0}
    for _ in range(400):
        shared = rng.normal(0, 1)
        means = shared + rng.normal(0, 0.3, 4)
        found = over_runs([{"mean": m, "low": m - 1.96, "high": m + 1.96} for m in means])
        hits["with"] += found["low"] <= 0 <= found["high"]
        alone = over_runs(list(means))
        hits["without"] += alone["low"] <= 0 <= alone["high"]
    assert hits["with"] >= 0.93 * 400
    assert hits["without"] < 0.75 * 400


def test_a_change_within_noise_is_called_none() -> None:
    clear = aggregate_runs([report(-0.29), report(-0.30), report(-0.28)], "abc", seeds(3))
    assert row(clear, LABEL)["change"]["verdict"] == "gain"
    assert "Cantonese: better, −29.0% bits per byte" in clear["verdict"]
    noisy = aggregate_runs([report(-0.29), report(0.2), report(-0.1)], "abc", seeds(3))
    assert row(noisy, LABEL)["change"]["verdict"] == "no measurable difference"
    assert "Cantonese: no measurable difference" in noisy["verdict"]
    chrf = row(clear, "into Cantonese, chrF")
    assert chrf["values"] == [19.5] * 3
    assert chrf["spread"] == 0
    assert chrf["change"]["verdict"] == "gain"
    assert clear["seeds"]["b"] == {"pretrain.seed": 1}
    assert row(clear, "Training time")["change"] is None


def test_runs_that_differ_in_more_than_seeds_are_refused() -> None:
    other = [{"pretrain.seed": 1}, {"pretrain.seed": 2, "pretrain.learning_rate": 0.1}]
    with pytest.raises(InputError, match=r"pretrain.learning_rate is the default, 0.1; leave out --aggregate"):
        aggregate_runs([report(), report()], "ab", other)
    for names in (["a"], ["a", "a"]):
        with pytest.raises(InputError, match="two or more different runs"):
            aggregate_runs([report()] * len(names), names)
    same = aggregate_runs([report(), report()], "ab", [{"pretrain.seed": 1}] * 2)
    assert any("same seeds" in note for note in same["notes"])


def test_figures_that_a_run_lacks_have_no_mean(tmp_path: Path) -> None:
    less = {key: value for key, value in report().items() if key != "translation"}
    found = aggregate_runs([less, report()], ["a<b", "c"], seeds(2))
    chrf = row(found, "into Cantonese, chrF")
    assert (chrf["mean"], chrf["change"]) == (None, None)
    page = Page(render_aggregate(found))
    assert "a<b" in page.words
    assert "pretrain.seed 1" in page.words
    assert "better +22.0 points" in page.words
    path = write_aggregate(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "aggregate.json").read_text(encoding="utf-8")) == found
    assert path.name == "aggregate.html"
    Page(render_aggregate(aggregate_runs([{}, {}], "ab")))


def test_the_command_takes_runs_together(finished: Finished, tmp_path: Path) -> None:
    others = [Path(shutil.copytree(finished.run, tmp_path / f"seed-{number}")) for number in (1, 2)]
    for number, other in enumerate(others, start=1):
        (marker,) = other.glob("pretrain-*/stage.json")
        changed = json.loads(marker.read_text(encoding="utf-8"))
        changed["record"]["fields"]["pretrain.seed"] = number
        marker.write_text(json.dumps(changed), encoding="utf-8")
    done = langgraft("show", finished.run, *others, "--aggregate", "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["seeds"]["seed-2"] == {"pretrain.seed": 2}
    assert "3 runs. Cantonese: " in done.err
    assert (tmp_path / "out" / "aggregate.html").is_file()
    changed["record"]["fields"]["pretrain.tokens"] = 3
    marker.write_text(json.dumps(changed), encoding="utf-8")
    refused = langgraft("show", finished.run, *others, "--aggregate", "-o", tmp_path / "out")
    assert refused.code == 2
    assert "differ in more than their seeds: pretrain.tokens" in refused.sentence()
