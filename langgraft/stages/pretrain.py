"""pretrain: continual pretraining on the new language with replay of the old."""

import itertools
import json
from pathlib import Path
from typing import Any

from langgraft.corpus.curriculum import check_points
from langgraft.corpus.prepare import read_split
from langgraft.errors import CorpusError, RecipeError
from langgraft.evaluation.retention import Bounds, Gauge, Held
from langgraft.methods import suggest
from langgraft.recipe import Mixture, Pretrain, Recipe
from langgraft.recipe_file import non_default
from langgraft.runs import MARKER, Inputs
from langgraft.stages.learning import (
    check_learning,
    compute_of,
    packed,
    settings_of,
    train_texts,
)
from langgraft.store import fingerprint, read_json
from langgraft.text import language
from langgraft.tokenizer.prove import check_pin
from langgraft.training.guidance import size_advice
from langgraft.training.loop import Settings, train
from langgraft.training.mixture import packed_tokens, write_mixture
from langgraft.training.modes import Phase
from langgraft.training.parallel import first_alone, in_first
from langgraft.training.replay import FACTS, generate_replay
from langgraft.training.replay import VERSION as REPLAY_VERSION
from langgraft.training.retention import Retention


def check(section: Pretrain, recipe: Recipe) -> None:
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: batch and sequence, rates, phases, or replay and corpus do not fit together, or the device is
            not there.
    """
    _check_mixture(section.mixture)
    check_learning(_settings(section), recipe.compute)
    _check_modes(section, recipe)
    _check_retention(section, recipe)
    if section.replay == "corpus" and section.replay_ratio > 0 and not recipe.corpus.source:
        raise RecipeError('pretrain.replay = "corpus" needs text under [[corpus.source]]; add some or use "self"')


def _check_modes(section: Pretrain, recipe: Recipe) -> None:
    """Refuse what would be ignored, or would train nothing."""
    modes = [phase.mode for phase in section.phases] or [section.mode]
    if section.phases and (section.mode != "full" or section.layers):
        raise RecipeError("pretrain.mode and pretrain.layers are for a run of one phase; set them in pretrain.phases")
    if "lora" not in modes and section.lora.model_fields_set:
        raise RecipeError(f'[pretrain.lora] is for mode "lora", and this run has {", ".join(modes)}; leave it out')
    if "new_rows" in modes and recipe.tokenizer.method == "none":
        raise RecipeError('pretrain.mode "new_rows" trains nothing, since tokenizer.method = "none" adds no tokens')


def _check_retention(section: Pretrain, recipe: Recipe) -> None:
    if section.retention.every == 0:
        if section.retention.model_fields_set:
            raise RecipeError("[pretrain.retention] needs `every`, the steps between measurements, such as 50")
        return
    if not recipe.corpus.source:
        raise RecipeError(
            "[pretrain.retention] is measured on source-language development text; give some under [[corpus.source]]"
        )
    for side, share in (("dev", recipe.corpus.dev), ("source_dev", recipe.corpus.source_dev)):
        if share == 0:
            raise RecipeError(f"corpus.{side} is 0, but [pretrain.retention] is measured on that split; hold some out")
    if section.retention.on_breach == "rollback" and (section.replay == "none" or section.replay_ratio == 0):
        raise RecipeError(
            'pretrain.retention.on_breach = "rollback" raises the share of replay, and this run has none; give it '
            'some (pretrain.replay), or use "stop"'
        )


def _check_mixture(mixture: Mixture) -> None:
    if mixture.curriculum:
        if mixture.shares or mixture.temperature != 1:
            raise RecipeError("pretrain.mixture: give either a curriculum or shares or a temperature")
        try:
            check_points(_points(mixture))
        except CorpusError as error:
            raise RecipeError(f"pretrain.mixture.{error}") from error
    if not mixture.shares:
        return
    if mixture.temperature != 1:
        raise RecipeError("pretrain.mixture: give either shares or a temperature, not both")
    if min(mixture.shares.values()) < 0 or not sum(mixture.shares.values()) > 0:
        raise RecipeError("pretrain.mixture.shares: shares must not be negative, and one must be above 0")


def _points(mixture: Mixture) -> list[tuple[float, dict[str, float]]]:
    return [(point.at, point.shares) for point in mixture.curriculum]


def _check_names(shares: dict[str, float], names: set[str], field: str = "shares") -> None:
    """Say which names are not those of the sources in the train split; rows may name sources of their own."""
    for name in sorted(set(shares) - names):
        raise RecipeError(f"pretrain.mixture.{field}: no text of source {name} is there; {suggest(name, names)}")
    missing = sorted(names - set(shares))
    if missing:
        raise RecipeError(f"pretrain.mixture.{field}: give a share for {', '.join(missing)} too; 0 leaves a source out")


def run(section: Pretrain, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/model`, `out/metrics.jsonl`, and `out/adapter` where one can hold what was learned.

    Goes on from `out/checkpoints` after an interruption.
    """
    model = inputs.folders["surgery"] / "model"
    surgery = read_json(inputs.folders["surgery"] / MARKER)["summary"]
    check_pin(model)
    settings = _settings(section)
    distill = section.replay_loss == "distill" and settings.replay_ratio > 0
    with first_alone():  # the others then find what it wrote
        target, mixture = _target(section, settings, inputs, out / "packed" / "target", model)
        # A teacher knows only the base's ids, so replay for it is cut by the base's tokenizer.
        reader = inputs.base() if distill else model
        replay, written = _replay(section, settings, inputs, out, reader)
    if advice := size_advice(packed_tokens(target)):
        inputs.log.say(f"pretrain: {advice}")
    summary = train(
        model,
        out,
        target=target,
        replay=replay,
        old_rows=surgery["old_tokens"],
        settings=settings,
        teacher=inputs.base() if distill else None,
        base=inputs.model.base,
        compute=compute_of(inputs.compute),
        log=inputs.log,
        retention=_retention(section, inputs, model, surgery["old_tokens"]),
    )
    return summary | ({"mixture": mixture} if mixture else {}) | ({"replay": written} if written else {})


