"""How the transformer is computed: which attention, compiled or not, and whether activations are kept or made again.

Nothing here changes what is learned, apart from rounding. Packed documents are told apart by position ids that restart;
each way of computing attention has its own way to honour them, and one that does not would leak in silence. So before
training with any other than transformers' default, its states are compared with those of sdpa on a packed row.
"""

import copy
import importlib.util
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from langgraft.errors import RecipeError, TrainingError
from langgraft.methods import suggest
from langgraft.progress import Log
from langgraft.training import block_attention
from langgraft.training.device import autocast
from langgraft.training.modes import decoder_layers

ATTENTION = {
    "eager": "eager", "sdpa": "sdpa", "blocks": block_attention.NAME, "flex": "flex_attention",
    "flash": "flash_attention_2",
}  # fmt: skip
CPU_ONLY = {"blocks": "its operator is written for CPUs"}
GPU_ONLY = {
    "flex": "torch's flex attention has no backward pass elsewhere",
    "flash": "FlashAttention has no kernels elsewhere",
}
LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of a state, relative to the largest
# From so many FLOPs on, `auto` compiles on a CPU: under an hour of two cores. Compiling takes half a minute; the run
# then takes a fifth less memory and a little less time (docs/benchmarks-training.md).
COMPILED_FROM = 5e14
DOCUMENTS = (96, 37, 123)  # tokens of the documents in the row that is compared


@dataclass(frozen=True)
class Kernels:
    """`attention` is auto or a name of ATTENTION; `compile` is a choice, or "auto" (see `decided`)."""

    attention: str = "auto"
    compile: bool | str = "auto"
    activation_checkpointing: bool = False


def check_kernels(kernels: Kernels, device: torch.device) -> None:
    """Say before training what cannot run here.

    Raises:
        RecipeError: no such attention, or it needs another device or a package; or no compiler is there.
    """
    name = kernels.attention
    if name != "auto" and name not in ATTENTION:
        raise RecipeError(f"compute.attention `{name}` is unknown; {suggest(name, ['auto', *ATTENTION])}")
    if name in GPU_ONLY and device.type != "cuda":
        raise RecipeError(
            f'compute.attention = "{name}" needs a CUDA device, and this run is on {device.type}: {GPU_ONLY[name]}; '
            'use "sdpa" here, or "auto"'
        )
    if name in CPU_ONLY and device.type != "cpu":
        raise RecipeError(
            f'compute.attention = "{name}" runs on a CPU only, and this run is on {device.type}: {CPU_ONLY[name]}; '
            'use "flex" here, or "auto"'
        )
    if name == "flash" and importlib.util.find_spec("flash_attn") is None:
        raise RecipeError(
            'compute.attention = "flash" needs the package flash-attn, which is not installed; '
            'run pip install flash-attn, or use "flex", which comes with torch'
        )
    if kernels.compile is True and device.type == "cpu" and not _compiler():
        raise RecipeError(
            "compute.compile needs a C++ compiler on a CPU, and neither g++ nor clang++ is there; install one "
            "(Debian: apt install g++), name yours in the variable CXX, or leave compute.compile out"
        )


def _compiler() -> str | None:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    return next(filter(None, map(shutil.which, names)), None)


def decided(kernels: Kernels, device: torch.device, *, flops: float, processes: int, log: Log) -> Kernels:
    """The same with `compile` settled for a training of `flops` in all, which a later start of the run has too.

    "auto" compiles long trainings of one process on a CPU that has a compiler. On a GPU it leaves that to the user:
    not measured on a GPU.
    """
    if kernels.compile != "auto":
        return kernels
    long = device.type == "cpu" and processes == 1 and flops >= COMPILED_FROM
    compiler = _compiler() if long else None
    if compiler:
        log.say("compile: this training is long enough to compile the layers; the first step takes half a minute more")
    elif long:
        log.say("compile: no C++ compiler is there; with g++ or clang++ a step takes a fifth less memory")
    return replace(kernels, compile=compiler is not None)


