"""Fixtures shared by every test folder."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico Llama with tied embeddings and its tokenizer."""
    from pico import pico_model

    return pico_model(tmp_path_factory.mktemp("pico") / "model")


@pytest.fixture(scope="session")
def pico_untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico Llama with a head of its own."""
    from pico import pico_model

    return pico_model(tmp_path_factory.mktemp("pico") / "untied", tie=False)
