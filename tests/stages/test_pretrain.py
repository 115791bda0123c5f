"""The pretrain stage: every field of the section reaches the training loop, and replay of each kind works."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from command import Finished, langgraft
from loop_fields import FIELDS
from pico import pico_recipe

from langgraft.errors import RecipeError
from langgraft.recipe import Pretrain, Recipe
from langgraft.recipe_file import load_recipe
from langgraft.stages import pretrain as stage
from langgraft.stages.pretrain import _check_names, _settings
from langgraft.training.modes import Lora, Phase


def test_budget_is_rounded_up_to_whole_steps() -> None:
    settings = _settings(Pretrain(tokens=1000, sequence_length=32, batch_tokens=128))
    assert (settings.steps, settings.length, settings.batch_rows) == (8, 32, 4)


@pytest.mark.parametrize(("field", "value"), [*FIELDS, ("z_loss", 0.7), ("ema_decay", 0.7)])
def test_fields_reach_the_loop(field: str, value: object) -> None:
    assert getattr(_settings(Pretrain(**{field: value})), field) == value
    assert getattr(_settings(Pretrain()), field) != value


def recipe_with(tmp_path: Path, *settings: str) -> Recipe:
    return load_recipe(pico_recipe(tmp_path, tmp_path), settings)


def test_modes_reach_the_loop(tmp_path: Path) -> None:
    assert _settings(Pretrain()).phases == (Phase("full"),)
    assert _settings(Pretrain(mode="full", layers=[0, -1])).phases == (Phase("full", layers=(0, -1)),)
    options = ["rank=4", "alpha=5", "dropout=0.5", 'targets=["q_proj"]', 'rows="all"', 'quantize="nf4"']
    recipe = recipe_with(tmp_path, "pretrain.mode=lora", *(f"pretrain.lora.{option}" for option in options))
    assert recipe.pretrain is not None
    assert _settings(recipe.pretrain).lora == Lora(4, 5, 0.5, ("q_proj",), "all", "nf4")
    phases = '[{mode = "new_rows", share = 0.25}, {mode = "full", share = 0.75, layers = [1]}]'
    recipe = recipe_with(tmp_path, f"pretrain.phases={phases}")
    assert recipe.pretrain is not None
    assert _settings(recipe.pretrain).phases == (Phase("new_rows", 0.25), Phase("full", 0.75, (1,)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (['pretrain.phases=[{mode = "full", share = 1}]', "pretrain.mode=lora"], "are for a run of one phase"),
        (['pretrain.phases=[{mode = "full", share = 0.5}]'], r"pretrain\.phases add up to 0\.5"),
        (["pretrain.lora.rank=4"], r'\[pretrain\.lora\] is for mode "lora", and this run has full; leave it out'),
        (["pretrain.mode=new_rows", "tokenizer.method=none"], 'mode "new_rows" trains nothing'),
        (["pretrain.mode=embeddings", "pretrain.layers=[1]"], "no layer learns in mode `embeddings`"),
        (["pretrain.mode=lora", "pretrain.lora.quantize=nf4", "compute.device=cpu"], "needs a CUDA device"),
    ],
)
def test_modes_that_do_not_fit_are_refused_before_anything_runs(
    settings: list[str], sentence: str, tmp_path: Path
) -> None:
    recipe = recipe_with(tmp_path, *settings)
    assert recipe.pretrain is not None
    with pytest.raises(RecipeError, match=sentence):
        stage.check(recipe.pretrain, recipe)


def test_an_adapter_from_the_recipe(finished: Finished, tmp_path: Path) -> None:
    """`mode = "lora"` and `export.to = ["adapter"]`, by the real command; its gates are in the report."""
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    lora = ["pretrain.mode=lora", "pretrain.lora.rank=2", "pretrain.tokens=256", 'export.to=["adapter"]']
    given = [part for setting in (*lora, "evaluate.gates.source_loss=9.0") for part in ("--set", setting)]
    done = copy.again(*given)
    assert done.code == 0, done.err
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["modes"] == ["lora"]
    assert report["training"]["adapter_bytes"] > 0
    gate = next(gate for gate in report["gates"] if gate["name"].startswith("the adapter on the base"))
    assert gate["passed"]
    adapter = copy.stage("export") / "adapter"
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == "base"  # of the folder's path only the name
    merged = tmp_path / "merged"
    given = ["--model", adapter, "--to", "merged", "--base", finished.recipe.parent.parent / "base", "-o", merged]
    done = langgraft("export", *given)
    assert done.code == 0, done.err
    assert (merged / "model.safetensors").is_file()
    done = langgraft("export", "--model", merged, "--to", "hf", "--base", "owner/model", "-o", tmp_path / "hf")
    assert done.code == 2
    assert "export `hf` has no option `base`" in done.sentence()
    done = copy.again(*[x for s in ("pretrain.mode=embeddings", 'export.to=["adapter"]') for x in ("--set", s)])
    assert done.code == 2
    assert "export.to has `adapter`, which holds LoRA and new rows, but mode `embeddings` changes" in done.sentence()


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
        (
            {"curriculum": [{"at": 0.0, "shares": {"a": 1}}], "temperature": 2},
            "either a curriculum or shares or a temp",
        ),
        ({"curriculum": [{"at": 0.0, "shares": {"a": 0}}]}, r"pretrain\.mixture\.curriculum, at = 0: shares must not"),
        ({"curriculum": [{"at": 0.5, "shares": {"a": 1}}, {"at": 0.0, "shares": {"a": 1}}]}, "positions rise from 0"),
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


def test_a_curriculum_is_trained_on_and_resumed_to_the_same_weights(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    train = copy.stage("corpus") / "text" / "target" / "train.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(train.read_bytes()).splitlines()]
    rows = [{**row, "source": ("easy", "hard")[i % 2]} for i, row in enumerate(rows)]
    train.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    points = "[{at = 0.0, shares = {easy = 1, hard = 0}}, {at = 1.0, shares = {easy = 0, hard = 1}}]"
    given = ["--set", f"pretrain.mixture.curriculum={points}", "--set", "pretrain.mixture.order=length"]
    given += ["--set", "pretrain.tokens=768", "--set", "pretrain.replay=corpus", "--until", "pretrain"]
    done = copy.again(*given, "--set", "pretrain.mixture.max_epochs=0.001")
    assert done.code == 2
    assert "curriculum: source easy would be read" in done.sentence()
    done = copy.again(*given)
    assert done.code == 0, done.err
    folder, whole = copy.stage("pretrain"), copy.weights()
    parts = json.loads((folder / "stage.json").read_text(encoding="utf-8"))["summary"]["mixture"]
    assert {name: part["share"] for name, part in parts.items()} == pytest.approx({"easy": 0.5, "hard": 0.5})
    shutil.rmtree(folder / "model")
    (folder / "stage.json").unlink()
    done = copy.again(*given)
    assert "going on from step 4 of 6" in done.err
    assert copy.weights() == whole
    wrong = points.replace("easy", "eesy")
    done = copy.again("--set", f"pretrain.mixture.curriculum={wrong}", "--until", "pretrain")
    assert "pretrain.mixture.curriculum: no text of source eesy is there; did you mean `easy`" in done.sentence()


WATCHED = ["every=2", "documents=20", "items=8", "max_new_tokens=4", 'source_prompts=["The quick"]']


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["pretrain.retention.keep_best=2"], "needs `every`, the steps between measurements"),
        (
            ["pretrain.retention.every=2", "corpus.source=[]", "pretrain.replay=self"],
            "source-language development text",
        ),
        (["pretrain.retention.every=2", "corpus.source_dev=0"], "corpus.source_dev is 0, but"),
        (["pretrain.retention.every=2", "corpus.dev=0"], "corpus.dev is 0, but"),
        (
            ["pretrain.retention.every=2", "pretrain.retention.on_breach=rollback", "pretrain.replay=none"],
            "raises the share of replay, and this run has none",
        ),
    ],
)
def test_a_watch_that_cannot_be_is_told_before_anything_runs(
    settings: list[str], sentence: str, tmp_path: Path
) -> None:
    recipe = recipe_with(tmp_path, *settings)
    assert recipe.pretrain is not None
    with pytest.raises(RecipeError, match=sentence):
        stage.check(recipe.pretrain, recipe)


def test_a_stop_from_the_recipe(finished: Finished, tmp_path: Path) -> None:
    """The stage ends with the best checkpoint, says so in log, summary and report, and the stages after it run."""
    copy = finished.copy(tmp_path, without=("pretrain", "evaluate", "export"))
    watch = [*WATCHED, "source_bits_per_byte=0.02"]
    hot = ["replay=none", "learning_rate=2e-2", "new_rows_learning_rate=2e-2", "old_rows_learning_rate=2e-2"]
    given = [*(f"pretrain.retention.{setting}" for setting in watch), *(f"pretrain.{setting}" for setting in hot)]
    loose = "evaluate.gates.source_loss=9.0"
    done = copy.again(*(part for setting in (*given, loose) for part in ("--set", setting)))
    assert done.code == 0, done.err
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    facts = report["training"]["retention"]
    assert facts["stopped"]["at"] > facts["result_step"]
    assert report["training"]["steps"] == facts["result_step"]
    assert "English bits per byte rose by" in facts["stopped"]["why"]
    page = (copy.run / "report.html").read_text(encoding="utf-8")
    assert f"Stopped early at step {facts['stopped']['at']}: English bits per byte rose by" in page
    assert "retention: stopped at step" in done.err
    assert report["bits_per_byte"]["source"]["change"]["mean"] < 0.05  # evaluate measured what was kept
    rows = report["training"]["retention_curve"]
    assert [row["kept"] for row in rows] == [True] * (len(rows) - 1) + [False]
    assert {sample["prompt"] for sample in rows[0]["generations"] if sample["language"] == "en"} == {"The quick"}


def test_replay_that_was_left_out_is_in_the_summary(finished: Finished) -> None:
    marker = json.loads((finished.stage("pretrain") / "stage.json").read_text(encoding="utf-8"))
    written = marker["summary"]["replay"]
    assert written["documents"] == written["sampled"] - sum(written["dropped"].values())
    assert written["tokens"] >= 200
