"""What learns: the whole model, LoRA, embeddings, or new rows alone; and in which order.

A mode is a function `f(model, phase, lora) -> Selected` that sets which parameters require gradients, and one row in
MODES. A run has one phase or several; each is a training of its own (fresh optimizer, schedule from warm-up to decay)
that goes on with the weights, and at the place in the data, where the phase before it ended.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from langgraft.errors import ModelError, RecipeError
from langgraft.methods import resolve, suggest
from langgraft.training.regions import whole_shapes
from langgraft.training.trainable import row_parameters

MODES: dict[str, str] = {
    "full": "langgraft.training.modes:full",
    "lora": "langgraft.training.modes:lora",
    "embeddings": "langgraft.training.modes:embeddings",
    "new_rows": "langgraft.training.modes:new_rows",
}
ALL_LINEAR = "all-linear"
Rows = Literal["all", "new", "none"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685). `rows` of embedding and head learn beside them."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    rows: Rows = "new"
    quantize: Literal["none", "nf4"] = "none"


@dataclass(frozen=True)
class Phase:
    """One part of a run: `share` of its steps in `mode`; `layers` of the decoder (all when empty, -1 the last)."""

    mode: str = "full"
    share: float = 1.0
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Span:
    """A phase with its place in the run: `steps` steps from step `first` on."""

    phase: Phase
    first: int
    steps: int


@dataclass(frozen=True)
class Selected:
    """What a mode chose: which rows of embedding and head learn, and peft's wrapper where there is one."""

    rows: Rows
    wrapper: Any = field(default=None)


def spans(phases: Sequence[Phase], steps: int) -> list[Span]:
    """The steps of each phase; together they are `steps`.

    Raises:
        RecipeError: the shares do not add up to 1, or a phase would have no step.
    """
    total = sum(phase.share for phase in phases)
    if abs(total - 1.0) > 1e-6:
        raise RecipeError(f"the shares of pretrain.phases add up to {total:g}; they must add up to 1")
    found, first, done = [], 0, 0.0
    for number, phase in enumerate(phases):
        done += phase.share
        end = steps if number == len(phases) - 1 else round(done * steps)
        if end <= first:
            raise RecipeError(
                f"pretrain.phases (entry {number + 1}): a share of {phase.share:g} of {steps} steps is none; "
                "raise it, or train longer"
            )
        found.append(Span(phase, first, end - first))
        first = end
    return found


def check_phases(phases: Sequence[Phase], lora: Lora) -> None:
    """Say what does not go together.

    Raises:
        RecipeError: a mode is unknown, takes no layers, or cannot be had with a quantized base.
    """
    for phase in phases:
        if phase.mode not in MODES:
            raise RecipeError(f"pretrain.mode `{phase.mode}` is unknown; {suggest(phase.mode, MODES)}")
        if phase.layers and phase.mode not in ("full", "lora"):
            raise RecipeError(f"pretrain.layers is for modes full and lora; no layer learns in mode `{phase.mode}`")
    if lora.quantize != "none":
        reason = no_adapter(phases, lora) or ("" if phases[-1].mode == "lora" else "no phase has mode `lora`")
        if reason:
            raise RecipeError(f'pretrain.lora.quantize = "{lora.quantize}": the base stays as it is, but {reason}')


def no_adapter(phases: Sequence[Phase], lora: Lora) -> str | None:
    """Why a run's result is more than an adapter (one LoRA, and new rows) can hold; None when it is not."""
    for number, phase in enumerate(phases):
        if phase.mode in ("full", "embeddings"):
            return f"mode `{phase.mode}` changes weights of the base"
        if phase.mode == "lora" and lora.rows == "all":
            return 'pretrain.lora.rows = "all" changes rows of the base'
        if phase.mode == "lora" and number < len(phases) - 1:
            return "a phase after `lora` starts from merged weights"
    return None


