"""The models that are served in these tests: pico ones that have read a little English, as hub folder and as GGUF."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from langgraft.serving.model import LanguageModel
from langgraft.serving.models import open_model


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub folder whose model writes English words."""
    from pico import pico_writer

    return pico_writer(tmp_path_factory.mktemp("served") / "pico-writer", steps=600, rate=5e-3, falling=True)


@pytest.fixture(scope="session")
def writer_gguf(writer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a GGUF file, where llama.cpp is installed."""
    pytest.importorskip("llama_cpp")
    from langgraft.exporting.gguf_writer import write_gguf

    path = tmp_path_factory.mktemp("served-gguf") / "pico-writer-gguf.gguf"
    write_gguf(writer, path, quant="f32", name="pico-writer")
    return path


@pytest.fixture(params=["hub", "gguf"], scope="session")
def either(request: pytest.FixtureRequest) -> Path:
    """Both, one after the other."""
    return request.getfixturevalue("writer" if request.param == "hub" else "writer_gguf")


@pytest.fixture(scope="session")
def model(either: Path) -> Iterator[LanguageModel]:
    """Both, loaded, with room for two texts of 128 tokens."""
    opened = open_model(str(either), context=128, slots=2, threads=1)
    yield opened
    opened.close()
