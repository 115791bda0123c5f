"""A hub folder as a checkpoint of Megatron-LM: the names, the fused matrices and the split of megatron-core's GPTModel.

What was written is read back, put together again and compared with the folder, number for number. That megatron-core
computes the same from it is proven by the tests, which load it there and compare logits.
"""

import argparse
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langgraft.base import check_causal_lm, check_tokenizer_fits
from langgraft.errors import ModelError, RecipeError
from langgraft.exporting.folder_gates import folder_gates
from langgraft.exporting.formats import passed, tokenizer_config
from langgraft.exporting.gguf_families import EMBEDDING, HEAD
from langgraft.exporting.manifest import write_manifest
from langgraft.exporting.megatron_config import Plan, arguments, plan_for
from langgraft.exporting.weights import Weights, open_weights
from langgraft.store import atomic_write, staged_folder, write_json

if TYPE_CHECKING:
    from torch import Tensor

TRACKER, FILE = "latest_checkpointed_iteration.txt", "model_optim_rng.pt"
TOKENIZER = "tokenizer"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "special_tokens_map.json", "chat_template.jinja")
_BUFFERS = ("rotary_emb.inv_freq",)  # saved by old versions, no weights
Read = Callable[..., "Tensor"]
Kind = Literal["copy", "vocabulary", "columns", "qkv", "gate_up"]


@dataclass(frozen=True)
class Slot:
    """One tensor of Megatron: how it is made of which tensors of the hub folder, and cut for each rank."""

    name: str
    kind: Kind
    sources: tuple[str, ...]


def export_megatron(
    model: Path,
    out: Path,
    *,
    tensor_parallel: int = 1,
    pad_to: int = 128,
    transformer_impl: str = "transformer_engine",
) -> dict[str, Any]:
    """Write `out/release/mp_rank_XX/model_optim_rng.pt`, which Megatron-LM loads with `--ckpt-format torch`.

    `out/arguments.txt` holds the arguments that describe the model, `out/tokenizer` the tokenizer that they name.
    Rows of embedding and head are padded (with their mean) to a multiple of `pad_to * tensor_parallel`.

    Args:
        tensor_parallel: ranks that share every matrix, a file each; memory holds one of them.
        pad_to: Megatron's `--make-vocab-size-divisible-by`.
        transformer_impl: whose layers will load it, which differ in names: transformer_engine, or local.

    Returns:
        `format, folder, files` (name -> `{bytes, sha256}`)`, gates, arguments, rows`.

    Raises:
        ModelError: the family, or a setting, is none that Megatron computes alike; the model cannot be split so often;
            a check of `folder_gates` fails; or the checkpoint does not give the weights back.
        RecipeError: `tensor_parallel` or `pad_to` is below 1, or the implementation is unknown.
        DiskFullError: no space is left; `out` is untouched.
    """
    model, out = Path(model), Path(out)
    if tensor_parallel < 1 or pad_to < 1:
        raise RecipeError(f"tensor parallel {tensor_parallel} and padding to {pad_to}: both must be at least 1")
    check_causal_lm(model)
    check_tokenizer_fits(model)
    gates = passed(folder_gates(model, model_file=False), model)
    plan = plan_for(model, tensor_parallel=tensor_parallel, pad_to=pad_to, transformer_impl=transformer_impl)
    weights = open_weights(model)
    slots = list(layout(plan))
    _check_names(model, weights, slots, plan)
    with staged_folder(out) as staging:
        for rank in range(tensor_parallel):
            _write(staging / "release" / f"mp_rank_{rank:02d}" / FILE, weights, slots, plan, rank)
        atomic_write(staging / TRACKER, "release\n")
        _copy_tokenizer(model, staging / TOKENIZER)
        given = arguments(plan)
        atomic_write(staging / "arguments.txt", "".join(f"{line}\n" for line in given))
        gates += passed([_back(staging, weights, slots, plan)], model)
        files = write_manifest(staging, "megatron", gates)
    facts = {"format": "megatron", "folder": str(out), "files": files, "gates": gates}
    return {**facts, "arguments": given, "rows": plan.rows}


def layout(plan: Plan) -> Iterator[Slot]:
    """Every tensor of the checkpoint, by the names that `plan.transformer_impl` has for it.

    Transformer Engine keeps the norm before a matrix in that matrix's module.
    """
    fused = plan.transformer_impl == "transformer_engine"
    yield Slot("embedding.word_embeddings.weight", "vocabulary", (EMBEDDING,))
    for number in range(plan.layers):
        to, of = f"decoder.layers.{number}.", f"model.layers.{number}."
        first = "self_attention.linear_qkv.layer_norm_weight" if fused else "input_layernorm.weight"
        second = "mlp.linear_fc1.layer_norm_weight" if fused else "pre_mlp_layernorm.weight"
        yield Slot(f"{to}{first}", "copy", (f"{of}input_layernorm.weight",))
        for part in ("weight", *(["bias"] if plan.qkv_bias else [])):
            names = tuple(f"{of}self_attn.{letter}_proj.{part}" for letter in "qkv")
            yield Slot(f"{to}self_attention.linear_qkv.{part}", "qkv", names)
        for letter in "qk" if plan.qk_norm else "":
            yield Slot(
                f"{to}self_attention.{letter}_layernorm.weight", "copy", (f"{of}self_attn.{letter}_norm.weight",)
            )
        yield Slot(f"{to}self_attention.linear_proj.weight", "columns", (f"{of}self_attn.o_proj.weight",))
        yield Slot(f"{to}{second}", "copy", (f"{of}post_attention_layernorm.weight",))
        names = (f"{of}mlp.gate_proj.weight", f"{of}mlp.up_proj.weight")
        yield Slot(f"{to}mlp.linear_fc1.weight", "gate_up", names)
        yield Slot(f"{to}mlp.linear_fc2.weight", "columns", (f"{of}mlp.down_proj.weight",))
    yield Slot("decoder.final_layernorm.weight", "copy", ("model.norm.weight",))
    if not plan.tied:
        yield Slot("output_layer.weight", "vocabulary", (HEAD,))