def check_quantization(lora: Lora, device: torch.device) -> None:
    """Refuse a 4-bit base where it cannot run.

    Raises:
        RecipeError: the device is not CUDA, or bitsandbytes is not installed.
    """
    if lora.quantize == "none":
        return
    if device.type != "cuda":
        raise RecipeError(
            f'pretrain.lora.quantize = "{lora.quantize}" needs a CUDA device, and this run is on {device.type}; '
            'use quantize = "none" here'
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(
            f'pretrain.lora.quantize = "{lora.quantize}" needs bitsandbytes; pip install "langgraft[qlora]"'
        )


def select(model: Any, phase: Phase, lora: Lora) -> Selected:
    """Let what the phase trains require gradients, and nothing else.

    Raises:
        RecipeError: layers or targets are not there.
    """
    model.requires_grad_(False)
    chosen: Selected = resolve(MODES, phase.mode, what="mode")(model, phase, lora)
    if chosen.rows != "none":
        for parameter in row_parameters(model):
            parameter.requires_grad_(True)
    return chosen


def full(model: Any, phase: Phase, lora: Lora) -> Selected:  # noqa: ARG001
    """Everything; with `layers`, everything but the decoder's other layers.

    Top and bottom two layers with embeddings and head: Yamaguchi et al. 2024 (arXiv 2406.11477).
    """
    model.requires_grad_(True)
    if phase.layers:
        _, stack = decoder_layers(model)
        learn = _numbers(phase.layers, len(stack))
        for number, layer in enumerate(stack):
            layer.requires_grad_(number in learn)
    return Selected("all")


def embeddings(model: Any, phase: Phase, lora: Lora) -> Selected:  # noqa: ARG001
    """Embedding and head, the head's bias included; the transformer is frozen."""
    return Selected("all")


def new_rows(model: Any, phase: Phase, lora: Lora) -> Selected:  # noqa: ARG001
    """The rows of new tokens in embedding and head; every other number stays as it is, bit for bit."""
    return Selected("new")


def lora(model: Any, phase: Phase, lora: Lora) -> Selected:
    """Low-rank adapters on linear layers, beside `lora.rows` of embedding and head; the rest is frozen.

    Raises:
        RecipeError: a target or layer is not there, or a target is the embedding or the head.
    """
    from peft import LoraConfig, get_peft_model

    only: dict[str, Any] = {}
    if phase.layers:
        name, stack = decoder_layers(model)
        only = {
            "layers_to_transform": sorted(_numbers(phase.layers, len(stack))),
            "layers_pattern": name.split(".")[-1],
        }
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, lora.targets),
        task_type="CAUSAL_LM",
        **only,
    )
    with whole_shapes(model):
        return Selected(lora.rows, get_peft_model(model, config))


def linear_names(model: Any) -> list[str]:
    """Last names of the linear layers of the decoder, such as `q_proj`; sorted."""
    from transformers.pytorch_utils import Conv1D

    tokens = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    linear = (nn.Linear, Conv1D)
    found = {n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, linear) and id(m) not in tokens}
    return sorted(found)


def _targets(model: Any, targets: Sequence[str]) -> list[str]:
    known = linear_names(model)
    if tuple(targets) == (ALL_LINEAR,):
        return known
    for target in targets:
        if target not in known:
            raise RecipeError(
                f"pretrain.lora.targets: `{target}` is no linear layer of this model's transformer (embedding and head "
                f"learn through pretrain.lora.rows); {suggest(target, known)}"
            )
    return sorted(set(targets))


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """The list of the decoder's layers, and its name in the model.

    Raises:
        ModelError: the architecture keeps its layers in some other way.
    """
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(f"{type(model).__name__} has no list of {count} layers; train all of it, without pretrain.layers")


def _numbers(layers: Sequence[int], count: int) -> set[int]:
    wrong = [number for number in layers if not -count <= number < count]
    if wrong:
        raise RecipeError(
            f"pretrain.layers: there is no layer {wrong[0]}; the model has layers 0 to {count - 1} (-1 is the last)"
        )
    return {number % count for number in layers}
