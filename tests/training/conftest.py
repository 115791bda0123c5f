"""A packed pico corpus and quick settings for the training tests."""

from pathlib import Path

import pytest
from pico import CANTONESE, ENGLISH

from langgraft.tokenizer.files import load
from langgraft.training.loop import Compute, Settings
from langgraft.training.packing import pack

QUICK = Settings(steps=6, length=32, batch_rows=3, learning_rate=2e-3, new_rows_learning_rate=5e-3)
ONE_THREAD = Compute(device="cpu", dtype="float32", threads=1, micro_rows=2, checkpoint_every=2)


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
