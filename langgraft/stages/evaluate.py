"""evaluate: what was gained, what was kept, what text costs now - on the test split, base against adapted."""

from pathlib import Path
from typing import Any

from langgraft.corpus.prepare import read_split
from langgraft.errors import RecipeError
from langgraft.evaluation.compare import Bounds, compare, gates
from langgraft.evaluation.prompts import chosen, read_prompts
from langgraft.evaluation.side_by_side import side_by_side
from langgraft.recipe import Evaluate, Recipe
from langgraft.runs import Inputs
from langgraft.store import write_json
from langgraft.text import language


def check(section: Evaluate, recipe: Recipe) -> None:
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: there would be no test split, windows would pass over tokens, or the file of prompts is damaged.
    """
    if section.prompts.file:
        read_prompts(Path(section.prompts.file))
    if recipe.corpus.test == 0:
        raise RecipeError("corpus.test is 0, but the evaluate stage measures on the test split; hold out two documents")
    if section.stride > section.window:
        raise RecipeError(
            f"evaluate.stride ({section.stride}) must not be above evaluate.window ({section.window}), "
            "or tokens are passed over"
        )


def run(section: Evaluate, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/results.json`. Failed gates are in the summary; the pipeline exits 1 on them at the end."""
    base, adapted = inputs.base(), inputs.folders["pretrain"] / "model"
    text = inputs.folders["corpus"] / "text"
    sides: dict[str, dict[str, Any]] = {}
    for side, code in (("target", inputs.model.language), ("source", inputs.model.source_language)):
        if not (text / side).is_dir():
            continue
        # Splits are in an order decided by hashes, so the first documents are a fair sample.
        documents = [document.text for document in read_split(text, side, "test")][: section.documents]
        if not documents and side == "source":
            continue  # corpus.source_test = 0: all of it is replay
        sides[side] = compare(
            base,
            adapted,
            documents,
            language(code),
            window=section.window,
            stride=section.stride,
            resamples=section.resamples,
            seed=section.seed,
            device=inputs.compute.device,
            threads=inputs.compute.threads,
            log=inputs.log,
        )
        change = sides[side]["bits_per_byte"]["change"]
        inputs.log.say(f"evaluate: {language(code).name} bits per byte {change['mean']:+.2%}")
    names = language(inputs.model.language).name, language(inputs.model.source_language).name
    bounds = Bounds(**section.gates.model_dump())
    result = {
        "bits_per_byte": {side: found["bits_per_byte"] for side, found in sides.items()},
        "tokens": {
            **{side: found["tokens"] for side, found in sides.items()},
            "example": sides["target"]["example"],
        },
        "gates": gates(sides["target"], sides.get("source"), bounds, *names),
        "generations": _generations(section, inputs, base, adapted),
    }
    write_json(out / "results.json", result)
    return result


def _generations(section: Evaluate, inputs: Inputs, base: Path, adapted: Path) -> list[dict[str, Any]]:
    """Side by side: the base, the base with new rows, and the trained model."""
    wanted, file = section.prompts, section.prompts.file
    own = read_prompts(Path(file)) if file else []
    codes = {inputs.model.language: wanted.target, inputs.model.source_language: wanted.source}
    prompts = [p for code, texts in codes.items() for p in chosen(code, texts, own, with_shipped=wanted.shipped)]
    folders = {"base": base, "surgery": inputs.folders["surgery"] / "model", "adapted": adapted}
    return side_by_side(
        folders,
        prompts,
        max_new_tokens=section.max_new_tokens,
        device=inputs.compute.device,
        threads=inputs.compute.threads,
        log=inputs.log,
    )
