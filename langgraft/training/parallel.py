"""Several processes train one model, started by torchrun: data parallel, FSDP2, tensor parallel, and all together.

Process r works on the rows of its place among the data-parallel ones; that place, the cut of every weight, and with
them what is learned, follow from the recipe and the number of processes alone. transformers cuts the model while it
reads it (`DistributedConfig`), so no process ever holds all of it.
"""

import contextlib
import copy
import importlib.metadata
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch

from langgraft.errors import LanggraftError, ModelError, RecipeError
from langgraft.processes import rank, world
from langgraft.store import read_json
from langgraft.training.regions import region

T = TypeVar("T")
PEFT = (0, 21)  # the first that cuts LoRA's matrices as transformers cuts the model's
PATIENCE = timedelta(days=1)  # the first process may make a corpus while the others wait to train


@dataclass(frozen=True)
class Layout:
    """How processes share a model. `fsdp` 0 takes all that the others leave; 1 with several `replicas` is plain DDP."""

    tensor_parallel: int = 1
    fsdp: int = 0
    replicas: int = 1


def resolved(layout: Layout, processes: int) -> Layout:
    """The layout with `fsdp` filled in.

    Raises:
        RecipeError: it does not make so many processes.
    """
    rest = layout.tensor_parallel * layout.replicas
    found = Layout(layout.tensor_parallel, layout.fsdp or max(processes // rest, 1), layout.replicas)
    if found.fsdp * rest != processes:
        tried = f"{layout.tensor_parallel} x {found.fsdp} x {layout.replicas}"
        low, high = processes // rest * rest, (processes // rest + 1) * rest
        near = f"start {low or high} or {high} processes" if not layout.fsdp else f"start {rest * found.fsdp} processes"
        raise RecipeError(
            f"compute.tensor_parallel x fsdp x data_parallel_replicas = {tried} does not make "
            f"{processes} process{'es' if processes > 1 else ''}, which train here; {near}, or change these fields"
        )
    return found


def share_batch(batch_rows: int, length: int, micro_rows: int, data_parallel: int) -> str:
    """The arithmetic of a step, for people.

    Raises:
        RecipeError: the processes cannot share a step's rows evenly; names the nearest batches that they can.
    """
    if batch_rows % data_parallel:
        low = batch_rows // data_parallel * data_parallel
        near = [rows * length for rows in (low, low + data_parallel) if rows]
        raise RecipeError(
            f"pretrain.batch_tokens ({batch_rows * length}) makes {batch_rows} rows of {length}, which {data_parallel} "
            f"data-parallel processes cannot share evenly; use {' or '.join(map(str, near))}"
        )
    own = batch_rows // data_parallel
    micro = min(micro_rows, own)
    passes = -(-own // micro)
    short = "" if own % micro == 0 else f" (the last has {own % micro})"
    return (
        f"a step is {batch_rows * length:,} tokens: {micro} rows of {length:,} at a time{short} x {passes} "
        f"accumulated x {data_parallel} data-parallel"
    )


class Group:
    """The processes of a run, and how they talk. With one process, everything here is the identity."""

    channel: Any = None  # torch's group of processes; None is the one that all of them share

    def __init__(self, layout: Layout | None = None) -> None:
        self.world, self.rank = world(), rank()
        self.layout = resolved(layout or Layout(), self.world)
        self.data_parallel = self.layout.fsdp * self.layout.replicas
        self.data_rank = self.rank // self.layout.tensor_parallel

    @classmethod
    def alone(cls) -> "Group":
        """A group of one, whatever was started."""
        found = cls.__new__(cls)
        found.world, found.rank, found.data_parallel, found.data_rank = 1, 0, 1, 0
        found.layout = Layout(fsdp=1)
        return found

    def apart(self) -> "Group":
        """The same processes on a line of their own, for threads that talk while the run does; all call it alike."""
        found = copy.copy(self)
        if self.world > 1:
            found.channel = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        return found

    def __str__(self) -> str:
        parts = (
            (self.layout.tensor_parallel, "tensor parallel"),
            (self.layout.fsdp, "FSDP"),
            (self.layout.replicas, "replicas"),
        )
        return f"{self.world} processes ({' x '.join(f'{n} {name}' for n, name in parts if n > 1)})"

    @property
    def first_process(self) -> bool:
        """Whether this process is the one that logs and writes."""
        return self.rank == 0

    def shares(self, first: int, count: int) -> list[range]:
        """The rows that each data-parallel process takes of a step's `first` to `first + count`."""
        each = count // self.data_parallel
        return [range(first + place * each, first + (place + 1) * each) for place in range(self.data_parallel)]

    def sums(self, *values: float) -> list[float]:
        """Each value, summed over all processes."""
        if self.world == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(together)
        return [float(value) for value in together]

    def gathered(self, value: T) -> list[T]:
        """The value of every process, in order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value, group=self.channel)
        return found

    def everyone(self, work: Callable[[], T]) -> list[T]:
        """Do something in every process; when one fails on purpose, all raise its error. Returns all results."""
        return _results(self.gathered(_outcome(work)))

    def first(self, work: Callable[[], T]) -> T:
        """Do something in the first process, while the others wait; all return its result, or raise its error."""
        if self.world == 1:
            return work()
        found: list[Any] = [_outcome(work) if self.first_process else None]
        torch.distributed.broadcast_object_list(found, src=0, group=self.channel)
        return _results(found)[0]


def in_first(work: Callable[[], T]) -> T | None:
    """Do something in the first process that the others need not have; None there. All raise its error."""
    if world() == 1:
        return work()
    kept: list[T] = []
    found: list[Any] = [_outcome(lambda: kept.append(work())) if rank() == 0 else None]
    torch.distributed.broadcast_object_list(found, src=0)
    _results(found)
    return kept[0] if kept else None


def _outcome(work: Callable[[], T]) -> tuple[T | None, LanggraftError | None]:
    try:
        return work(), None
    except LanggraftError as error:
        return None, error


def _results(outcomes: list[Any]) -> list[Any]:
    error = next((error for _, error in outcomes if error is not None), None)
    if error is not None:
        raise error
    return [result for result, _ in outcomes]


def join(device: str) -> None:
    """Meet the other processes: over NCCL on GPUs, each process on its own, else over gloo.

    Raises:
        RecipeError: the device cannot be shared so.
    """
    if world() == 1 or torch.distributed.is_initialized():
        return
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = there.type if there is not None else "cpu"
    if kind not in ("cpu", "cuda") or device not in ("auto", kind):
        raise RecipeError(
            f'compute.device = "{device}" does not go with several processes on a machine with {kind}; '
            f'use "auto"{", and CUDA_VISIBLE_DEVICES= to hide the GPUs" if kind == "cuda" else ""}'
        )
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes."""
    if world() > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block before the others enter it."""
    if rank() > 0:
        torch.distributed.barrier()
    yield
    if rank() == 0 and world() > 1:
        torch.distributed.barrier()


class Crew:
    """How the first process calls the others to the stages that are done together, one after the other."""

    def __init__(self) -> None:
        self.waiting = world() > 1

    def call(self, stage: str | None) -> None:
        """Let the others begin `stage`, or, with None, go."""
        if self.waiting:
            self.waiting = stage is not None
            torch.distributed.broadcast_object_list([stage], src=0)

    @contextlib.contextmanager
    def together(self, stage: str) -> Iterator[None]:
        """A block that the others do too; where it fails they do not come back."""
        self.call(stage)
        try:
            yield
        except BaseException:
            self.waiting = False
            raise


@contextlib.contextmanager
def crew(device: str) -> Iterator[Crew]:
    """Meet the other processes, in the first one; whatever happens, they are let go."""
    join(device)
    found = Crew()
    try:
        yield found
    finally:
        found.call(None)
        leave()


def called(device: str) -> Generator[str, None, None]:
    """Meet the first process, in another one: the stages it calls to, however long what is between them takes there."""
    join(device)
    try:
        while (stage := _next_call()) is not None:
            yield stage
    finally:
        leave()


def _next_call() -> str | None:
    found: list[str | None] = [None]
    torch.distributed.broadcast_object_list(found, src=0)
    return found[0]


def check_model(folder: Path, layout: Layout) -> None:
    """Say before reading weights what cannot be cut so.

    Raises:
        RecipeError: heads or rows of the embedding do not divide.
    """
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    heads = text.get("num_key_value_heads") or text.get("num_attention_heads")
    if heads and heads % layout.tensor_parallel:
        fits = [n for n in range(1, heads + 1) if heads % n == 0]
        raise RecipeError(
            f"compute.tensor_parallel = {layout.tensor_parallel} does not divide the model's {heads} key-value heads; "
            f"use one of {', '.join(map(str, fits))}"
        )
    rows, parts = text.get("vocab_size"), layout.tensor_parallel * layout.fsdp
    if rows and rows % parts:
        # Uneven cuts of a tied matrix go wrong without a word in transformers 5.23: its two owners part.
        raise RecipeError(
            f"the embedding's {rows:,} rows cannot be cut into tensor_parallel x fsdp = {parts} equal parts; "
            f"set surgery.pad_to_multiple_of to a multiple of {parts}, or use data_parallel_replicas"
        )


def load_sharded(folder: Path, group: Group, *, bfloat16: bool = False) -> Any:
    """Load a model folder in float32, each process its own part; with `bfloat16`, FSDP2 computes in that.

    Raises:
        RecipeError: the model cannot be cut as asked.
        ModelError: transformers has no plan for it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    layout = group.layout
    check_model(folder, layout)
    config = DistributedConfig(
        tp_size=layout.tensor_parallel,
        fsdp_size=layout.fsdp,
        dp_replicate_size=layout.replicas,
        fsdp_mixed_precision=bfloat16 and group.data_parallel > 1,
    )
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, distributed_config=config)
    except ValueError as error:
        if "_plan" not in str(error):
            raise
        raise ModelError(f"{folder}: transformers has no plan to cut this model so ({error})") from error
    for parameter in model.parameters():
        region(parameter)  # raises where a part is no rectangle
    return model.eval()


def settle(model: Any) -> None:
    """Let FSDP2 take apart again what it leaves together after a forward pass without a backward one.

    Only then are a module's parameters the parts of this process; weights changed before would not be seen.
    """
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def whole_state(tensors: dict[str, Any], group: Group) -> dict[str, torch.Tensor]:
    """Tensors put together, in the first process's main memory; nothing in the others. One at a time is in transit."""
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if group.first_process:
            found[name] = whole.detach().to("cpu", copy=True)
    return found


def through(model: Any, work: Callable[..., T], *inputs: Any) -> T:
    """Call `work(*inputs)` as if it were the model's forward: FSDP2 brings weights together only inside of that."""
    had = model.__dict__.get("forward")
    model.forward = work
    try:
        return model(*inputs)  # type: ignore[no-any-return]
    finally:
        if had is None:
            del model.forward
        else:
            model.forward = had


def check_together(settings: Any, layout: Layout, processes: int) -> None:
    """Say before anything is read what only one process can do; `settings` are the loop's.

    Raises:
        RecipeError: the optimizer or a mode is for one process, or needs another version of peft.
    """
    if processes == 1:
        return
    several = f"and these are {processes}"
    if settings.optimizer == "adamw_8bit":
        raise RecipeError(
            'pretrain.optimizer = "adamw_8bit" keeps its state in blocks that cannot be cut for another number of '
            f'processes, so it is for one, {several}; use "adamw" or "muon"'
        )
    if settings.lora.quantize != "none":
        raise RecipeError(f'pretrain.lora.quantize = "{settings.lora.quantize}" is for one process, {several}')
    if layout.tensor_parallel > 1 and any(phase.mode == "lora" for phase in settings.phases):
        _check_peft(settings.lora.dropout)


def _check_peft(dropout: float) -> None:
    """What LoRA beside cut matrices takes."""
    version = importlib.metadata.version("peft")
    if tuple(int(part) for part in version.split(".")[:2]) < PEFT:
        raise RecipeError(
            f'pretrain.mode "lora" with compute.tensor_parallel needs peft {".".join(map(str, PEFT))} or newer, and '
            f"this is {version}; install it, or use fsdp"
        )
    if dropout:
        raise RecipeError(
            "pretrain.lora.dropout with compute.tensor_parallel would drop other inputs in each process than one "
            "process drops; set it to 0, or use fsdp"
        )