def as_it_stands() -> AbstractContextManager[None]:
    """Nothing is compiled inside: for texts of all lengths, each of which would be compiled anew."""
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]


def prepare(model: Any, kernels: Kernels, dtype: torch.dtype, log: Log, *, rows: int = 4) -> None:
    """Make `model` compute as asked; `dtype` is that of its matrix products, `rows` the most rows of a forward pass.

    Raises:
        TrainingError: attention of that kind mixes the documents of a packed row, or differs from sdpa otherwise.
        ModelError: there is no list of layers to compile.
    """
    if kernels.attention == "auto":
        if model.device.type == "cuda":
            flash = importlib.util.find_spec("flash_attn") and dtype is torch.bfloat16
            _fastest(model, "flash" if flash else "flex", dtype, log)
        elif model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
            _fastest(model, "blocks", dtype, log)
    else:
        _set_attention(model, kernels.attention, dtype)
    if kernels.activation_checkpointing:
        # Its name since transformers 5.2x, and the one it had before.
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    if kernels.compile:
        # Layer by layer: they share their code, so one compilation serves all of them, and models start in seconds.
        # Every number of rows has its own: code for all of them rounds otherwise than code for one, and which of the
        # two a run gets would depend on where it was interrupted.
        limits: Any = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, 2 * rows + 8)
        for layer in decoder_layers(model)[1]:
            layer.compile(dynamic=False)


def flat_rows(model: Any) -> bool:
    """Whether rows must follow one another in one long row: FlashAttention finds documents only there."""
    return str(model.config._attn_implementation).startswith("flash")


def _set_attention(model: Any, name: str, dtype: torch.dtype) -> None:
    before = model.config._attn_implementation
    if ATTENTION[name] == before:
        return
    if name == "blocks":
        block_attention.register()
    judged = _small(model) if is_shared(model) else model
    judged.set_attn_implementation("sdpa")
    wanted = packed_states(judged, dtype)
    judged.set_attn_implementation(ATTENTION[name])
    apart = (packed_states(judged, dtype) - wanted).abs().max() / wanted.abs().max()
    if not apart <= LARGEST_DIFFERENCE.get(dtype, 1e-3):
        model.set_attn_implementation(before)
        raise TrainingError(
            f'compute.attention = "{name}" gives other states than sdpa on a row of packed documents (by {apart:.1g} '
            'of the largest), so it would learn across documents; use "sdpa"'
        )
    model.set_attn_implementation(ATTENTION[name])


def is_shared(model: Any) -> bool:
    """Whether several processes hold parts of the model; asking such a one before it trains would settle its parts."""
    return any(hasattr(p, "placements") for p in model.parameters())


def _small(model: Any) -> Any:
    """Two layers of the same kind with random numbers, of this process alone: their attention is the model's."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    text.num_hidden_layers = min(text.num_hidden_layers, 2)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).to(model.device).eval()


def _fastest(model: Any, name: str, dtype: torch.dtype, log: Log) -> None:
    """Attention `name`, or what there is where that cannot run or differs. Those of GPUs were not measured on one."""
    before = model.config._attn_implementation
    try:
        _set_attention(model, name, dtype)
    except (TrainingError, RuntimeError, ValueError, ImportError, NotImplementedError) as error:
        model.set_attn_implementation(before)
        log.say(f"attention: {name} cannot be used here ({str(error).splitlines()[0]}); {before} instead")
    else:
        log.say(f"attention: {name}")


@torch.no_grad()
def packed_states(model: Any, dtype: torch.dtype) -> torch.Tensor:
    """States of the decoder, (tokens, width) in float32, for one row of `DOCUMENTS`."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max(DOCUMENTS)
    positions = torch.cat([torch.arange(min(size, most)) for size in DOCUMENTS])[None].to(model.device)
    size = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(positions.shape[1], device=model.device) * 7919 % size)[None]
    with autocast(model.device, dtype):
        out = model.get_decoder()(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False)
    return out.last_hidden_state[0].float()
