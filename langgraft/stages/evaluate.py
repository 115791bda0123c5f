"""evaluate: what was gained, what was kept, what text costs now - on the test split, base against adapted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langgraft.corpus.document import Document
from langgraft.corpus.prepare import read_split
from langgraft.errors import RecipeError
from langgraft.evaluation.chat_ends import QUESTIONS
from langgraft.evaluation.classification import Labelled
from langgraft.evaluation.compare import Bounds, gates, tokens
from langgraft.evaluation.generation import beginnings, quality, same_chats
from langgraft.evaluation.models import Measured
from langgraft.evaluation.overlap import check_tokenizer
from langgraft.evaluation.prompts import chosen, read_prompts
from langgraft.evaluation.side_by_side import continuations, side_by_side
from langgraft.evaluation.suite import Way
from langgraft.evaluation.suite import evaluate as measure_all
from langgraft.evaluation.summarisation import Summaries
from langgraft.evaluation.translation import Translation
from langgraft.evaluation.wanted import Wanted, as_listed, measures
from langgraft.recipe import Evaluate, Recipe
from langgraft.runs import MARKER, Inputs
from langgraft.store import read_json, write_json
from langgraft.text import language

SCORES = "scores"  # what is known so far, in the stage's folder


def check(section: Evaluate, recipe: Recipe) -> None:
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: there would be no test split, windows would pass over tokens, or the file of prompts is damaged.
        InputError: BLEU's tokenizer cannot be used here.
    """
    if section.prompts.file:
        read_prompts(Path(section.prompts.file))
    if recipe.corpus.test == 0:
        raise RecipeError("corpus.test is 0, but the evaluate stage measures on the test split; hold out two documents")
    if section.translation.tokenizer != "auto":
        check_tokenizer(section.translation.tokenizer)
    if section.stride > section.window:
        raise RecipeError(
            f"evaluate.stride ({section.stride}) must not be above evaluate.window ({section.window}), "
            "or tokens are passed over"
        )


def run(section: Evaluate, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/results.json`. Failed gates are in the summary; the pipeline exits 1 on them at the end."""
    models = [
        Measured("base", str(inputs.base()), "folder"),
        Measured("adapted", str(inputs.trained / "model"), "folder"),
    ]
    texts = _texts(section, inputs)
    codes = {"target": language(inputs.model.language), "source": language(inputs.model.source_language)}
    result = measure_all(
        models,
        measures(
            _wanted(section, inputs),
            texts,
            codes["target"],
            codes["source"],
            window=section.window,
            stride=section.stride,
            documents=section.documents,
            log=inputs.log,
        ),
        out / SCORES,
        way=Way(section.resamples, section.seed),
        device=inputs.compute.device,
        threads=inputs.compute.threads,
        log=inputs.log,
    )
    bits = result["bits_per_byte"]
    for side, found in bits.items():
        inputs.log.say(f"evaluate: {codes[side].name} bits per byte {found['change']['mean']:+.2%}")
    base, adapted = (Path(one.model) for one in models)
    costs = {side: tokens(base, adapted, [one.text for one in of], codes[side]) for side, of in texts.items()}
    sides = {side: {"bits_per_byte": bits[side], **costs[side]} for side in texts}
    bounds = Bounds(**section.gates.model_dump())
    result |= {
        "models": [
            {"name": "base", "model": inputs.model.base, "kind": "folder"},
            {"name": "adapted", "model": f"{inputs.trained.name}/model", "kind": "folder"},
        ],
        "tokens": {**{side: cost["tokens"] for side, cost in costs.items()}, "example": costs["target"]["example"]},
        "gates": gates(sides["target"], sides.get("source"), bounds, *(of.name for of in codes.values())),
        "generations": _generations(section, inputs, base),
        "chat": {**same_chats(base, adapted), **result.get("chat", {})},
    }
    if section.generated:
        result["generation"] = _generated(section, inputs, texts, base, adapted)
    result = as_listed(result)
    write_json(out / "results.json", result)
    return result


def _texts(section: Evaluate, inputs: Inputs) -> dict[str, list[Document]]:
    """Test documents by side; splits are in an order decided by hashes, so the first ones are a fair sample."""
    folder = inputs.folders["corpus"] / "text"
    found = {
        side: list(read_split(folder, side, "test"))[: section.documents]
        for side in ("target", "source")
        if (folder / side).is_dir()
    }
    # corpus.source_test = 0: all of it is replay
    return {side: documents for side, documents in found.items() if documents or side == "target"}


def _wanted(section: Evaluate, inputs: Inputs) -> Wanted:
    def training() -> Iterator[str]:
        return (document.text for document in read_split(inputs.folders["corpus"] / "text", "target", "train"))

    return Wanted(
        **section.choice.model_dump(),
        minimal_pairs=section.minimal_pairs,
        code_mixed=section.code_mixed,
        classification={name: Labelled(**one.model_dump()) for name, one in section.classification.items()},
        translation=Translation(**section.translation.model_dump()),
        summarisation={name: Summaries(**one.model_dump()) for name, one in section.summarisation.items()},
        chat_messages=[*QUESTIONS[: section.chat.questions], *section.chat.messages],
        chat_tokens=section.chat.max_new_tokens,
        training=training,
        seed=section.seed,
    )


def _generated(
    section: Evaluate, inputs: Inputs, texts: dict[str, list[Document]], base: Path, adapted: Path
) -> dict[str, Any]:
    found = {}
    for side, of in texts.items():
        prompts = beginnings([one.text for one in of], section.generated)
        code = inputs.model.language if side == "target" else inputs.model.source_language
        how = {"max_new_tokens": section.max_new_tokens, "no_repeat": 0, "threads": inputs.compute.threads}
        written = {
            name: continuations(folder, prompts, device=inputs.compute.device, **how)
            for name, folder in (("base", base), ("adapted", adapted))
        }
        if prompts:
            found[side] = quality(written, code, resamples=section.resamples, seed=section.seed)
    return found


def _trained(inputs: Inputs) -> dict[str, Path]:
    """Model folders by name in the report: what each training made, in the order of the run."""
    made = {"pretrain": "adapted", "align": "aligned", "sft": "tuned"}
    found: dict[str, Path] = {}
    folder: Path | None = inputs.trained
    while folder is not None and (name := made.get(folder.name.partition("-")[0])):
        found[name] = folder / "model"
        start = read_json(folder / MARKER)["summary"].get("start")
        folder = folder.parent / start if start else None
    return dict(reversed(found.items()))


def _generations(section: Evaluate, inputs: Inputs, base: Path) -> list[dict[str, Any]]:
    """Side by side: the base, the base with new rows, and the trained models."""
    wanted, file = section.prompts, section.prompts.file
    own = read_prompts(Path(file)) if file else []
    codes = {inputs.model.language: wanted.target, inputs.model.source_language: wanted.source}
    prompts = [p for code, texts in codes.items() for p in chosen(code, texts, own, with_shipped=wanted.shipped)]
    folders = {"base": base, "surgery": inputs.folders["surgery"] / "model", **_trained(inputs)}
    return side_by_side(
        folders,
        prompts,
        max_new_tokens=section.max_new_tokens,
        device=inputs.compute.device,
        threads=inputs.compute.threads,
        log=inputs.log,
    )
