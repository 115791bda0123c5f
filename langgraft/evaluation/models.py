"""Models to measure: hub folders, adapter folders, GGUF files on llama.cpp, OpenAI-compatible servers."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from langgraft.base import adapter_folder, content_of, locate, materialise
from langgraft.errors import InputError
from langgraft.evaluation.likelihood import Scorer

Kind = Literal["folder", "adapter", "gguf", "endpoint"]


@dataclass(frozen=True)
class Measured:
    """A model to measure, by the name that results call it: `model` is a path, a hub id or a URL with `#NAME`."""

    name: str
    model: str
    kind: Kind

    def as_dict(self) -> dict[str, str]:
        """`{"name", "model", "kind"}`, as results hold it."""
        return {"name": self.name, "model": self.model, "kind": self.kind}


def kind_of(model: str) -> Kind:
    """What kind of model a name means.

    Raises:
        ModelError: there is no such model.
    """
    if model.startswith(("http://", "https://")):
        return "endpoint"
    if adapter_folder(model) is not None:
        return "adapter"
    # A package's GGUF is a base to teach: it is dequantised, as the stages do. A file is measured as it will run.
    return "gguf" if locate(model).kind == "gguf" and not model.startswith("package:") else "folder"


def named(models: Sequence[str]) -> list[Measured]:
    """Models as the user names them: `NAME=MODEL`, or `base` and `adapted` for two of them without names.

    Raises:
        InputError: two have the same name.
        ModelError: there is no such model.
    """
    usual = ("base", "adapted") if len(models) == 2 else ("base",)
    found: list[Measured] = []
    for number, given in enumerate(models):
        name, equals, model = given.partition("=")
        if not equals or "/" in name:
            model = given
            name = usual[number] if number < len(usual) else _short(given)
        found.append(Measured(name, model, kind_of(model)))
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two models are called `{twice}`; give them names, as in --models NAME=MODEL")
    return found


def _short(model: str) -> str:
    return model.rpartition("#")[2] if "#" in model else Path(model).name


def identity_of(one: Measured) -> str:
    """What tells this model from any other: a hash of its files, or its address."""
    return one.model if one.kind == "endpoint" else content_of(one.model)


@contextlib.contextmanager
def folder_of(one: Measured) -> Iterator[Path]:
    """The model as a hub folder; that of an adapter (merged) or of a GGUF file lives as long as the block.

    Raises:
        InputError: it is an endpoint, of which there is no folder.
        ModelError: it cannot be read.
    """
    if one.kind == "endpoint":
        raise InputError(f"{one.model} is an endpoint; this measure needs the model's own files")
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        if one.kind == "adapter":
            from langgraft.training.adapter import merge_adapter

            yield merge_adapter(Path(one.model).expanduser(), Path(scratch) / "merged")
        else:
            yield materialise(locate(one.model), Path(scratch) / "base")


@contextlib.contextmanager
def open_scorer(one: Measured, *, device: str = "auto", threads: int = 0) -> Iterator[Scorer]:
    """A model ready to be measured; it is let go at the end of the block.

    Raises:
        ModelError: it cannot be loaded, or the server does not answer.
        LanggraftError: a GGUF file without llama-cpp-python.
    """
    if one.kind == "endpoint":
        from langgraft.evaluation.endpoint_scorer import EndpointScorer

        url, _, name = one.model.partition("#")
        yield EndpointScorer(url, name)
        return
    if one.kind == "gguf":
        from langgraft.evaluation.gguf_scorer import GgufScorer

        path = locate(one.model).path
        assert path is not None
        with contextlib.closing(GgufScorer(path, threads=threads)) as gguf:
            yield gguf
        return
    from langgraft.evaluation.torch_scorer import TorchScorer

    with (
        folder_of(one) as folder,
        contextlib.closing(TorchScorer(folder, kind=one.kind, device=device, threads=threads)) as opened,
    ):
        yield opened
