"""Fixtures shared by every test folder."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command import Finished

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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Finished":
    """All six stages of the pico recipe, run by the real command; read it, and copy it before changing it."""
    from command import Finished, process
    from pico import pico_recipe, pico_writer

    folder = tmp_path_factory.mktemp("finished")
    with_gguf = importlib.util.find_spec("llama_cpp") is not None
    recipe = pico_recipe(folder / "recipe", pico_writer(folder / "base"), gguf=with_gguf)
    done = process("run", recipe, "--runs", folder / "runs", "--json")
    (folder / "stdout.json").write_text(done.out, encoding="utf-8")
    assert done.code == 0, done.err
    return Finished(recipe, folder / "runs")
