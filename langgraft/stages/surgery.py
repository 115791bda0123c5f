"""surgery: give the base rows for the new tokens."""

from pathlib import Path
from typing import Any

from langgraft.methods import check_options, resolve
from langgraft.recipe import Recipe, Surgery
from langgraft.runs import Inputs
from langgraft.surgery.init import INITS
from langgraft.surgery.resize import resize


def check(section: Surgery, recipe: Recipe) -> None:  # noqa: ARG001
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: `init` or one of its options is unknown.
    """
    what = f"surgery.init `{section.init}`"
    options = {"generator": None, **section.options}  # the generator comes from the seed
    check_options(resolve(INITS, section.init, what="surgery.init"), options, what=what)


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
