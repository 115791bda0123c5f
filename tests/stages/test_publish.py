"""The publish stage: a dry run unless told otherwise, refused before anything runs, and a failed upload goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from command import ROOT, Done, Finished, langgraft
from hub import Hub, hub
from huggingface_hub import ModelCard
from pico import pico_recipe

from langgraft.errors import LanggraftError, RecipeError
from langgraft.pipeline import plan
from langgraft.recipe import Publish
from langgraft.recipe_file import load_recipe
from langgraft.stages import publish as stage
from langgraft.store import read_json, sha256_file, write_json

TOKEN = "hf_" + "fakeFAKEfake0123456789"
MODEL = ("--set", "publish.model=someone/model", "--set", "publish.base_license=apache-2.0")
DATA = ("--set", "publish.data=someone/text")
UPLOAD = ("--set", "publish.dry_run=false")


def upload(run: Finished, server: Hub) -> Done:
    """`langgraft run` in a process of its own that sees `server` as the hub."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    line = ["-m", "langgraft", "run", run.recipe, "--runs", run.runs, *MODEL, *DATA, *UPLOAD]
    done = subprocess.run(
        [sys.executable, *map(str, line)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert TOKEN not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_dry_run_lists_what_would_go(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    done = copy.again(*MODEL, *DATA)
    assert done.code == 0, done.err
    assert "publish: dry run, nothing was uploaded; to someone/model would go" in done.err
    model, data = read_json(copy.stage("publish") / "publication.json")
    assert (model["repository"], model["kind"], model["license"]) == ("someone/model", "model", "apache-2.0")
    assert [file["name"] for file in data["files"]] == ["README.md", "card.json"]
    folder, sums = copy.stage("export") / "hf", {file["name"]: file["sha256"] for file in model["files"]}
    assert sums["model.safetensors"] == sha256_file(folder / "model.safetensors")
    assert sums["README.md"] == sha256_file(copy.stage("publish") / "README.md")
    card = ModelCard.load(copy.stage("publish") / "README.md")
    assert (card.data.license, card.data.datasets, card.data.language) == (
        "apache-2.0",
        ["someone/text"],
        ["yue", "en"],
    )
    assert card.data.eval_results, "the figures of the whole run are in the card"
    report = read_json(copy.run / "report.json")["publish"]
    assert report["dry_run"]
    assert [one["url"] for one in report["publications"]] == [None, None]
    assert "publish: done" in copy.again(*MODEL, *DATA).err


def test_a_failed_upload_goes_on_and_a_finished_one_is_not_repeated(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    weights = sha256_file(copy.stage("export") / "hf" / "model.safetensors")
    with hub() as server:
        server.refused = ["models"]
        failed = upload(copy, server)
        assert (failed.code, server.by) == (2, {})
        assert "the hub refused someone/model" in failed.sentence()
        server.refused = ["datasets"]
        assert "the hub refused someone/text" in upload(copy, server).sentence()
        assert set(server.by) == {"models/someone/model"}
        done = upload(copy, server)
        assert done.code == 0, done.err
        requests = len(server.log)
        again = upload(copy, server)
        assert (again.code, len(server.log)) == (0, requests)
        assert "publish: done" in again.err
    assert server.sent == [weights], "large files are sent once"
    assert sum("/api/models/someone/model/commit/" in line for line in server.log) == 2
    assert set(server.by) == {"models/someone/model", "datasets/someone/text"}
    for one, kind in zip(read_json(copy.stage("publish") / "publication.json"), ("models", "datasets"), strict=True):
        assert {file["name"] for file in one["files"]} == set(server.by[f"{kind}/{one['repository']}"])
    text = server.by["datasets/someone/text"]["README.md"].decode("utf-8")
    assert "# Yue Chinese and English text" in text or "# Cantonese and English text" in text
    assert "configs" not in ModelCard(text).data.to_dict(), "they would name files that are not there"
    urls = [one["url"] for one in read_json(copy.run / "report.json")["publish"]["publications"]]
    assert urls == [f"{server.url}/someone/model", f"{server.url}/datasets/someone/text"]


def test_a_failed_gate_is_not_published_unless_forced(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    marker = copy.stage("evaluate") / "stage.json"
    found = read_json(marker)
    found["summary"]["gates"][0] |= {"passed": False, "value": "40% worse"}
    write_json(marker, found)
    (copy.run / "report.json").unlink()
    refused = copy.again(*MODEL)
    assert refused.code == 1
    assert "not published, since a gate failed" in refused.sentence()
    assert "40% worse" in refused.sentence()
    assert (copy.run / "report.json").is_file(), "the report tells of it"
    assert not list(copy.run.glob("publish-*"))
    copy.again(*MODEL, "--set", "publish.force=true")
    assert (copy.stage("publish") / "publication.json").is_file()


@pytest.fixture(scope="module")
def recipe(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_recipe(tmp_path_factory.mktemp("recipe"), pico)


def refusal(recipe: Path, *overrides: str, **fields: object) -> str:
    """What the stage's check says of a recipe with overrides and fields of [publish]."""
    section = Publish.model_validate({"model": "someone/model", "base_license": "mit", **fields})
    with pytest.raises(LanggraftError) as caught:
        stage.check(section, load_recipe(recipe, overrides))
    return str(caught.value)


def test_what_cannot_be_published_is_said_before_anything_runs(recipe: Path) -> None:
    text = 'corpus.target=[{path="a.txt", license="%s"}]'
    assert 'add "hf" to export.to' in refusal(recipe, 'export.to=["gguf"]')
    assert "publish.model nobody must be owner/name" in refusal(recipe, model="nobody")
    assert "publish.data a/b/c must be owner/name" in refusal(recipe, data="a/b/c")
    assert "the base's licence is unknown" in refusal(recipe, base_license=None)
    assert "publish.base_license" in refusal(recipe, base_license=None)
    assert "allows no derived works" in refusal(recipe, text % "CC-BY-ND-4.0")
    assert "cannot be kept by one model" in refusal(recipe, text % "CC-BY-SA-4.0", base_license="llama3.1")
    assert "drops what cc-by-nc-4.0 asks for" in refusal(recipe, text % "CC-BY-NC-4.0", license="apache-2.0")
    fine = Publish(model="a/b", base_license="llama3.1", force=True)
    stage.check(fine, load_recipe(recipe, [text % "CC-BY-SA-4.0"]))
    stage.check(Publish(model="a/b", base_license="mit"), load_recipe(recipe, [text % ""]))


def test_an_upload_needs_a_token_and_the_network(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refusal(recipe, dry_run=False).startswith("publish.dry_run is false, and the hub is switched off")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "publish.dry_run is false, and not logged in to the hub; run `hf auth login`" in refusal(
        recipe, dry_run=False
    )
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    stage.check(Publish(model="a/b", base_license="mit", dry_run=False), load_recipe(recipe))


def test_the_check_is_made_by_the_command(recipe: Path, tmp_path: Path) -> None:
    refused = langgraft("run", recipe, "--runs", tmp_path, "--set", "publish.model=someone/model")
    assert refused.code == 2
    assert "the base's licence is unknown" in refused.sentence()
    assert not list(tmp_path.iterdir())


def test_it_needs_export_and_evaluate(tmp_path: Path, pico: Path) -> None:
    path = pico_recipe(tmp_path, pico)
    start, _, rest = path.read_text(encoding="utf-8").partition("[evaluate]")
    path.write_text(start + "[export]" + rest.partition("[export]")[2], encoding="utf-8")
    recipe = load_recipe(path, ["publish.model=a/b"])
    with pytest.raises(RecipeError, match=r"section \[publish\] needs \[evaluate\]"):
        plan(recipe, tmp_path / "runs")


def test_the_list_is_json_for_programs(finished: Finished, tmp_path: Path) -> None:
    done = finished.copy(tmp_path).again(*MODEL, "--only", "publish", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["publish"]["publications"][0]["repository"] == "someone/model"
