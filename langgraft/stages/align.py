"""align: the pretrained model learns further from parallel text in several formats, with replay of the old language."""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langgraft.corpus.pairs import FACTS, counted, held_texts, prepare_pairs, read_pairs_of, write_pairs
from langgraft.corpus.parallel import check_format, formatted
from langgraft.corpus.prepare import read_split
from langgraft.errors import CorpusError, RecipeError
from langgraft.evaluation.pair_bits import pair_bits
from langgraft.methods import suggest
from langgraft.processes import rank
from langgraft.recipe import Align, Recipe
from langgraft.runs import MARKER, Inputs, as_input
from langgraft.stages.learning import (
    check_learning,
    compute_of,
    packed,
    settings_of,
    told_as,
    train_texts,
)
from langgraft.store import read_json
from langgraft.text import language, utf8_bytes
from langgraft.tokenizer.prove import check_pin
from langgraft.training.loop import Settings, train
from langgraft.training.mixture import write_mixture
from langgraft.training.modes import Phase
from langgraft.training.parallel import first_alone

MONOLINGUAL = "monolingual"
_BYTES = 16  # no tokenizer has more for a token on average, so as many a token are enough text


def check(section: Align, recipe: Recipe) -> None:
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: formats, shares, rates or batches do not fit together, there is no replay to take, or the device
            is not there.
    """
    for name in section.formats:
        check_format(name, section.options.get(name, {}))
    for name in sorted(set(section.options) - set(section.formats)):
        raise RecipeError(f"align.options.{name}: there is no such format here; {suggest(name, section.formats)}")
    if not section.formats or min(section.formats.values()) < 0 or not sum(section.formats.values()) > 0:
        raise RecipeError("align.formats: shares must not be negative, and one must be above 0")
    if section.monolingual_ratio + section.replay_ratio >= 1:
        total = section.monolingual_ratio + section.replay_ratio
        raise RecipeError(
            f"align.monolingual_ratio and align.replay_ratio add up to {total:g}; they leave nothing for parallel text"
        )
    before = recipe.pretrain
    if section.replay_ratio > 0 and (before is None or before.replay == "none" or before.replay_ratio == 0):
        raise RecipeError(
            "align.replay_ratio takes the text that pretraining replayed, and pretrain.replay has none; give it some, "
            "or set align.replay_ratio = 0"
        )
    if section.mode != "lora" and section.lora.model_fields_set:
        raise RecipeError(f'[align.lora] is for mode "lora", and this stage has {section.mode}; leave it out')
    settings = _settings(section)
    with told_as("align"):
        check_learning(settings, recipe.compute)


def run(section: Align, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/model`, `out/metrics.jsonl`, and `out/pairs` with what was learned from and what is measured on.

    Goes on from `out/checkpoints` after an interruption.
    """
    before = inputs.folders["pretrain"]
    model, settings = before / "model", _settings(section)
    check_pin(model)
    distill = read_json(before / MARKER)["options"]["replay_loss"] == "distill" and settings.replay_ratio > 0
    with first_alone():  # the others then find what it wrote
        facts = _pairs(section, inputs, out / "pairs")
        target, formats = _target(section, settings, inputs, out, model)
    with told_as("align"):
        summary = train(
            model,
            out,
            target=target,
            replay=before / "packed" / "replay" if settings.replay_ratio else None,
            old_rows=read_json(inputs.folders["surgery"] / MARKER)["summary"]["old_tokens"],
            settings=settings,
            teacher=inputs.base() if distill else None,
            compute=compute_of(inputs.compute),
            log=inputs.log,
            name="align",
        )
    # It would be one for the pretrained model, which nobody has.
    shutil.rmtree(out / "adapter", ignore_errors=True)
    translation = _measured(inputs, {"before": model, "after": out / "model"}, out / "pairs") if rank() == 0 else None
    summary["start"] = before.name
    return {**summary, "adapter_bytes": None, "formats": formats, "pairs": facts, "translation": translation}


def _settings(section: Align) -> Settings:
    return settings_of("align", section, tokens=section.tokens, phases=(Phase(section.mode),))