def _retention(section: Pretrain, inputs: Inputs, model: Path, first_new: int) -> Retention | None:
    """What the loop measures, and what follows from it; the base is measured here, in the first process alone."""
    asked = section.retention
    if asked.every == 0:
        return None
    gauge = in_first(lambda: _gauge(section, inputs, model, first_new))
    return Retention(
        gauge, asked.every, on_breach=asked.on_breach, raise_replay=asked.raise_replay, rollbacks=asked.rollbacks,
        keep_best=asked.keep_best, metric=asked.metric, result=asked.result,
    )  # fmt: skip


def _gauge(section: Pretrain, inputs: Inputs, model: Path, first_new: int) -> Gauge:
    asked = section.retention
    text, sides = inputs.folders["corpus"] / "text", {}
    for side, code, prompts in (
        ("target", inputs.model.language, asked.target_prompts),
        ("source", inputs.model.source_language, asked.source_prompts),
    ):
        documents = itertools.islice(read_split(text, side, "dev"), asked.documents)
        sides[side] = Held(language(code), [document.text for document in documents], prompts)
    bounds = Bounds(asked.source_bits_per_byte, asked.in_context, asked.right_language or None)
    return Gauge(
        model, inputs.base(), target=sides["target"], source=sides["source"], bounds=bounds, first_new=first_new,
        items=asked.items, window=section.sequence_length, max_new_tokens=asked.max_new_tokens,
        device=inputs.compute.device, dtype=inputs.compute.dtype, threads=inputs.compute.threads, log=inputs.log,
    )  # fmt: skip


def _settings(section: Pretrain) -> Settings:
    ratio = section.replay_ratio if section.replay != "none" else 0.0
    phases = phases_of(section)
    return settings_of("pretrain", section, tokens=section.tokens, replay_ratio=ratio, phases=phases)


def phases_of(section: Pretrain) -> tuple[Phase, ...]:
    """The section's phases, or the one that `mode` and `layers` make."""
    if not section.phases:
        return (Phase(section.mode, layers=tuple(section.layers)),)
    return tuple(Phase(phase.mode, phase.share, tuple(phase.layers)) for phase in section.phases)


def _target(
    section: Pretrain, settings: Settings, inputs: Inputs, folder: Path, model: Path
) -> tuple[Path, dict[str, dict[str, float]]]:
    """The packed text in the language to teach: all of it, or a mixture of its sources and what each of them gives."""
    mixture = section.mixture
    if not non_default(mixture):
        return packed(folder, model, train_texts(inputs, "target")), {}
    there = {document.source for document in read_split(inputs.folders["corpus"] / "text", "target", "train")}
    if mixture.shares:
        _check_names(mixture.shares, there)
    if mixture.curriculum:
        _check_names(mixture.curriculum[0].shares, there, "curriculum")
    wanted = {name for name, share in mixture.shares.items() if share > 0} or there
    folders = {
        name: packed(folder / f"{number:03d}", model, train_texts(inputs, "target", name))
        for number, name in enumerate(sorted(wanted))
    }
    places = settings.steps * settings.batch_rows * settings.length
    parts = write_mixture(
        folder,
        folders,
        budget=round(places * (1 - settings.replay_ratio)),
        shares={name: share for name, share in mixture.shares.items() if share > 0},
        temperature=mixture.temperature,
        max_epochs=mixture.max_epochs,
        curriculum=_points(mixture),
        order=mixture.order,
    )
    for name, part in parts.items():
        inputs.log.say(f"mixture: {name} {part['share']:.1%}, {part['epochs']:.2f} times over")
    return folder, parts


def _replay(
    section: Pretrain, settings: Settings, inputs: Inputs, out: Path, reader: Path
) -> tuple[Path | None, dict[str, Any]]:
    """The packed replay, and what the base wrote for it and what of that was left out."""
    if settings.replay_ratio == 0.0:
        return None, {}
    if section.replay == "corpus":
        return packed(out / "packed" / "replay", reader, train_texts(inputs, "source")), {}
    tokens = section.replay_tokens or int(
        settings.steps * settings.batch_rows * settings.length * settings.replay_ratio
    )
    base = inputs.base()
    asked = {"base": inputs.base_hash, "tokens": tokens, "length": section.sequence_length,
             "temperature": section.replay_temperature, "seed": section.seed,
             "language": inputs.model.source_language, "version": REPLAY_VERSION}  # fmt: skip
    written = generate_replay(
        base,
        inputs.cache / f"replay-{fingerprint(asked)[:8]}",
        tokens=tokens,
        length=section.sequence_length,
        temperature=section.replay_temperature,
        seed=section.seed,
        device=inputs.compute.device,
        threads=inputs.compute.threads,
        language=inputs.model.source_language,
        log=inputs.log,
    )
    # Not splitlines(): it also splits at U+2028 and its like, which JSON strings may hold.
    lines = written.read_text(encoding="utf-8").split("\n")
    texts = [json.loads(line)["text"] for line in lines if line]
    return packed(out / "packed" / "replay", reader, texts), read_json(written.with_name(FACTS))
