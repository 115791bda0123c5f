"""Teach an existing language model a new language, and prove what was gained, kept and saved."""

import importlib
from typing import Any

# Public names, imported when first used: `import langgraft` loads no torch.
_PUBLIC = {
    "evaluate": "langgraft.evaluation.compare:compare",
    "export": "langgraft.exporting.formats:export",
    "extend_model": "langgraft.surgery.extend:extend_model",
    "extend_tokenizer": "langgraft.tokenizer.extend:extend",
    "load_adapter": "langgraft.training.adapter:load_adapter",
    "train": "langgraft.training.continual:train",
    "tune": "langgraft.training.continual:tune",
}
__all__ = sorted(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module `langgraft` has no attribute `{name}`; it has {', '.join(_PUBLIC)}")
    module, function = _PUBLIC[name].split(":")
    return getattr(importlib.import_module(module), function)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
