"""The align stage: parallel text is read, kept apart from what is held out, and learned from with replay."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import Finished
from loop_fields import FIELDS
from pico import pico_recipe, sentences

from langgraft.corpus.prepare import read_split
from langgraft.errors import RecipeError
from langgraft.exporting.publish import source_of
from langgraft.pipeline import plan
from langgraft.recipe import Align, Pretrain, Recipe
from langgraft.recipe_file import load_recipe
from langgraft.stages import align as stage
from langgraft.store import read_json, sha256_file
from langgraft.training.modes import Lora, Phase


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"yue": a, "en": b, "license": "CC0-1.0"}, ensure_ascii=False) for a, b in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def english(number: int) -> str:
    return f"In line {number} somebody says that number {number} is here."


def rows_of(first: int, count: int) -> list[tuple[str, str]]:
    return [(text, english(i)) for i, text in enumerate(sentences(first + count)[first:], first)]


def given(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


SMALL = ["align.tokens=256", "align.sequence_length=32", "align.batch_tokens=128", "align.dev=4"]


def recipe_with(tmp_path: Path, *settings: str) -> Recipe:
    path = write_rows(tmp_path / "pairs.jsonl", rows_of(0, 2))
    return load_recipe(pico_recipe(tmp_path, tmp_path), [f'align.parallel=[{{path = "{path}"}}]', *settings])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["align.formats={interlaced = 1}"], "`interlaced` is unknown; did you mean `interleaved`"),
        (["align.formats={bilingual = 0}"], "shares must not be negative, and one must be above 0"),
        (["align.formats={}"], "shares must not be negative, and one must be above 0"),
        (["align.options={bilingual = {most = 2}}"], r"align.options.bilingual: there is no such format here; "),
        (["align.options={translation = {most = 0}}"], "most is a number of pairs from 1 on"),
        (["align.monolingual_ratio=0.5", "align.replay_ratio=0.5"], "add up to 1; they leave nothing"),
        (["pretrain.replay=none"], "align.replay_ratio takes the text that pretraining replayed"),
        (["pretrain.replay_ratio=0.0"], "align.replay_ratio takes the text that pretraining replayed"),
        (["align.lora.rank=4"], r'\[align\.lora\] is for mode "lora", and this stage has full; leave it out'),
        (
            ["align.batch_tokens=100", "align.sequence_length=32"],
            r"align\.batch_tokens \(100\) must be a multiple of al",
        ),
        (["align.old_rows_learning_rate=1.0"], r"^align\.old_rows_learning_rate \(1\) must be between 0 and"),
        (["align.mode=lora", "align.lora.quantize=nf4"], r"align\.lora\.quantize"),
    ],
)
def test_what_cannot_work_is_told_before_anything_runs(settings: list[str], sentence: str, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "compute.device=cpu", *settings)
    assert recipe.align is not None
    with pytest.raises(RecipeError, match=sentence):
        stage.check(recipe.align, recipe)


def test_no_replay_is_needed_where_none_is_asked_for(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "pretrain.replay=none", "align.replay_ratio=0.0")
    assert recipe.align is not None
    stage.check(recipe.align, recipe)


def test_align_needs_pretrain(tmp_path: Path, pico: Path) -> None:
    path = pico_recipe(tmp_path, pico)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("[pretrain]")], encoding="utf-8")
    pairs = write_rows(tmp_path / "pairs.jsonl", rows_of(0, 2))
    with pytest.raises(RecipeError, match=r"section \[align\] needs \[pretrain\]; add that section"):
        plan(load_recipe(path, [f'align.parallel=[{{path = "{pairs}"}}]']), tmp_path / "runs")


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_fields_reach_the_loop(field: str, value: object) -> None:
    pairs: Any = [{"path": "a"}]
    assert getattr(stage._settings(Align(parallel=pairs, **{field: value})), field) == value
    assert getattr(stage._settings(Align(parallel=pairs)), field) != value
    lora = stage._settings(Align(parallel=pairs, mode="lora", lora={"rank": 3}))  # type: ignore[arg-type]
    assert (lora.phases, lora.lora) == ((Phase("lora"),), Lora(3))


@pytest.fixture
def aligned(finished: Finished, tmp_path: Path) -> tuple[Finished, list[str]]:
    """A finished run up to pretraining, and the settings that add a small [align]; three pairs of it leak."""
    copy = finished.copy(tmp_path / "runs", without=("evaluate", "export"))
    corpus = copy.stage("corpus") / "text"
    test, dev = (next(iter(read_split(corpus, "target", name))).text for name in ("test", "dev"))
    source = next(iter(read_split(corpus, "source", "test"))).text
    leaks = [
        (test, "It is a secret what this is."),
        ("佢講過：" + dev, "He said something once."),
        ("唔知乜嘢嚟。", source),
    ]
    rows = rows_of(500, 60)
    path = write_rows(tmp_path / "pairs.jsonl", [*rows[:30], *leaks, *rows[30:]])
    return copy, [f'align.parallel=[{{path = "{path}", name = "made up"}}]', *SMALL]


def test_the_whole_stage(aligned: tuple[Finished, list[str]]) -> None:
    """Formats by their shares, planted leaks left out, replay taken, and the stages after it follow."""
    copy, settings = aligned
    evaluation = ["evaluate.gates.source_loss=9.0", 'export.to=["hf"]']
    done = copy.again(*given(*settings, *evaluation))
    assert done.code == 0, done.err
    folder = copy.stage("align")
    summary = read_json(folder / "stage.json")["summary"]
    assert summary["pairs"]["left_out"]["held_out"] == 3
    assert summary["pairs"]["read"] == 63
    assert summary["pairs"]["dev"] == 4
    written = (folder / "pairs" / "train.jsonl").read_text(encoding="utf-8")
    assert "secret" not in written
    assert summary["pairs"]["licenses"] == {"CC0-1.0": summary["pairs"]["used"]}
    shares = {name: part["share"] for name, part in summary["formats"].items()}
    # A quarter each of replay and of monolingual text; half is parallel: two parts in four translation.
    wanted = {"translation": 1 / 3, "interleaved": 1 / 6, "code_switched": 1 / 6, "monolingual": 1 / 3}
    assert shares == pytest.approx(wanted)
    assert summary["replay_ratio"] == 0.25
    assert summary["steps"] == 2
    for way in ("to_target", "to_source"):
        assert set(summary["translation"][way]["models"]) == {"before", "after"}
    assert not (folder / "adapter").exists()

    start, end = (copy.stage(name) / "model" / "model.safetensors" for name in ("pretrain", "align"))
    assert sha256_file(start) != sha256_file(end)
    results = read_json(copy.stage("evaluate") / "results.json")
    assert results["models"][1]["model"] == f"{folder.name}/model"
    assert sha256_file(copy.stage("export") / "hf" / "model.safetensors") == sha256_file(end)
    report = read_json(copy.run / "report.json")
    assert report["align"]["pairs"] == summary["pairs"]
    page = (copy.run / "report.html").read_text(encoding="utf-8")
    assert "Training on parallel text" in page
    assert "after parallel text" in page
    assert {"base", "surgery", "adapted", "aligned"} <= set(report["generations"][0])
    tokens = summary["tokens"] + report["training"]["tokens"]
    assert f"{tokens:,} tokens of training" in report["verdict"]["paragraph"]
    assert f"{summary['tokens']:,} of them on parallel text." in report["verdict"]["paragraph"]
    assert "3 held out" in page
    assert "made up (parallel)" in (copy.stage("export") / "hf" / "README.md").read_text(encoding="utf-8")
    assert "align: 256/256 tokens" in done.err
    assert source_of(copy.run).pairs == ("cc0-1.0",)  # what the model may be published under depends on it


def test_an_evaluation_set_is_kept_out_and_enters_the_fingerprint(
    aligned: tuple[Finished, list[str]], tmp_path: Path
) -> None:
    copy, settings = aligned
    measured = write_rows(tmp_path / "measured.jsonl", rows_of(500, 20))
    with_set = [*settings, f'evaluate.choice.parallel=["{measured}"]']
    before, after = (load_recipe(copy.recipe, of) for of in (settings, with_set))
    folders = [{item.stage.name: item.folder for item in plan(of, copy.runs)} for of in (before, after)]
    assert folders[0]["pretrain"] == folders[1]["pretrain"]
    assert folders[0]["align"] != folders[1]["align"]
    done = copy.again(*given(*with_set), "--until", "align")
    assert done.code == 0, done.err
    pairs = read_json(copy.stage("align") / "stage.json")["summary"]["pairs"]
    assert pairs["left_out"]["held_out"] == 3 + 20
    done = copy.again(*given(*settings, f'corpus.decontaminate=["{measured}"]'), "--until", "align")
    assert done.code == 0, done.err
    write_rows(measured, rows_of(500, 60))
    done = copy.again(*given(*with_set), "--until", "align")
    assert done.code == 2
    assert "0 of the 63 pairs in" in done.sentence()


def test_a_stopped_stage_goes_on_to_the_same_weights(
    aligned: tuple[Finished, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, settings = aligned
    longer = [*settings, "align.tokens=768", "align.dev=0", "align.mode=lora", "align.lora.rank=2"]
    done = copy.again(*given(*longer), "--until", "align")
    assert done.code == 0, done.err
    folder = copy.stage("align")
    whole = sha256_file(folder / "model" / "model.safetensors")
    summary = read_json(folder / "stage.json")["summary"]
    assert summary["modes"] == ["lora"]
    assert summary["translation"] is None
    assert summary["adapter_bytes"] is None  # it would be one of the pretrained model, not of the base
    assert not (folder / "adapter").exists()
    shutil.rmtree(folder / "model")
    (folder / "stage.json").unlink()
    monkeypatch.setattr(stage, "prepare_pairs", lambda *_, **__: pytest.fail("read the pairs again"))
    done = copy.again(*given(*longer), "--until", "align")
    assert done.code == 0, done.err
    assert "align: going on from step 4 of 6" in done.err
    assert sha256_file(folder / "model" / "model.safetensors") == whole


def test_an_adapter_of_the_base_is_refused(aligned: tuple[Finished, list[str]]) -> None:
    copy, settings = aligned
    done = copy.again(*given(*settings, "pretrain.mode=lora", 'export.to=["adapter"]'))
    assert done.code == 2
    assert "[align] trains the merged model further; leave it out" in done.sentence()


def test_replay_is_that_of_pretraining(aligned: tuple[Finished, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is written by the base again, and the loss on replay is the one of pretraining."""
    copy, settings = aligned
    found: dict[str, Any] = {}

    def look(*_: object, **given: object) -> dict[str, Any]:
        found.update(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "train", look)
    assert copy.again(*given(*settings), "--until", "align").code == 130
    assert found["replay"] == copy.stage("pretrain") / "packed" / "replay"
    assert found["teacher"].name == "base"
    assert copy.again(*given(*settings, "align.replay_ratio=0.0"), "--until", "align").code == 130
    assert (found["replay"], found["teacher"]) == (None, None)
    assert Pretrain().replay_loss == "distill"


def test_formats_that_the_pairs_cannot_make_are_told(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path / "runs", without=("evaluate", "export"))
    path = tmp_path / "pairs.jsonl"
    rows = [{"yue": a, "en": b, "source": str(i)} for i, (a, b) in enumerate(rows_of(500, 30))]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    settings = [f'align.parallel=[{{path = "{path}"}}]', *SMALL]
    done = copy.again(*given(*settings, "align.formats={code_switched = 1}"), "--until", "align")
    assert done.code == 2
    assert "the pairs make no text in format `code_switched`; leave it out" in done.sentence()
