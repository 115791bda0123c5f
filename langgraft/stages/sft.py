"""sft: instruction tuning on conversations, of the model that the stages before have trained."""

from pathlib import Path
from typing import Any

from langgraft.errors import RecipeError
from langgraft.evaluation.tuned import compare_answers
from langgraft.processes import rank
from langgraft.recipe import Recipe
from langgraft.recipe_sft import Sft
from langgraft.runs import MARKER, Inputs
from langgraft.stages.learning import check_learning, compute_of, settings_of, told_as
from langgraft.store import read_json
from langgraft.tokenizer.prove import check_pin
from langgraft.training.chat_rows import ChatSource
from langgraft.training.loop import Settings
from langgraft.training.modes import Phase
from langgraft.training.tuning import Lessons, read_dev, tune


def check(section: Sft, recipe: Recipe) -> None:
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: batch and sequence or processes do not fit together, options are for another mode, or the device
            is not there.
    """
    settings = _settings(section)
    if section.mode != "lora" and section.lora.model_fields_set:
        raise RecipeError('[sft.lora] is for mode "lora", and sft.mode is "full"; leave it out')
    with told_as("sft"):
        check_learning(settings, recipe.compute)


def run(section: Sft, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/model`, `out/metrics.jsonl`, `out/dev.jsonl`, and `out/adapter` where one can hold what was learned.

    Goes on from `out/checkpoints` after an interruption.
    """
    start, model = inputs.trained, inputs.trained / "model"
    check_pin(model)
    pretrained = start != inputs.folders["surgery"]
    with told_as("sft"):
        summary = tune(
            model,
            out,
            lessons=_lessons(section),
            settings=_settings(section),
            old_rows=read_json(inputs.folders["surgery"] / MARKER)["summary"]["old_tokens"],
            # An adapter belongs to what it was trained on, which is the base only where nothing was trained before.
            base=str(model) if pretrained else inputs.model.base,
            compute=compute_of(inputs.compute),
            log=inputs.log,
        )
    summary["start"] = start.name
    summary["data"] = [{"path": entry.path, "license": entry.license} for entry in section.data]
    answers = _answers(section, inputs, model, out) if rank() == 0 and section.dev > 0 else {}
    return summary | ({"answers": answers} if answers else {})


def _answers(section: Sft, inputs: Inputs, before: Path, out: Path) -> dict[str, Any]:
    """What held-out conversations say of the model before and after."""
    found = compare_answers(
        before,
        out / "model",
        read_dev(out),
        languages=(inputs.model.language, inputs.model.source_language),
        documents=section.documents,
        generated=section.generated,
        max_new_tokens=section.max_new_tokens,
        length=section.sequence_length,
        device=inputs.compute.device,
        threads=inputs.compute.threads,
        seed=section.seed,
        log=inputs.log,
    )
    if found:
        inputs.log.say(f"sft: answers, bits per byte {found['bits_per_byte']['changes']['after']['mean']:+.2%}")
    else:
        inputs.log.say("sft: no conversation that was held out can be measured; raise sft.dev")
    return found


def _lessons(section: Sft) -> Lessons:
    return Lessons(
        tuple(ChatSource(entry.path, entry.share) for entry in section.data),
        system=section.system,
        template=None if section.template is None else Path(section.template),
        dev=section.dev,
        epochs=section.epochs,
    )


def _settings(section: Sft) -> Settings:
    """The loop's settings; its steps follow from the data."""
    rate, phases = section.learning_rate, (Phase(section.mode),)
    rows = {"new_rows_learning_rate": rate, "old_rows_learning_rate": rate}
    return settings_of("sft", section, tokens=1, replay_ratio=0.0, phases=phases, **rows)
