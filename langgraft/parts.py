"""The corpus stage in parts: several machines clean text side by side, and `pipeline.run` then joins their shards."""

from pathlib import Path
from typing import Any

from langgraft.base import locate
from langgraft.corpus.part import Part
from langgraft.pipeline import base_hash, check, plan, run_folder
from langgraft.progress import Log
from langgraft.recipe import Recipe
from langgraft.runs import Inputs, LazyBase
from langgraft.store import disk_errors, lock


def run_part(recipe: Recipe, runs: Path, part: Part) -> dict[str, Any]:
    """Clean one part of the corpus stage's text, beside other processes on any machine that shares `runs`.

    Returns what was read and kept; nothing if the stage is done.

    Raises:
        RecipeError: as for `pipeline.run`.
        InputError: as for `pipeline.run`.
        BusyError: `pipeline.run` is at work on this recipe.
    """
    from langgraft.stages.corpus import clean_part

    root = run_folder(recipe, runs)
    check(recipe, plan(recipe, runs), only="corpus")
    with disk_errors(root), lock(root, what=f"{recipe.name}, part {part}", shared=True):
        log = Log(root / "log.txt")
        planned = plan(recipe, runs)
        item = next(item for item in planned if item.stage.name == "corpus")
        if item.state == "done":
            log.say(f"corpus: done ({item.folder.name})")
            return {}
        base = LazyBase(locate(recipe.model.base, recipe.model.revision), base_hash(planned), root / "cache", log)
        inputs = Inputs(recipe.name, {}, recipe.model, recipe.compute, base, base.key, root / "cache", log)
        item.folder.mkdir(parents=True, exist_ok=True)
        return clean_part(recipe.corpus, inputs, item.folder, part)