def _check_names(model: Path, weights: Weights, slots: list[Slot], plan: Plan) -> None:
    """Refuse a folder with weights that would be lost, or without some that are needed."""
    wanted = {name for slot in slots for name in slot.sources}
    # A tied head that is stored all the same is the embedding: `folder_gates` compared them.
    spare = {HEAD} if plan.tied else set()
    there = {name for name in weights.shapes if not name.endswith(_BUFFERS)}
    for what, names in (("has no place for", there - wanted - spare), ("needs", wanted - there)):
        if names:
            raise ModelError(f"{model}: Megatron's layers {what} {', '.join(sorted(names)[:3])}; export a hub folder")


def _write(path: Path, weights: Weights, slots: list[Slot], plan: Plan, rank: int) -> None:
    """Write the file of one rank: its part of every tensor, and the arguments that Megatron compares or takes over."""
    import torch

    path.parent.mkdir(parents=True)
    with weights.reader() as read:
        state = {slot.name: part_of(slot, read, weights, plan, rank) for slot in slots}
    found = {"args": argparse.Namespace(**plan.settings()), "checkpoint_version": 3.0, "iteration": 0, "model": state}
    with path.open("wb") as file:
        torch.save(found, file)


def part_of(slot: Slot, read: Read, weights: Weights, plan: Plan, rank: int) -> "Tensor":
    """What rank `rank` holds of one tensor, in memory of its own.

    Matrices whose inputs are shared are cut by rows (queries, keys and values by groups of heads, gate and up each by
    itself), those that sum over what was cut by columns (Shoeybi et al. 2019, arXiv 1909.08053).
    """
    import torch

    def rows(name: str) -> "Tensor":
        size = weights.shapes[name][0] // plan.tensor_parallel
        return read(name, rank * size, (rank + 1) * size)

    (name, *_) = slot.sources
    if slot.kind == "copy":
        return read(name)
    if slot.kind == "columns":
        return read(name).chunk(plan.tensor_parallel, dim=1)[rank].contiguous().clone()
    if slot.kind == "vocabulary":
        return _padded(name, read, weights.shapes[name][0], plan, rank)
    if slot.kind == "gate_up":
        return torch.cat([rows(source) for source in slot.sources])
    groups, rest = plan.groups // plan.tensor_parallel, weights.shapes[name][1:]
    heads = [rows(source).reshape(groups, -1, plan.head, *rest) for source in slot.sources]
    return torch.cat(heads, dim=1).reshape(-1, *rest)


def _padded(name: str, read: Read, count: int, plan: Plan, rank: int) -> "Tensor":
    """One rank's rows of embedding or head; rows past the folder's are the mean of all."""
    import torch

    size = plan.rows // plan.tensor_parallel
    own = read(name, min(rank * size, count), min((rank + 1) * size, count))
    if len(own) == size:
        return own
    mean = read(name).to(torch.float32).mean(dim=0, keepdim=True).to(own.dtype)
    return torch.cat([own, mean.expand(size - len(own), -1)])


def _copy_tokenizer(model: Path, folder: Path) -> None:
    folder.mkdir()
    for name in _TOKENIZER_FILES:
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)
    write_json(folder / "tokenizer_config.json", tokenizer_config(model))


def joined(folder: Path, slots: list[Slot], plan: Plan) -> "Iterator[tuple[str, Tensor]]":
    """The way back: every tensor of the hub folder with its name, from the files of all ranks.

    Written apart from `part_of`, so that a mistake there is found here. Rows of padding are cut off by the caller.
    """
    import torch

    with torch.serialization.safe_globals([argparse.Namespace]):
        ranks: list[Mapping[str, Tensor]] = [
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)["model"]
            for path in sorted((folder / "release").glob(f"mp_rank_*/{FILE}"))
        ]
    queries = plan.heads // plan.groups
    for slot in slots:
        parts = [state[slot.name] for state in ranks]
        if slot.kind == "copy":
            yield slot.sources[0], parts[0]
        elif slot.kind == "columns":
            yield slot.sources[0], torch.cat(parts, dim=1)
        elif slot.kind == "vocabulary":
            yield slot.sources[0], torch.cat(parts)
        elif slot.kind == "gate_up":
            for number, source in enumerate(slot.sources):
                yield source, torch.cat([part.tensor_split(2)[number] for part in parts])
        else:
            cut = torch.cat([part.unflatten(0, (-1, queries + 2, plan.head)) for part in parts])
            places = (slice(0, queries), slice(queries, queries + 1), slice(queries + 1, None))
            for source, place in zip(slot.sources, places, strict=True):
                yield source, cut[:, place].flatten(0, 2)


def _back(folder: Path, weights: Weights, slots: list[Slot], plan: Plan) -> dict[str, Any]:
    """The gate: what the files of all ranks give, put together, is the hub folder."""
    differ, count = [], 0
    with weights.reader() as read:
        for name, tensor in joined(folder, slots, plan):
            count += 1
            if not read(name).equal(tensor[: weights.shapes[name][0]]):
                differ.append(name)
    shown = f"{count} tensors" + (f"; other: {', '.join(differ[:3])}" if differ else "")
    return {
        "name": "the checkpoint gives every weight back",
        "passed": not differ,
        "value": shown,
        "bound": "all",
        "detail": "",
    }
