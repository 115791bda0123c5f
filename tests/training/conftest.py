"""A packed pico corpus for the training tests."""

from pathlib import Path

import pytest
from pico import CANTONESE, ENGLISH
from shared_runs import Runs

from langgraft.tokenizer.files import load
from langgraft.training.packing import pack


@pytest.fixture(scope="session")
def target(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed Cantonese."""
    out = tmp_path_factory.mktemp("packed") / "target"
    pack(load(pico), CANTONESE, out, separator=0)
    return out


@pytest.fixture(scope="session")
def replay(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed English."""
    out = tmp_path_factory.mktemp("packed") / "replay"
    pack(load(pico), ENGLISH, out, separator=0)
    return out


@pytest.fixture(scope="module")
def runs(pico: Path, pico_untied: Path, target: Path, replay: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Where this module trains in one process and in several."""
    models = {"tied": pico, "untied": pico_untied}
    return Runs(tmp_path_factory.mktemp("together"), models, target, replay)
