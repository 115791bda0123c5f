"""Hub folder -> GGUF file, tensor by tensor: never more than one tensor of the model in memory."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.errors import ModelError
from langgraft.exporting.gguf_families import (
    HEAD,
    Family,
    change_of,
    family_of,
    is_buffer,
    read_config,
    transpose,
)
from langgraft.exporting.gguf_quants import TYPES
from langgraft.exporting.gguf_settings import add_settings, add_vocabulary, rope_factors
from langgraft.exporting.gguf_vocab import Vocabulary, read_vocabulary
from langgraft.exporting.weights import Weights, open_weights, same_tensor
from langgraft.store import staged_file

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import torch

Read = Callable[..., "torch.Tensor"]
_NUMBERS_AT_ONCE = 4 << 20  # 16 MiB in 32 bits
_PRECISE = "Q8_0"  # of embedding and head in files of four and five bits


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: its GGUF name, its shape and type there, and its rows in blocks."""

    name: str
    shape: tuple[int, ...]
    quant: "gguf.GGMLQuantizationType"
    blocks: "Callable[[], Iterator[torch.Tensor]]"


def write_gguf(
    model: Path, path: Path, *, quant: str = "f16", pre: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """Convert a hub folder to one GGUF file; `path` appears only when it is whole.

    Two-dimensional weights are stored as `quant` (rows that do not divide into its blocks as f16), everything
    else as f32. In files of four and five bits, the head and an embedding that is also the head are stored in eight:
    rounding there changes answers most, and rows of new tokens are the ones that have learned least. Embedding rows
    beyond the last token are dropped: llama.cpp wants as many rows as tokens and masks nothing by itself, so it could
    generate a padding row that was given a name.

    Args:
        quant: a name of `gguf_quants.TYPES`.
        pre: `tokenizer.ggml.pre`, where the choice that `pre_for` makes is not wanted.
        name: the model's name in the file; by default the name of its folder.

    Returns:
        `path, quant, bytes, architecture, tensors, tokens, dropped_rows, pre, pre_reason, fallback` (tensor -> type,
        of those whose rows do not divide into the blocks of `quant`)`, notes`.

    Raises:
        ModelError: the architecture, tokenizer or a setting of the model cannot be expressed in GGUF.
    """
    import gguf

    if quant not in TYPES:
        raise ModelError(f"unknown GGUF type `{quant}`; choose from {', '.join(TYPES)}")
    config = read_config(model)
    family = family_of(config)
    vocabulary = read_vocabulary(model, pre=pre)
    weights = open_weights(model)
    tokens = len(vocabulary.tokens)
    rows = _check_rows(weights, family, tokens)
    with staged_file(path) as temporary, weights.reader() as read:
        _check_head(weights, read, config, family)
        writer = gguf.GGUFWriter(temporary, family.arch)
        title = vocabulary.name_for(name or model.name)
        add_settings(writer, config, name=title, file_type=TYPES[quant][1], tokens=tokens)
        add_vocabulary(writer, vocabulary)
        tensors = list(_plan(config, weights, read, quant, tokens))
        try:
            _write(writer, tensors)
        finally:
            writer.close()
    wanted = TYPES[quant][0]
    return {
        "path": str(path),
        "quant": quant,
        "bytes": path.stat().st_size,
        "architecture": family.arch,
        "tensors": len(tensors),
        "tokens": tokens,
        "dropped_rows": rows - tokens,
        "pre": vocabulary.pre,
        "pre_reason": vocabulary.pre_reason,
        "fallback": {t.name: "f16" for t in tensors if wanted not in ("F16", t.quant.name) and t.quant.name == "F16"},
        "notes": vocabulary.notes,
    }


def write_vocabulary(folder: Path, path: Path, *, pre: str | None = None) -> Vocabulary:
    """Write the tokenizer of a folder as a GGUF file without weights, for `open_gguf(path, vocab_only=True)`.

    The folder needs no model; `pre` is taken as `read_vocabulary` takes it.

    Raises:
        ModelError: the tokenizer cannot be expressed in GGUF.
    """
    import gguf

    vocabulary = read_vocabulary(Path(folder), pre=pre)
    with staged_file(Path(path)) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        try:
            writer.add_vocab_size(len(vocabulary.tokens))
            add_vocabulary(writer, vocabulary)
            _write(writer, [])
        finally:
            writer.close()
    return vocabulary


def embedding_name(weights: Weights, family: Family) -> str:
    """The name of the embedding matrix in a folder.

    Raises:
        ModelError: there is none.
    """
    for name in (family.embedding, family.embedding.removeprefix(family.prefix)):
        if name in weights.shapes:
            return name
    raise ModelError(f"{weights.folder} has no tensor {family.embedding}; it is not laid out as its architecture says")


def _check_rows(weights: Weights, family: Family, tokens: int) -> int:
    rows = weights.shapes[embedding_name(weights, family)][0]
    if rows < tokens:
        raise ModelError(
            f"{weights.folder}: the tokenizer has ids up to {tokens - 1:,} and the embedding only {rows:,} rows; "
            "resize the model with `langgraft surgery` first"
        )
    return rows


def _check_head(weights: Weights, read: Read, config: Any, family: Family) -> None:
    """Refuse a folder whose config and files disagree on whether the head is the embedding."""
    if not config.tie_word_embeddings:
        if HEAD not in weights.shapes:
            raise ModelError(
                f"{weights.folder} has no {HEAD} although its head is not tied; save the whole model again"
            )
        return
    if HEAD in weights.shapes and not same_tensor(weights, read, HEAD, embedding_name(weights, family)):
        raise ModelError(
            f"{weights.folder}: config.json ties the head to the embedding (tie_word_embeddings), and the files hold "
            f"a {HEAD} that differs from it; set tie_word_embeddings to false if the head was trained on its own, or "
            "save the model again"
        )


def _plan(config: Any, weights: Weights, read: Read, quant: str, tokens: int) -> Iterator[Tensor]:
    """Every tensor of the file in the order of the hub folder's names, layers in their order."""
    import gguf

    family = family_of(config)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[family.arch], config.num_hidden_layers)
    embedding = embedding_name(weights, family)
    for name in sorted(weights.shapes, key=_natural):
        if is_buffer(name) or (name == HEAD and config.tie_word_embeddings):
            continue
        full = name if name == HEAD or name.startswith(family.prefix) else family.prefix + name
        target = names.get_name(full, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(f"{weights.folder}: tensor {name} has no place in a `{family.arch}` GGUF file")
        change, shape = change_of(config, full), weights.shapes[name]
        if name in (embedding, HEAD):
            shape = (tokens, *shape[1:])
        elif change is transpose:
            shape = shape[::-1]
        precise = name == HEAD or (name == embedding and config.tie_word_embeddings)
        kind = _stored_as(target, shape, quant, precise=precise)
        yield Tensor(target, shape, kind, partial(_blocks, read, name, shape, change))
    for target, factors in rope_factors(config).items():
        shape = tuple(factors.shape)
        yield Tensor(target, shape, gguf.GGMLQuantizationType.F32, partial(iter, (factors,)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _stored_as(target: str, shape: tuple[int, ...], quant: str, *, precise: bool) -> "gguf.GGMLQuantizationType":
    import gguf

    if len(shape) < 2 or target.startswith("position_embd"):
        return gguf.GGMLQuantizationType.F32
    name = TYPES[quant][0]
    kind = gguf.GGMLQuantizationType[_PRECISE if precise and name.startswith(("Q4", "Q5")) else name]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _blocks(
    read: Read, name: str, shape: tuple[int, ...], change: "Callable[[torch.Tensor], torch.Tensor] | None"
) -> "Iterator[torch.Tensor]":
    """A tensor in blocks of rows; one that must be changed is read whole and changed first."""
    whole = change(read(name)) if change else None
    step = max(_NUMBERS_AT_ONCE // math.prod(shape[1:]), 1)
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        yield read(name, start, stop) if whole is None else whole[start:stop]


def _write(writer: "gguf.GGUFWriter", tensors: list[Tensor]) -> None:
    import gguf
    import numpy as np

    sizes = {}
    for tensor in tensors:
        shape = tensor.shape
        if tensor.quant.name in ("F32", "F16"):
            dtype = np.dtype(np.float32 if tensor.quant.name == "F32" else np.float16)
        else:
            shape, dtype = gguf.quant_shape_to_byte_shape(shape, tensor.quant), np.dtype(np.uint8)
        sizes[tensor.name] = math.prod(shape) * dtype.itemsize
        writer.add_tensor_info(tensor.name, shape, dtype, sizes[tensor.name], raw_dtype=tensor.quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if not tensors:
        return
    # `write_tensor_data` takes whole tensors only; the same bytes go into its file block by block.
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for tensor in tensors:
        written = 0
        for block in tensor.blocks():
            data = _encode(tensor, block)
            data.tofile(file)
            written += data.nbytes
        if written != sizes[tensor.name]:
            raise ModelError(f"{tensor.name} gave {written:,} bytes and {sizes[tensor.name]:,} belong to its shape")
        writer.write_padding(file, written)


def _encode(tensor: Tensor, block: "torch.Tensor") -> "np.ndarray":
    """The bytes of a block of rows in the tensor's type."""
    import gguf
    import torch

    if tensor.quant.name == "F16":
        half = block.to(torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise ModelError(f"{tensor.name} has values that f16 cannot hold; export as bf16 or f32 instead")
        return half.numpy()
    numbers = block.to(torch.float32).contiguous().numpy()
    return numbers if tensor.quant.name == "F32" else gguf.quantize(numbers, tensor.quant)
