"""The pretrain stage: every field of the section reaches the training loop, and replay of each kind works."""

import json
from pathlib import Path

import pytest
from command import Finished

from langgraft.errors import RecipeError
from langgraft.recipe import Pretrain, Recipe
from langgraft.stages import pretrain as stage
from langgraft.stages.pretrain import _check_names, _settings


def test_budget_is_rounded_up_to_whole_steps() -> None:
    settings = _settings(Pretrain(tokens=1000, sequence_length=32, batch_tokens=128))
    assert (settings.steps, settings.length, settings.batch_rows) == (8, 32, 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 7e-4),
        ("new_rows_learning_rate", 7e-3),
        ("old_rows_learning_rate", 7e-5),
        ("weight_decay", 0.7),
        ("gradient_clip", 0.7),
        ("schedule", "cosine"),
        ("warmup", 0.7),
        ("decay", 0.7),
        ("replay_ratio", 0.7),
        ("seed", 7),
    ],
)
def test_fields_reach_the_loop(field: str, value: object) -> None:
    assert getattr(_settings(Pretrain(**{field: value})), field) == value
    assert getattr(_settings(Pretrain()), field) != value


def test_no_replay_has_ratio_zero() -> None:
    assert _settings(Pretrain(replay="none")).replay_ratio == 0.0


@pytest.mark.parametrize(("replay", "ratio"), [("self", 0.25), ("corpus", 0.25), ("none", 0.0)])
def test_every_kind_of_replay_trains(finished: Finished, tmp_path: Path, replay: str, ratio: float) -> None:
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    done = copy.again("--set", f"pretrain.replay={replay}", "--set", "pretrain.tokens=256", "--until", "pretrain")
    assert done.code == 0, done.err
    assert (copy.stage("pretrain") / "packed" / "replay").is_dir() == (replay != "none")
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["replay_ratio"] == ratio
    assert [point["step"] for point in report["training"]["curve"]] == [1, 2]


def test_self_written_replay_is_kept_for_other_settings(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    kept = sorted(path.name for path in copy.run.glob("cache/replay-*"))
    assert len(kept) == 1
    assert copy.again("--set", "pretrain.learning_rate=5e-4", "--until", "pretrain").code == 0
    assert sorted(path.name for path in copy.run.glob("cache/replay-*")) == kept
    monkeypatch.setattr(stage, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(pytest.fail.Exception):
        copy.again("--set", "pretrain.replay_temperature=0.5", "--until", "pretrain")
    assert len(list(copy.run.glob("cache/replay-*"))) == 2


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"shares": {"wiki": 0, "b.txt": 0}}, "one must be above 0"),
        ({"shares": {"wiki": 1, "b.txt": 1}, "temperature": 2}, "either shares or a temperature"),
    ],
)
def test_a_mixture_that_cannot_be_is_told_before_anything_runs(mixture: dict[str, object], message: str) -> None:
    target = [{"path": "a.txt"}]
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "model": {"base": "b", "language": "yue"},
            "corpus": {"target": target},
            "pretrain": {"mixture": mixture},
        }
    )
    with pytest.raises(RecipeError, match=message):
        stage.check(recipe.pretrain, recipe)


def test_shares_name_the_sources_there_are() -> None:
    with pytest.raises(RecipeError, match="no text of source wikl is there; did you mean `wiki`"):
        _check_names({"wikl": 1, "web": 1}, {"wiki", "web"})
    with pytest.raises(RecipeError, match="give a share for web too; 0 leaves a source out"):
        _check_names({"wiki": 1}, {"wiki", "web"})


def test_a_mixture_is_trained_on(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    more = ("--set", "pretrain.tokens=256", "--set", "pretrain.replay=none", "--until", "pretrain")
    done = copy.again("--set", "pretrain.mixture.max_epochs=0.001", *more)
    assert done.code == 2
    assert "mixture: training takes 256 tokens of text, but the sources give" in done.err
    done = copy.again("--set", "pretrain.mixture.shares.wiki=1", *more)
    assert done.code == 2
    assert "no text of source wiki is there" in done.err
    done = copy.again("--set", "pretrain.mixture.max_epochs=4", *more)
    assert done.code == 0, done.err
    marker = json.loads((copy.stage("pretrain") / "stage.json").read_text(encoding="utf-8"))
    (part,) = marker["summary"]["mixture"].values()
    assert part["share"] == 1
    assert 0 < part["epochs"] <= 4
    assert (copy.stage("pretrain") / "packed" / "target" / "mixture.json").is_file()
