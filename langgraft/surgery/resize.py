"""Give a model rows for new tokens: embedding and head, tied or not, with padding rows.

Works on the safetensors files shard by shard; the transformer's weights are never loaded into a model.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from langgraft.base import check_causal_lm, check_tokenizer_fits, embedding_rows
from langgraft.errors import ModelError, TokenizerError
from langgraft.methods import check_options, resolve
from langgraft.store import read_json, staged_folder, write_json
from langgraft.surgery.init import INITS
from langgraft.tokenizer.files import next_id, read_tokenizer, without_pre_tokenizer

INDEX = "model.safetensors.index.json"
NOT_COPIED = ("tokenizer", "special_tokens_map", "added_tokens", "chat_template", "stage", "langgraft_")


@dataclass(frozen=True)
class Matrices:
    """State-dict names of the matrices with one row per token; `head` is None when it is tied."""

    embedding: str
    head: str | None
    head_bias: str | None
    tied: bool


def find_matrices(folder: Path) -> Matrices:
    """Ask the architecture itself (built without memory) which parameters hold embedding and head.

    Raises:
        ModelError: the architecture is unknown, or wraps its text model in a multimodal one.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    check_causal_lm(folder)
    config = AutoConfig.from_pretrained(folder)
    if (
        getattr(config, "vision_config", None) is not None
        or getattr(config, "audio_config", None) is not None
    ):
        raise ModelError(
            f"{folder} is a multimodal model ({config.model_type}); extract its text model first"
        )
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"{folder}: transformers cannot build a causal language model from it: {error}"
        ) from error
    names = {
        id(parameter): name for name, parameter in model.named_parameters()
    }  # a tied pair: the first name
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = bool(config.tie_word_embeddings) or head is None
    bias = getattr(head, "bias", None)
    return Matrices(
        embedding=names[id(embedding.weight)],
        head=None if tied or head is None else names[id(head.weight)],
        head_bias=None if bias is None else names[id(bias)],
        tied=tied,
    )


