"""Publishing: the list is what goes, licences and gates are minded, and the token stays out of every message."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Finished, langgraft
from hub import hub
from huggingface_hub import ModelCard

from langgraft.errors import GateError, ModelError
from langgraft.exporting.formats import export_hf
from langgraft.exporting.manifest import MANIFEST
from langgraft.exporting.publish import Source, plan_data_card, plan_publication, source_of, without_token
from langgraft.store import write_json

TOKEN = "hf_" + "fakeFAKEfake0123456789"


@pytest.fixture(scope="module")
def exported(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("publish") / "hf"
    export_hf(pico, out)
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_json(folder / "card.json", {"licenses": ["cc-by-sa-4.0", "cc0-1.0"]})
    (folder / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n\n# Text\n", encoding="utf-8")
    return folder


def command(*arguments: object, url: str = "http://127.0.0.1:9", token: str | None = TOKEN) -> tuple[int, str]:
    """The real command in a process of its own, against a hub at `url`: exit code, everything it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_DEBUG": "0"}
    environment |= {"HF_TOKEN": token} if token else {"HF_TOKEN_PATH": os.devnull}
    line = [sys.executable, "-m", "langgraft", "publish", *map(str, arguments)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_dry_run_lists_exactly_what_goes(exported: Path, data: Path) -> None:
    (exported / "optimizer.pt").write_bytes(b"not exported")
    options = ["--to", "someone/model", "--data", data, "--base-license", "apache-2.0", "--json"]
    dry = langgraft("publish", exported, "--dry-run", *options)
    assert dry.code == 0, dry.err
    planned = json.loads(dry.out)
    assert (planned["license"], planned["url"], planned["private"]) == ("cc-by-sa-4.0", None, False)
    with hub() as server:
        code, said = command(exported, "--private", *options, url=server.url)
    assert code == 0, said
    assert TOKEN not in said
    assert server.tokens == {f"Bearer {TOKEN}"} or server.tokens == {f"Bearer {TOKEN}", ""}
    assert server.created[0].get("visibility") == "private" or server.created[0].get("private") is True
    assert "POST /api/validate-yaml" in server.log
    sent = [
        {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(server.files.items())
    ]
    assert sent == planned["files"]
    assert {"model.safetensors", "tokenizer.json", "README.md", "data/card.json", MANIFEST} <= set(server.files)
    assert "optimizer.pt" not in server.files
    card = ModelCard(server.files["README.md"].decode("utf-8"))
    assert card.data.license == "cc-by-sa-4.0"
    (exported / "optimizer.pt").unlink()


def test_no_message_tells_the_token(exported: Path) -> None:
    options = [exported, "--to", "someone/model", "--license", "mit"]
    with hub(refuse=403) as server:
        code, said = command(*options, url=server.url)
    assert code == 2
    assert "the hub refused someone/model" in said
    assert "Traceback" not in said
    assert TOKEN not in said
    code, said = command(*options)
    assert code == 2
    assert said.splitlines()[-1].startswith("langgraft: the hub at http://127.0.0.1:9 cannot be reached")
    assert TOKEN not in said
    code, said = command(*options, token=None)
    assert code == 2
    assert "not logged in to the hub; run `hf auth login`" in said


def test_tokens_are_taken_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-of-another-form")
    text = without_token(f"Bearer {TOKEN}\n and secret-of-another-form, and hf_OTHERtoken99", "x" * 20)
    assert text == "Bearer [token] and [token], and [token]"


def test_gates_and_changes_stop_it(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(exported, folder)
    plan = {"license_": "mit"}
    assert plan_publication(Source(folder), "a/b", **plan).license == "mit"
    bad = Source(folder, gates=[{"name": "kept its English", "passed": False, "value": "4%"}])
    with pytest.raises(GateError, match=r"a gate failed: kept its English \(4%\); --force"):
        plan_publication(bad, "a/b", **plan)
    assert plan_publication(bad, "a/b", force=True, **plan).repository == "a/b"
    (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(GateError, match=r"every file is as it was exported .*changed: config\.json"):
        plan_publication(Source(folder), "a/b", **plan)
    (folder / MANIFEST).unlink()
    with pytest.raises(GateError, match="did not finish"):
        plan_publication(Source(folder), "a/b", **plan)


def test_licences_stop_it(exported: Path, data: Path, tmp_path: Path) -> None:
    source = Source(exported)
    with pytest.raises(ModelError, match="nothing is known of the text"):
        plan_publication(source, "a/b")
    with pytest.raises(ModelError, match=r"the base's licence is unknown.*--base-license"):
        plan_publication(source, "a/b", data=data)
    write_json(tmp_path / "card.json", {"licenses": ["cc-by-nc-4.0"]})
    with pytest.raises(ModelError, match=r"--license apache-2\.0 drops what cc-by-nc-4\.0 asks for"):
        plan_publication(source, "a/b", data=tmp_path, base_license="mit", license_="apache-2.0")
    forced = plan_publication(source, "a/b", data=tmp_path, base_license="mit", license_="apache-2.0", force=True)
    assert forced.license == "apache-2.0"
    with pytest.raises(ModelError, match=r"has no card\.json"):
        plan_publication(source, "a/b", data=exported)
    with pytest.raises(ModelError, match="must be owner/name"):
        plan_publication(source, "model", license_="mit")


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("README.md", "---\nlicense: gemma\n---\n\n# Base\n", "gemma"),
        ("LICENSE", "   Apache License\n  Version 2.0", "apache-2.0"),
        ("LICENSE", "MIT License\n\nCopyright", "mit"),
    ],
)
def test_the_bases_licence_is_read(file: str, text: str, expected: str, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / file).write_text(text, encoding="utf-8")
    write_json(tmp_path / "card.json", {"licenses": ["cc0-1.0"]})
    source = Source(exported, base=str(tmp_path / "base"), language=("yue", "en"))
    plan = plan_publication(source, "a/b", data=tmp_path)
    assert plan.license == expected
    card = plan.files["README.md"]
    assert isinstance(card, bytes)
    assert ModelCard(card.decode("utf-8")).data.language == ["yue", "en"]


def test_cards_that_are_there_are_kept(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(exported, folder)
    (folder / "README.md").write_text("---\ntags:\n- mine\n---\n\n# My own words\n", encoding="utf-8")
    source = Source(folder, base="owner/base-model")
    card = plan_publication(source, "a/b", license_="other").files["README.md"]
    assert isinstance(card, bytes)
    read = ModelCard(card.decode("utf-8"))
    assert "# My own words" in read.text
    assert (read.data.license, read.data.license_name, read.data.tags) == ("other", "see-card", ["mine"])
    assert read.data.base_model == "owner/base-model"
    (folder / "README.md").write_text("---\n: [\n---\n# x\n", encoding="utf-8")
    with pytest.raises(ModelError, match="no valid metadata"):
        plan_publication(source, "a/b", license_="mit")


def test_a_folder_of_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "m-f16.gguf").write_bytes(b"GGUF")
    write_json(tmp_path / MANIFEST, {"version": 1, "format": "gguf", "files": {"m-f16.gguf": {
        "bytes": 4, "sha256": hashlib.sha256(b"GGUF").hexdigest()}}, "gates": []})  # fmt: skip
    plan = plan_publication(source_of(tmp_path), "a/b", license_="mit")
    assert sorted(plan.files) == ["README.md", MANIFEST, "m-f16.gguf"]


def test_a_run_is_published_with_its_cards(finished: Finished) -> None:
    source = source_of(finished.run)
    assert source.folder.name == "hf"
    assert source.language[:2] == ("yue", "en")
    dry = langgraft(
        "publish", finished.run, "--to", "a/b", "--dry-run", "--base-license", "apache-2.0", "--force", "--json"
    )
    assert dry.code == 0, dry.err
    planned = json.loads(dry.out)
    assert planned["license"] == "apache-2.0"
    assert "data/README.md" in [entry["name"] for entry in planned["files"]]


def test_a_data_card_of_its_own(exported: Path, data: Path, tmp_path: Path) -> None:
    options = ["--to", "a/b", "--data", data, "--base-license", "mit", "--dry-run", "--json"]
    done = langgraft("publish", exported, *options, "--data-to", "a/text")
    assert done.code == 0, done.err
    planned = json.loads(done.out)
    assert (planned["data"]["repository"], planned["data"]["kind"], planned["kind"]) == ("a/text", "dataset", "model")
    assert [file["name"] for file in planned["data"]["files"]] == ["README.md", "card.json"]
    assert "nothing was uploaded to a/text" in done.err
    assert json.loads(langgraft("publish", exported, *options).out)["data"] is None
    with pytest.raises(ModelError, match="--data-to text must be owner/name"):
        plan_data_card(Source(exported, data=data), "text")
    with pytest.raises(ModelError, match=r"there is no data card; give what .* with --data"):
        plan_data_card(Source(exported), "a/text")
    (tmp_path / "README.md").write_text("---\n: [\n---\n# x\n", encoding="utf-8")
    write_json(tmp_path / "card.json", {"licenses": ["mit"]})
    with pytest.raises(ModelError, match="no valid metadata"):
        plan_data_card(Source(exported), "a/text", data=tmp_path)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a run"):
        source_of(tmp_path)
    write_json(tmp_path / "report.json", {"stages": [{"name": "corpus", "folder": "corpus-1"}]})
    with pytest.raises(ModelError, match="exported no hub folder"):
        source_of(tmp_path)
