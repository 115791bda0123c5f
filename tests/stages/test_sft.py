"""The sft stage: its fields reach the loop, it stands in the chain, and what it did is measured and shown."""

import json
from pathlib import Path

import pytest
from chats import CHATML, sums, write_rows
from command import Finished, langgraft
from pico import pico_recipe

from langgraft.errors import RecipeError
from langgraft.exporting.publish import source_of
from langgraft.pipeline import NAMES, plan
from langgraft.recipe import Recipe
from langgraft.recipe_file import load_recipe
from langgraft.recipe_sft import Sft
from langgraft.runs import MARKER
from langgraft.stages import export
from langgraft.stages import sft as stage
from langgraft.stages.sft import _lessons, _settings
from langgraft.store import read_json
from langgraft.tokenizer.template import template_of
from langgraft.training.chat_rows import ChatSource
from langgraft.training.modes import Lora, Phase

DATA = {"data": [{"path": "a.jsonl"}]}
STAGES = [name for name in NAMES if name not in ("align", "publish")]  # what the recipe has here


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight_decay", 0.7),
        ("gradient_clip", 0.7),
        ("schedule", "wsd"),
        ("warmup", 0.7),
        ("seed", 7),
        ("optimizer", "muon"),
    ],
)
def test_fields_reach_the_loop(field: str, value: object) -> None:
    assert getattr(_settings(Sft.model_validate({**DATA, field: value})), field) == value
    assert getattr(_settings(Sft.model_validate(DATA)), field) != value


def test_one_rate_holds_for_all_and_modes_reach_the_loop() -> None:
    settings = _settings(Sft.model_validate({**DATA, "learning_rate": 7e-5, "mode": "lora", "lora": {"rank": 4}}))
    rates = (settings.learning_rate, settings.new_rows_learning_rate, settings.old_rows_learning_rate)
    assert rates == (7e-5, 7e-5, 7e-5)
    assert (settings.phases, settings.lora) == ((Phase("lora"),), Lora(rank=4))
    small = _settings(Sft.model_validate({**DATA, "sequence_length": 64, "batch_tokens": 256}))
    assert (small.length, small.batch_rows, small.replay_ratio) == (64, 4, 0.0)


def test_what_to_learn_from() -> None:
    data = [{"path": "a.jsonl"}, {"path": "b.json", "share": 0.5}]
    section = Sft.model_validate({"data": data, "system": "Hi.", "template": "t.jinja", "dev": 5.0, "epochs": 3})
    found = _lessons(section)
    assert found.sources == (ChatSource("a.jsonl"), ChatSource("b.json", 0.5))
    assert (found.system, found.template, found.dev, found.epochs) == ("Hi.", Path("t.jinja"), 5.0, 3)


def recipe_with(tmp_path: Path, *settings: str) -> Recipe:
    return load_recipe(pico_recipe(tmp_path, tmp_path), ['sft.data=[{path = "a.jsonl"}]', *settings])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["sft.batch_tokens=100"], r"sft\.batch_tokens \(100\) must be a multiple of sft\.sequence_length \(1024\)"),
        (["sft.lora.rank=4"], r'\[sft\.lora\] is for mode "lora", and sft\.mode is "full"; leave it out'),
        (
            ["sft.mode=lora", "sft.lora.quantize=nf4", "compute.device=cpu"],
            r'sft\.lora\.quantize = "nf4" needs a CUDA device',
        ),
        (
            ["compute.processes_per_node=3", "compute.fsdp=3"],
            r"sft\.batch_tokens \(16384\) makes 16 rows of 1024, which 3 data-parallel",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(settings: list[str], sentence: str, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, *settings)
    assert recipe.sft is not None
    with pytest.raises(RecipeError, match=sentence):
        stage.check(recipe.sft, recipe)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([], r"\[sft\] trains further what \[pretrain\] has made"),
        (["sft.mode=lora"], r"\[sft\] trains further what \[pretrain\] has made"),
        (["pretrain={}", "sft.mode=lora"], r"\[sft\] trains further"),
    ],
)
def test_an_adapter_cannot_hold_two_trainings(settings: list[str], sentence: str, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, 'export.to=["adapter"]', *settings)
    assert recipe.export is not None
    with pytest.raises(RecipeError, match=sentence):
        export.check(recipe.export, recipe)


def test_an_adapter_of_instruction_tuning_alone(tmp_path: Path) -> None:
    for mode, fits in (("full", False), ("lora", True)):
        recipe = recipe_with(tmp_path, 'export.to=["adapter"]', f"sft.mode={mode}")
        recipe = recipe.model_copy(update={"pretrain": None})
        assert recipe.export is not None
        if fits:
            export.check(recipe.export, recipe)
        else:
            with pytest.raises(RecipeError, match="but mode `full` changes weights of the base"):
                export.check(recipe.export, recipe)


