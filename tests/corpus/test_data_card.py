"""The data card: metadata the hub reads, licences it knows, and every figure that of the files beside it."""

from pathlib import Path
from typing import Any

import pytest

from langgraft.corpus.card import data_card, hub_license, write_card
from langgraft.corpus.document import Input
from langgraft.corpus.filters import defaults
from langgraft.corpus.prepare import prepare
from langgraft.errors import CorpusError
from langgraft.progress import Log
from langgraft.store import read_json, sha256_file, write_json


@pytest.mark.parametrize(
    ("given", "hub"),
    [
        ("CC-BY-SA-4.0", "cc-by-sa-4.0"),
        ("GPL-2.0-or-later", "gpl-2.0"),
        ("GPL-3.0+", "gpl-3.0"),
        ("Apache 2.0", "apache-2.0"),
        ("", "unknown"),
        ("GPL-2.0+ or CC-BY-SA-3.0", "other"),
        ("PD", "other"),
    ],
)
def test_licences_as_the_hub_names_them(given: str, hub: str) -> None:
    assert hub_license(given) == hub


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = [f"Number {i} is a line of an English text about the weather in the north." for i in range(60)]
    (tmp_path / "a.txt").write_text("\n".join([*lines[:40], lines[0]]))
    (tmp_path / "b.txt").write_text(
        "\n".join(f"Write to me at reader{i}@post.org about number {i}." for i in range(20))
    )
    inputs = [Input(str(tmp_path / "a.txt"), license="CC0-1.0", name="a | b"), Input(str(tmp_path / "b.txt"), name="b")]
    options: dict[str, Any] = {"near_duplicates": False, "thresholds": defaults("en"), "mask": ["email"]}
    prepare(inputs, tmp_path / "out", language="en", dev=3, test=3, log=Log(quiet=True), **options)
    return tmp_path / "out"


def test_the_card_is_one_the_hub_reads(corpus: Path) -> None:
    from huggingface_hub import DatasetCard

    write_card(corpus)
    card = DatasetCard((corpus / "README.md").read_text(encoding="utf-8"))
    assert card.data.language == ["en"]
    assert card.data.license == ["cc0-1.0", "unknown"]
    assert card.data.size_categories == ["n<1K"]
    (config,) = card.data.configs
    assert [file["split"] for file in config["data_files"]] == ["train", "validation", "test"]
    assert all((corpus / file["path"]).is_file() for file in config["data_files"])


def test_the_hubs_library_loads_the_folder(corpus: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_card(corpus)
    found = datasets.load_dataset(str(corpus), "target", cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in found.items()} == {"train": 54, "validation": 3, "test": 3}


def test_figures_are_those_of_the_files(corpus: Path) -> None:
    facts = write_card(corpus)
    assert facts == read_json(corpus / "card.json")
    assert facts["documents"] == 60
    assert {(row["source"], row["license"], row["documents"]) for row in facts["sources"]} == {
        ("a | b", "CC0-1.0", 40),
        ("b", "", 20),
    }
    assert facts["dropped"]["target"] == {"duplicate": 1}
    assert facts["sha256"]["target/train.jsonl.gz"] == sha256_file(corpus / "target" / "train.jsonl.gz")
    text = (corpus / "README.md").read_text(encoding="utf-8")
    assert "> **Licence unknown: b.** Find it out" in text
    assert "| a \\| b | en | CC0-1.0 | 40 |" in text
    assert "English: 1 of 61 documents." in text
    assert "email 20" in text
    assert data_card(facts) == text


def test_nothing_masked_is_said(corpus: Path) -> None:
    facts = write_card(corpus)
    assert "not looked for" in data_card({**facts, "mask": {"target": []}})


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"holds no summary\.json; prepare a corpus there first"):
        write_card(tmp_path)
    write_json(tmp_path / "summary.json", {"seed": 0, "target": {"splits": {}}, "source": None})
    with pytest.raises(CorpusError, match="by an older langgraft; prepare it again"):
        write_card(tmp_path)
