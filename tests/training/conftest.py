"""A packed pico corpus for the training tests."""

from pathlib import Path

import pytest
from pico import CANTONESE, ENGLISH

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
