"""surgery: give the base rows for the new tokens."""

from pathlib import Path
from typing import Any

from langgraft.pipeline import Inputs
from langgraft.recipe import Surgery
from langgraft.surgery.resize import resize


def run(section: Surgery, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/model`."""
    return resize(
        inputs.base(),
        inputs.folders["tokenizer"] / "tokenizer",
        out / "model",
        init=section.init,
        options=section.options,
        pad_to_multiple_of=section.pad_to_multiple_of,
        seed=section.seed,
    )
