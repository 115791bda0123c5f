"""What the stages that train have in common: `[compute]` as the training package has it, and packed text."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from langgraft.base import separator_id
from langgraft.corpus.prepare import read_split
from langgraft.errors import RecipeError
from langgraft.processes import world
from langgraft.recipe import ComputeSection
from langgraft.recipe_section import Lora as LoraSection
from langgraft.runs import Inputs
from langgraft.tokenizer.files import load
from langgraft.training.device import choose_device
from langgraft.training.kernels import Kernels, check_kernels
from langgraft.training.loop import Compute, Settings, old_rows_share
from langgraft.training.modes import Lora, check_phases, check_quantization, spans
from langgraft.training.optimizers import check_optimizer
from langgraft.training.packing import pack
from langgraft.training.parallel import Layout, check_together, resolved, share_batch
from langgraft.training.tracking import check_trackers


def kernels_of(compute: ComputeSection) -> Kernels:
    """How the model computes, as the training package has it."""
    return Kernels(compute.attention, compute.compile, compute.activation_checkpointing)


def layout_of(compute: ComputeSection) -> Layout:
    """How several processes share the model, as the training package has it."""
    return Layout(compute.tensor_parallel, compute.fsdp, compute.data_parallel_replicas)


def compute_of(compute: ComputeSection) -> Compute:
    """How and where to train, as the training package has it."""
    return Compute(
        device=compute.device,
        dtype=compute.dtype,
        threads=compute.threads,
        micro_rows=compute.micro_batch_rows,
        checkpoint_every=compute.checkpoint_every,
        keep_checkpoints=compute.keep_checkpoints,
        async_checkpoints=compute.async_checkpoints,
        attention=compute.attention,
        compile=compute.compile,
        activation_checkpointing=compute.activation_checkpointing,
        report_to=tuple(compute.report_to),
        layout=layout_of(compute),
    )


def lora_options(section: LoraSection) -> Lora:
    """A section's options of LoRA, as the training package has them."""
    return Lora(**{**section.model_dump(), "targets": tuple(section.targets)})


def check_learning(settings: Settings, compute: ComputeSection) -> None:
    """Say before anything runs what cannot be learned so, here.

    Raises:
        RecipeError: rates or phases do not fit together, the device, a package or a kernel is not there, or the
            processes cannot share the work.
    """
    old_rows_share(settings)
    spans(settings.phases, settings.steps)
    check_phases(settings.phases, settings.lora)
    device = choose_device(compute.device)
    check_quantization(settings.lora, device)
    check_optimizer(settings.optimizer, device)
    check_kernels(kernels_of(compute), device)
    check_trackers(compute.report_to)
    _check_processes(settings, compute)


def _check_processes(settings: Settings, compute: ComputeSection) -> None:
    """Refuse what the processes that train cannot share: those torchrun started, or those it is to start."""
    processes = world() if world() > 1 else compute.nodes * compute.processes_per_node
    layout = resolved(layout_of(compute), processes)
    parallel = layout.fsdp * layout.replicas
    share_batch(settings.batch_rows, settings.length, compute.micro_batch_rows, parallel)
    check_together(settings, layout, processes)


def settings_of(name: str, section: Any, *, tokens: int, **own: Any) -> Settings:
    """The loop's settings: fields of the section that have the same name there, `own` ones, and steps for `tokens`,
    rounded up; `name` is the section's.

    Raises:
        RecipeError: a step is no whole number of rows.
    """
    length, batch = section.sequence_length, section.batch_tokens
    if batch % length:
        raise RecipeError(
            f"{name}.batch_tokens ({batch}) must be a multiple of {name}.sequence_length ({length}); "
            f"{-(-batch // length) * length} is"
        )
    there = {field.name for field in fields(Settings)} & set(type(section).model_fields) - {"lora", *own}
    same = {key: getattr(section, key) for key in there}
    lora = lora_options(section.lora)
    return Settings(steps=-(-tokens // batch), length=length, batch_rows=batch // length, lora=lora, **same, **own)


def train_texts(inputs: Inputs, side: str, source: str | None = None) -> Iterator[str]:
    """Texts of the corpus's train split on a side, of one source or of all."""
    documents = read_split(inputs.folders["corpus"] / "text", side, "train")
    return (document.text for document in documents if source in (None, document.source))


def packed(folder: Path, reader: Path, texts: Iterable[str]) -> Path:
    """Tokenise once; the stage's folder name already stands for text, tokenizer and settings."""
    if not (folder / "packed.json").is_file():
        pack(load(reader), texts, folder, separator=separator_id(reader))
    return folder


@contextmanager
def told_as(name: str) -> Iterator[None]:
    """Let errors name the fields of section `name`: the training package calls them those of `pretrain`."""
    try:
        yield
    except RecipeError as error:
        told = str(error).replace("pretrain.", f"{name}.").replace("[pretrain]", f"[{name}]")
        raise RecipeError(told) from error