def pad_to(size: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that holds `size` rows."""
    return -(-size // multiple) * multiple


def resize(
    base: Path,
    tokenizer: Path,
    out: Path,
    *,
    init: str = "subword_mean",
    options: Mapping[str, Any] | None = None,
    pad_to_multiple_of: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Write into `out` the model `base` with rows for every token of the extended `tokenizer`.

    Old rows stay bit-identical (checked on the written files). Rows up to a multiple of
    `pad_to_multiple_of` are padding: they start as the mean of all rows and are never generated.

    Returns rows, ids and method as a summary.

    Raises:
        ModelError: the weights are not where the architecture says they are.
        TokenizerError: `tokenizer` is no extension of the base's, or does not fit.
    """
    base, tokenizer, out = Path(base), Path(tokenizer), Path(out)
    check_tokenizer_fits(base)
    matrices = find_matrices(base)
    pieces, first = new_token_pieces(base, tokenizer)
    used = first + len(pieces)
    rows = max(pad_to(used, pad_to_multiple_of), pad_to(embedding_rows(base), pad_to_multiple_of))
    method = resolve(INITS, init, what="initialisation")
    check_options(method, {**(options or {}), "generator": None}, what=f"initialisation `{init}`")
    with staged_folder(out) as staging:
        _copy_side_files(base, tokenizer, staging)
        names = [matrices.embedding, matrices.head, matrices.head_bias]
        todo = {name for name in names if name is not None}
        for shard in sorted(base.glob("*.safetensors")):
            todo -= _rewrite_shard(
                shard, staging / shard.name, todo, pieces, first, rows, method, options or {}, seed
            )
        if todo:
            raise ModelError(
                f"{base} holds no tensor named {', '.join(sorted(todo))}; its files do not match its config.json"
            )
        _rewrite_index(base, staging)
        _rewrite_config(base, staging, rows=rows, used=used)
        check_old_rows(base, staging, matrices, first)
    return {
        "init": init,
        "old_tokens": first,
        "new_tokens": len(pieces),
        "rows": rows,
        "padding_rows": rows - used,
        "tied": matrices.tied,
    }


def new_token_pieces(base: Path, tokenizer: Path) -> tuple[list[list[int]], int]:
    """Base ids of each new token in id order, and the first new id.

    Raises:
        TokenizerError: `tokenizer` does not keep every id of the base, or its new ids leave holes.
    """
    old_data, new_data = read_tokenizer(base), read_tokenizer(tokenizer)
    old, new = old_data["model"]["vocab"], new_data["model"]["vocab"]
    moved = next((token for token, i in old.items() if new.get(token) != i), None)
    if moved is not None:
        raise TokenizerError(
            f"{tokenizer} is no extension of the tokenizer in {base}: token {moved!r} has id {new.get(moved)} instead of "
            f"{old[moved]}; extend this base's own tokenizer"
        )
    added = sorted((i, token) for token, i in new.items() if token not in old)
    first = next_id(old_data, read_json(Path(base) / "config.json"))
    if not added:
        return [], first
    if [i for i, _ in added] != list(range(added[0][0], added[0][0] + len(added))) or added[0][0] < first:
        raise TokenizerError(f"the new ids of {tokenizer} must run from {first:,} without holes")
    bare = without_pre_tokenizer(old_data)
    pieces = [
        encoding.ids
        for encoding in bare.encode_batch([token for _, token in added], add_special_tokens=False)
    ]
    return pieces, added[0][0]


def _rewrite_shard(
    shard: Path,
    target: Path,
    names: set[str],
    pieces: Sequence[Sequence[int]],
    first: int,
    rows: int,
    method: Any,
    options: Mapping[str, Any],
    seed: int,
) -> set[str]:
    """Copy one safetensors file, with longer matrices where `names` says so; returns the names found."""
    with safe_open(shard, framework="pt") as file:
        found = names & set(file.keys())
        if not found:
            shutil.copyfile(shard, target)
            return found
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = file.metadata()
    for name in sorted(found):
        tensors[name] = longer(tensors[name], pieces, first, rows, method, options, seed)
    save_file(tensors, target, metadata=metadata or {"format": "pt"})
    return found


def longer(
    matrix: Tensor,
    pieces: Sequence[Sequence[int]],
    first: int,
    rows: int,
    method: Any,
    options: Mapping[str, Any],
    seed: int,
) -> Tensor:
    """Extend a (rows, width) matrix, or a head's (rows,) bias, to `rows`; same dtype, old rows untouched."""
    flat = matrix.unsqueeze(1) if matrix.dim() == 1 else matrix
    old = flat[:first].float()
    generator = torch.Generator().manual_seed(seed)
    new = method(old, pieces, generator=generator, **options)
    padding = old.mean(dim=0, keepdim=True).repeat(rows - first - len(pieces), 1)
    whole = torch.cat([flat[:first], torch.cat([new, padding]).to(matrix.dtype)])
    return whole.squeeze(1).contiguous() if matrix.dim() == 1 else whole.contiguous()


def _copy_side_files(base: Path, tokenizer: Path, out: Path) -> None:
    for file in sorted(base.iterdir()):
        if (
            file.suffix in (".json", ".txt", ".py")
            and not file.name.startswith(NOT_COPIED)
            and file.name != INDEX
        ):
            shutil.copyfile(file, out / file.name)
    for file in sorted(tokenizer.iterdir()):
        if (
            file.is_file()
            and file.suffix in (".json", ".jinja", ".model")
            and not file.name.startswith(("stage", "summary"))
        ):
            shutil.copyfile(file, out / file.name)


def _rewrite_index(base: Path, out: Path) -> None:
    """Keep the shard index, with the new total size."""
    if not (base / INDEX).is_file():
        return
    index = read_json(base / INDEX)
    total = 0
    for shard in out.glob("*.safetensors"):
        with shard.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(
            t["data_offsets"][1] - t["data_offsets"][0] for n, t in header.items() if n != "__metadata__"
        )
    index.setdefault("metadata", {})["total_size"] = total
    write_json(out / INDEX, index)


def _rewrite_config(base: Path, out: Path, *, rows: int, used: int) -> None:
    """Set vocab_size; forbid padding rows in generation."""
    config = read_json(base / "config.json")
    config["vocab_size"] = rows
    write_json(out / "config.json", config)
    if rows > used:
        path = out / "generation_config.json"
        generation = read_json(path) if path.is_file() else {}
        generation["suppress_tokens"] = list(range(used, rows))
        write_json(path, generation)


def check_old_rows(base: Path, extended: Path, matrices: Matrices, first: int) -> None:
    """Compare old rows of the written files with the base's, bit for bit.

    Raises:
        ModelError: they differ (a defect, or a failing disk).
    """
    for name in (matrices.embedding, matrices.head, matrices.head_bias):
        if name is not None and not torch.equal(_rows(base, name, first), _rows(extended, name, first)):
            raise ModelError(
                f"old rows of {name} changed while writing {extended}; the disk may be failing, run again"
            )


def _rows(folder: Path, name: str, count: int) -> Tensor:
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118
                rows: Tensor = file.get_slice(name)[:count]
                return rows.view(torch.uint8) if rows.dim() else rows
    raise ModelError(f"{folder} holds no tensor named {name}")