def settings_of(folder: Path, count: int = 60, *more: str) -> list[str]:
    """`--set` options of a quick instruction tuning of the pico recipe."""
    folder.mkdir(exist_ok=True)
    rows = write_rows(folder / "chats.jsonl", sums(count))
    (folder / "chat.jinja").write_text(CHATML)
    given = [
        f'sft.data=[{{path = "{rows}", license = "CC0-1.0"}}]', f"sft.template={folder}/chat.jinja", "sft.dev=6",
        "sft.sequence_length=96", "sft.batch_tokens=384", "sft.learning_rate=5e-3", "sft.epochs=2",
        "sft.generated=2", "sft.max_new_tokens=8", "evaluate.gates.source_loss=9.0", *more,
    ]  # fmt: skip
    return [part for setting in given for part in ("--set", setting)]


def test_the_whole_chain(finished: Finished, tmp_path: Path) -> None:
    """Trained after pretraining, evaluated, exported and shown; changed rows make it stale, and only from there."""
    copy = finished.copy(tmp_path / "runs", without=("evaluate", "export"))
    given = settings_of(tmp_path / "chats")
    done = copy.again(*given, "--set", "export.to=['hf']")
    assert done.code == 0, done.err
    assert "sft: never ran" in done.err
    folder = copy.stage("sft")
    assert template_of(folder / "model") == CHATML == template_of(copy.stage("export") / "hf")
    assert (folder / "model" / "tokenizer.json").read_bytes() == (
        copy.stage("pretrain") / "model" / "tokenizer.json"
    ).read_bytes()
    summary = read_json(folder / MARKER)["summary"]
    assert summary["start"] == copy.stage("pretrain").name
    assert summary["chat"]["documents"] == 54
    assert summary["data"][0]["license"] == "CC0-1.0"
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    answers = report["sft"]["answers"]
    assert answers["bits_per_byte"]["models"]["after"]["mean"] < answers["bits_per_byte"]["models"]["before"]["mean"]
    assert len(answers["samples"]) == 2
    assert [point["step"] for point in report["sft"]["curve"]] == list(range(1, summary["steps"] + 1))
    assert {"base", "surgery", "adapted", "tuned", "written_in"} <= set(report["generations"][0])
    assert report["models"][1]["model"] == f"{folder.name}/model" if "models" in report else True
    card = (copy.stage("export") / "hf" / "README.md").read_text(encoding="utf-8")
    assert "chats.jsonl (conversations)" in card
    assert source_of(copy.run).pairs == ("cc0-1.0",)
    page = (copy.run / "report.html").read_text(encoding="utf-8")
    assert "Instruction tuning" in page
    assert "Bits per byte of answers" in page
    assert "after instruction tuning" in page
    results = read_json(copy.stage("evaluate") / "results.json")
    assert results["models"][1]["model"] == f"{folder.name}/model"
    # Nothing is stale; with other rows, sft and what follows are.
    recipe = load_recipe(copy.recipe, [*given[1::2], "export.to=['hf']"])
    assert {item.stage.name: item.state for item in plan(recipe, copy.runs)} == dict.fromkeys(STAGES, "done")
    write_rows(tmp_path / "chats" / "chats.jsonl", sums(61))
    stale = {item.stage.name: item.reason for item in plan(recipe, copy.runs) if item.state != "done"}
    assert list(stale) == ["sft", "evaluate", "export"]
    assert stale["sft"].endswith("chats.jsonl has other content")


def test_instruction_tuning_alone_starts_from_surgery(finished: Finished, tmp_path: Path) -> None:
    """Without [pretrain], and with LoRA: the adapter holds it, on the base."""
    copy = finished.copy(tmp_path / "runs", without=("pretrain", "evaluate", "export"))
    text = finished.recipe.read_text()
    start, end = text.index("[pretrain]"), text.index("[evaluate]")
    recipe = tmp_path / "alone.toml"
    recipe.write_text(text[:start] + text[end:])
    given = settings_of(
        tmp_path / "chats", 24, "sft.mode=lora", "sft.lora.rank=2", 'export.to=["adapter"]', "sft.dev=0"
    )
    done = langgraft("run", recipe, "--runs", copy.runs, *given)
    assert done.code == 0, done.err
    report = json.loads((copy.run / "report.json").read_text(encoding="utf-8"))
    assert "answers" not in report["sft"]
    assert "adapted" not in report["generations"][0]
    assert report["generations"][0]["tuned"] is not None
    gate = next(gate for gate in report["gates"] if gate["name"].startswith("the adapter on the base"))
    assert gate["passed"]
    checked = langgraft("doctor", copy.run)
    assert "Traceback" not in checked.err
    assert checked.code in (0, 1)


def test_what_is_not_there_is_said_by_the_plan(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path / "runs")
    done = copy.again("--set", 'sft.data=[{path = "nowhere.jsonl"}]')
    assert done.code == 2
    assert "nowhere.jsonl does not exist" in done.sentence()
    rows = write_rows(tmp_path / "a.jsonl", sums(9))
    done = copy.again("--set", f'sft.data=[{{path = "{rows}"}}]', "--set", "sft.template=none.jinja")
    assert done.code == 2
    assert "sft.template: none.jinja does not exist" in done.sentence()
