"""Models that answer: a hub folder or an adapter on transformers, or a GGUF file on llama.cpp."""

from pathlib import Path

from langgraft.base import adapter_folder, locate, materialise
from langgraft.errors import InputError
from langgraft.serving.hub import HubModel
from langgraft.serving.model import LanguageModel, cores


def open_model(name: str, *, context: int = 0, slots: int = 1, threads: int = 0, device: str = "auto") -> LanguageModel:
    """Load a model by folder (a model's or an adapter's), `.gguf` file, `package:NAME` or hub id.

    Args:
        context: tokens per text; 0: what the model was made for, at most 4,096.
        slots: texts kept in memory side by side.
        threads: CPU threads; 0: every core.
        device: for hub folders: auto, cpu, cuda, mps.

    Raises:
        ModelError: there is no such model, or it cannot be loaded.
        LanggraftError: a GGUF file without llama-cpp-python.
        TokenizerError: the tokenizer does not fit the model, or is not the one that was proven.
    """
    if context < 0 or slots < 1:
        raise InputError("context must not be negative, and there must be at least one slot")
    adapter = adapter_folder(name)
    if adapter is not None:
        return HubModel(adapter, context=context, slots=slots, threads=cores(threads), device=device)
    base = locate(name)
    if base.kind == "gguf":
        from langgraft.serving.gguf import GgufModel

        assert base.path is not None
        return GgufModel(base.path, context=context, slots=slots, threads=cores(threads))
    folder = materialise(base, Path("unused"))  # folders and hub snapshots stay where they are
    return HubModel(folder, context=context, slots=slots, threads=cores(threads), device=device)
