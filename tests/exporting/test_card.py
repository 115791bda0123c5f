"""The model card says what was measured and nothing more."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from langgraft.errors import ModelError
from langgraft.exporting.card import model_card, write_card

FACTS: dict[str, Any] = {
    "name": "Pico Yue",
    "summary": "A test model.",
    "language": ["yue", "en"],
    "license": "apache-2.0",
    "base_model": "owner/base",
    "datasets": ["owner/data"],
    "tags": ["cantonese"],
    "new_tokens": 2048,
    "bits_per_byte": [
        {"text": "Cantonese", "base": 3.593, "model": 2.516, "low": -1.1, "high": -1.05},
        {"text": "English", "base": 1.075, "model": 1.06},
    ],
    "fertility": [{"text": "Cantonese", "unit": "tokens per character", "base": 1.9, "model": 0.8}],
    "gates": [
        {"name": "round trip", "passed": True},
        {"name": "scope", "passed": False, "detail": "3 | changed"},
    ],
    "data": [
        {"source": "wiki", "license": "CC-BY-SA-4.0", "documents": 1234},
        {"source": "own", "license": "CC0"},
    ],
    "training": {"tokens": 1_000_000, "learning_rate": 0.0005},
    "token_parity": {"lines": 633, "mismatches": 0},
    "kl_divergence": {"f16": {"mean": 2e-6, "max": 3e-5, "top1_agreement": 1.0, "positions": 652}},
    "limits": ["It makes things\nup."],
    "versions": {"langgraft": "0.1.0"},
}


def parts(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_full_card(pico: Path) -> None:
    front, body = parts(model_card(pico, FACTS))
    assert front == {
        "language": ["yue", "en"],
        "license": "apache-2.0",
        "base_model": "owner/base",
        "datasets": "owner/data",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["langgraft", "vocabulary-extension", "cantonese"],
    }
    for piece in (
        "# Pico Yue",
        "| Base | `owner/base` |",
        "| Tokens | 400 |",
        "| Context length | 256 |",
        "| Cantonese | 3.593 | 2.516 | -1.1 to -1.05 |",
        "| English | 1.075 | 1.06 |  |",
        "| Cantonese (tokens per character) | 1.9 | 0.8 |",
        "| scope | FAILED | 3 \\| changed |",
        "| wiki | CC-BY-SA-4.0 | 1,234 |",
        "| own | CC0 |  |",
        "| learning rate | 0.0005 |",
        "633 lines in many scripts compared token for token with llama.cpp: 0 differ.",
        "| f16 | 2e-06 | 3e-05 | 100.0% | 652 |",
        "- It makes things up.",
    ):
        assert piece in body, piece


def test_nothing_is_invented(pico: Path) -> None:
    front, body = parts(model_card(pico, {"license": None}))
    assert front == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["langgraft"]}
    assert [line for line in body.splitlines() if line.startswith("#")] == ["# model", "## Model"]
    assert "Base" not in body
    assert "None" not in body


def test_same_facts_same_card(pico: Path, tmp_path: Path) -> None:
    assert model_card(pico, FACTS) == model_card(pico, dict(FACTS))
    import shutil

    shutil.copytree(pico, tmp_path / "m")
    path = write_card(tmp_path / "m", FACTS)
    assert path.read_text(encoding="utf-8") == model_card(pico, FACTS)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"licence": "mit"}, "unknown fact `licence`; did you mean `license`"),
        ({"language": "yue"}, "`language` must be a list"),
        ({"training": [1]}, "`training` must be a mapping"),
        ({"bits_per_byte": [{"text": "a", "base": 1}]}, "entry 1 of `bits_per_byte` lacks model"),
        ({"gates": ["ok"]}, "entry 1 of `gates` lacks name, passed"),
    ],
)
def test_wrong_facts(facts: dict[str, Any], message: str, pico: Path) -> None:
    with pytest.raises(ModelError, match=message):
        model_card(pico, facts)