def _pairs(section: Align, inputs: Inputs, folder: Path) -> dict[str, Any]:
    """Write the pairs to train on and those to measure on; returns how many, and what was left out and why."""
    if (folder / FACTS).is_file():
        return dict(read_json(folder / FACTS))
    held = {
        side: [*_held_out(inputs, side), *held_texts(inputs.held_out, code)]
        for side, code in (("target", inputs.model.language), ("source", inputs.model.source_language))
    }
    found = prepare_pairs(
        [as_input(entry) for entry in section.parallel],
        inputs.model.language,
        inputs.model.source_language,
        held_out=held["target"],
        source_held_out=held["source"],
        dev=section.dev,
        seed=section.seed,
    )
    write_pairs(found, folder)
    used, left = found.facts["used"], counted(found.facts["left_out"])
    inputs.log.say(
        f"align: {used:,} of {found.facts['read']:,} pairs, {len(found.dev)} to measure on; left out: {left}"
    )
    return found.facts


def _held_out(inputs: Inputs, side: str) -> Iterator[str]:
    """The corpus's development and test text of a side, where there is some."""
    folder = inputs.folders["corpus"] / "text"
    if (folder / side).is_dir():
        for split in ("dev", "test"):
            yield from (document.text for document in read_split(folder, side, split))


def _target(
    section: Align, settings: Settings, inputs: Inputs, out: Path, model: Path
) -> tuple[Path, dict[str, dict[str, float]]]:
    """The packed formats and monolingual text as one mixture, and what each of them gives."""
    folder = out / "packed" / "target"
    target, source = language(inputs.model.language), language(inputs.model.source_language)
    shares = {name: share for name, share in section.formats.items() if share > 0}
    folders = {}
    for number, name in enumerate(sorted(shares)):
        pairs = read_pairs_of(out / "pairs", "train")
        texts = formatted(pairs, name, target, source, seed=section.seed, options=section.options.get(name))
        folders[name] = packed(folder / f"{number:03d}", model, _some(texts, name))
    places = settings.steps * settings.batch_rows * settings.length
    of_pairs = 1 - section.monolingual_ratio - section.replay_ratio
    total = sum(shares.values())
    wanted = {name: share / total * of_pairs for name, share in shares.items()}
    if section.monolingual_ratio:
        wanted[MONOLINGUAL] = section.monolingual_ratio
        texts = _enough(train_texts(inputs, "target"), places * section.monolingual_ratio * _BYTES)
        folders[MONOLINGUAL] = packed(folder / MONOLINGUAL, model, texts)
    parts = write_mixture(
        folder,
        folders,
        budget=round(places * (1 - section.replay_ratio)),
        shares=wanted,
        max_epochs=section.max_epochs,
    )
    for name, part in parts.items():
        inputs.log.say(f"align: {name} {part['share']:.1%} of what is no replay, {part['epochs']:.2f} times over")
    return folder, parts


def _some(texts: Iterator[str], name: str) -> Iterator[str]:
    first = next(texts, None)
    if first is None:
        raise CorpusError(f"align.formats: the pairs make no text in format `{name}`; leave it out")
    return itertools.chain([first], texts)


def _enough(texts: Iterable[str], size: float) -> Iterator[str]:
    """The first texts, until they hold `size` bytes; a split is in random order, so these are a fair sample."""
    for text in texts:
        yield text
        size -= utf8_bytes(text)
        if size <= 0:
            return


def _measured(inputs: Inputs, models: dict[str, Path], folder: Path) -> dict[str, Any] | None:
    """What translating costs the models on pairs they have not seen; None where there are too few."""
    pairs = list(read_pairs_of(folder, "dev"))
    if len(pairs) < 2:
        return None
    target, source = language(inputs.model.language), language(inputs.model.source_language)
    found = pair_bits(
        models, pairs, target, source, device=inputs.compute.device, threads=inputs.compute.threads, log=inputs.log
    )
    for way, name in (("to_target", target.name), ("to_source", source.name)):
        figures = found[way]["models"]
        change = found[way]["changes"]["after"]["mean"]
        inputs.log.say(
            f"align: translation into {name}, {figures['before']['mean']:.3f} -> {figures['after']['mean']:.3f} "
            f"bits per byte ({change:+.1%})"
        )
    return found
