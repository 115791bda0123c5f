"""pretrain: continual pretraining on the new language with replay of the old."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langgraft.base import separator_id
from langgraft.corpus.prepare import read_split
from langgraft.errors import RecipeError
from langgraft.recipe import Pretrain, Recipe
from langgraft.runs import MARKER, Inputs
from langgraft.store import fingerprint, read_json
from langgraft.tokenizer.files import load
from langgraft.tokenizer.prove import check_pin
from langgraft.training.device import choose_device
from langgraft.training.loop import Compute, Settings, old_rows_share, train
from langgraft.training.packing import pack
from langgraft.training.replay import generate_replay


def check(section: Pretrain, recipe: Recipe) -> None:
    """Say before anything runs what cannot work.

    Raises:
        RecipeError: batch and sequence, rates, or replay and corpus do not fit together, or the device is not there.
    """
    old_rows_share(_settings(section))
    choose_device(recipe.compute.device)
    if section.replay == "corpus" and section.replay_ratio > 0 and not recipe.corpus.source:
        raise RecipeError('pretrain.replay = "corpus" needs text under [[corpus.source]]; add some or use "self"')


def run(section: Pretrain, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/model` and `out/metrics.jsonl`; goes on from `out/checkpoints` after an interruption."""
    model = inputs.folders["surgery"] / "model"
    surgery = read_json(inputs.folders["surgery"] / MARKER)["summary"]
    check_pin(model)
    settings = _settings(section)
    target = _packed(out / "packed" / "target", model, _texts(inputs, "target"))
    distill = section.replay_loss == "distill" and settings.replay_ratio > 0
    # A teacher knows only the base's ids, so replay for it is cut by the base's tokenizer.
    reader = inputs.base() if distill else model
    replay = _replay(section, settings, inputs, out, reader)
    return train(
        model,
        out,
        target=target,
        replay=replay,
        old_rows=surgery["old_tokens"],
        settings=settings,
        teacher=inputs.base() if distill else None,
        compute=Compute(
            device=inputs.compute.device,
            dtype=inputs.compute.dtype,
            threads=inputs.compute.threads,
            micro_rows=inputs.compute.micro_batch_rows,
            checkpoint_every=inputs.compute.checkpoint_every,
            keep_checkpoints=inputs.compute.keep_checkpoints,
        ),
        log=inputs.log,
    )


def _settings(section: Pretrain) -> Settings:
    if section.batch_tokens % section.sequence_length:
        nearest = -(-section.batch_tokens // section.sequence_length) * section.sequence_length
        raise RecipeError(
            f"pretrain.batch_tokens ({section.batch_tokens}) must be a multiple of pretrain.sequence_length "
            f"({section.sequence_length}); {nearest} is"
        )
    return Settings(
        steps=-(-section.tokens // section.batch_tokens),
        length=section.sequence_length,
        batch_rows=section.batch_tokens // section.sequence_length,
        learning_rate=section.learning_rate,
        new_rows_learning_rate=section.new_rows_learning_rate,
        old_rows_learning_rate=section.old_rows_learning_rate,
        weight_decay=section.weight_decay,
        gradient_clip=section.gradient_clip,
        schedule=section.schedule,
        warmup=section.warmup,
        decay=section.decay,
        replay_ratio=section.replay_ratio if section.replay != "none" else 0.0,
        seed=section.seed,
    )


def _texts(inputs: Inputs, side: str) -> Iterator[str]:
    return (document.text for document in read_split(inputs.folders["corpus"] / "text", side, "train"))


def _packed(folder: Path, reader: Path, texts: Iterable[str]) -> Path:
    """Tokenise once; the stage's folder name already stands for text, tokenizer and settings."""
    if not (folder / "packed.json").is_file():
        pack(load(reader), texts, folder, separator=separator_id(reader))
    return folder


def _replay(section: Pretrain, settings: Settings, inputs: Inputs, out: Path, reader: Path) -> Path | None:
    if settings.replay_ratio == 0.0:
        return None
    if section.replay == "corpus":
        return _packed(out / "packed" / "replay", reader, _texts(inputs, "source"))
    tokens = section.replay_tokens or int(
        settings.steps * settings.batch_rows * settings.length * settings.replay_ratio
    )
    base = inputs.base()
    asked = {"base": inputs.base_hash, "tokens": tokens, "length": section.sequence_length,
             "temperature": section.replay_temperature, "seed": section.seed}  # fmt: skip
    written = generate_replay(
        base,
        inputs.cache / f"replay-{fingerprint(asked)[:8]}",
        tokens=tokens,
        length=section.sequence_length,
        temperature=section.replay_temperature,
        seed=section.seed,
        device=inputs.compute.device,
        threads=inputs.compute.threads,
        log=inputs.log,
    )
    # Not splitlines(): it also splits at U+2028 and its like, which JSON strings may hold.
    lines = written.read_text(encoding="utf-8").split("\n")
    texts = [json.loads(line)["text"] for line in lines if line]
    return _packed(out / "packed" / "replay", reader, texts)
