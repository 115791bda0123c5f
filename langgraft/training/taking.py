"""The model of a checkpoint, before its training has ended: written as the end of the training would write it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from langgraft.errors import InputError, TrainingError
from langgraft.progress import Log
from langgraft.store import read_json, write_json
from langgraft.training import checkpoint
from langgraft.training.device import load_model
from langgraft.training.learner import Learner, Rates
from langgraft.training.modes import Lora, Phase, spans

SOURCE = "source.json"
CHECKPOINTS = "checkpoints"


def note_source(out: Path, model: Path, *, old_rows: int, base: str) -> None:
    """Write down what a training in `out` starts from, which its checkpoints do not hold; the path is relative."""
    folder = os.path.relpath(Path(model).resolve(), Path(out).resolve())
    write_json(Path(out) / SOURCE, {"model": folder, "old_rows": old_rows, "base": base})


def place_of(name: str) -> tuple[Path, int | None]:
    """The training's folder and the step, from `FOLDER`, `FOLDER@STEP` or `FOLDER/checkpoints/step-N`.

    Raises:
        TrainingError: there is no such folder, or it holds no checkpoints.
    """
    bare, _, tail = name.rpartition("@")
    folder, step = (Path(bare), int(tail)) if bare and tail.isdecimal() else (Path(name), None)
    if folder.parent.name == CHECKPOINTS and (number := folder.name.removeprefix("step-")).isdecimal():
        folder, step = folder.parent.parent, int(number)
    if not (folder / CHECKPOINTS).is_dir() or not list((folder / CHECKPOINTS).glob("step-*")):
        raise TrainingError(
            f"{folder} holds no checkpoints; give the folder of a training stage (runs/NAME/pretrain-…) or what "
            "`langgraft train` wrote, with @STEP for one before the last"
        )
    return folder, step


def take_checkpoint(name: str, out: Path, *, log: Log | None = None) -> int:
    """Write the model of a checkpoint to `out/model`, and `out/adapter` where one can hold what was learned.

    As at the end of a training: a moving average, where there is one, takes the place of the weights, and LoRA is
    folded in. Works on the CPU, whatever the training runs on and however many processes wrote the checkpoint.

    Args:
        name: as `place_of` takes it; without a step the newest whole checkpoint.

    Returns:
        The step.

    Raises:
        TrainingError: there is no such checkpoint, it is damaged, or what the training started from is gone.
    """
    log = log or Log(quiet=True)
    folder, wanted = place_of(name)
    facts = _source(folder)
    step = _step(folder / CHECKPOINTS, wanted, log)
    state = checkpoint.load(folder / CHECKPOINTS, step, without=("optimizer",))
    learner = _learner(facts, state["settings"])
    learner.enter(learner.due(step - 1))
    learner.load_weights(state)
    learner.end()
    learner.write(out, facts["model"], facts["base"])
    log.say(f"took step {step} of {state['settings']['steps']} from {folder}")
    return step


def _step(folder: Path, wanted: int | None, log: Log) -> int:
    """The step that is wanted, or the newest whole one. Touches nothing: the training may be writing there."""
    there = sorted((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), reverse=True)
    if wanted is not None and wanted not in there:
        shown = ", ".join(map(str, reversed(there)))
        raise TrainingError(f"{folder.parent} holds no checkpoint of step {wanted}; there are {shown}")
    problem: str | None = None
    for step in there if wanted is None else [wanted]:
        problem = checkpoint.check(folder / checkpoint.name_of(step))
        if problem is None:
            return step
        log.say(f"checkpoint {checkpoint.name_of(step)} is damaged ({problem})")
    which = "every checkpoint there" if wanted is None else f"the checkpoint of step {wanted}"
    raise TrainingError(f"{folder}: {which} is damaged ({problem}); take another one, or restore it from a backup")


def _source(folder: Path) -> dict[str, Any]:
    """What `note_source` wrote, with the model's folder as it is found from here."""
    path = folder / SOURCE
    if not path.is_file():
        raise TrainingError(f"{folder} has no {SOURCE}, which says what its training started from; start it once more")
    try:
        found: dict[str, Any] = read_json(path)
        model = (folder / found["model"]).resolve()
        facts = {"model": model, "old_rows": int(found["old_rows"]), "base": str(found["base"])}
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is damaged; start the training once more") from error
    if not (model / "config.json").is_file():
        raise TrainingError(f"{model}, from which the training in {folder} started, is gone; put it back")
    return facts


def _learner(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Learner:
    """The learner of a training, with nothing but what its weights depend on."""
    phases = [Phase(**{**phase, "layers": tuple(phase["layers"])}) for phase in settings["phases"]]
    lora = Lora(**{**settings["lora"], "targets": tuple(settings["lora"]["targets"]), "quantize": "none"})
    # Rates and optimizer move nothing here; only that there is an average counts.
    rates = Rates(0.0, 0.0, 1.0, 0.0, (0.9, 0.95), settings["ema_decay"])
    model = load_model(facts["model"], torch.device("cpu"))
    return Learner(
        model, spans(phases, settings["steps"]), lora, rates, first_row=facts["old_rows"], seed=settings["seed"],
    )  # fmt: skip
