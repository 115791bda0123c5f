"""Adapter folders: LoRA and the rows of new tokens, with the tokenizer; nothing the base already has.

The files are peft's own (`adapter_config.json`, `adapter_model.safetensors`; rows as `trainable_token_indices`), so
peft alone loads them on a base resized to the same rows. `langgraft_adapter.json` says what the adapter belongs to.
"""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from langgraft.base import ADAPTER, locate, materialise
from langgraft.errors import InputError, ModelError
from langgraft.store import read_json, staged_folder, write_json
from langgraft.training.device import DTYPES, choose_device, load_model
from langgraft.training.regions import local, region, take
from langgraft.training.trainable import row_parameters

CONFIG, WEIGHTS, FACTS = ADAPTER, "adapter_model.safetensors", "langgraft_adapter.json"
DTYPES_OF_FILES = {**DTYPES, "float16": torch.float16}
SIDE_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "generation_config.json", "langgraft_tokenizer_pin.json"),
)
_PREFIX = "base_model.model."
_CHECKED_ROWS = 1024  # enough to know a base by


@dataclass(frozen=True)
class Facts:
    """What an adapter belongs to: its own rows are `first_row` to `rows`; `checked` is a hash of the base's first."""

    base: str
    first_row: int
    rows: int
    tied: bool
    checked: str


def write_adapter(out: Path, model: Any, wrapper: Any, *, first_row: int, source: Path, base: str = "") -> Path:
    """Write the adapter folder `out`, whole or not at all.

    Args:
        model: the model in training, with or without LoRA in it.
        wrapper: peft's model around it, or None without LoRA.
        first_row: rows of embedding and head from here on go into the adapter.
        source: the model folder that training started from; its tokenizer travels with the adapter.
        base: the name of the base, for whoever loads the adapter: hub id, folder, GGUF file or `package:NAME`.
    """
    names = {id(module): name for name, module in model.named_modules()}
    matrices = _matrices(model, names)
    embedding = matrices[0][1]
    facts = Facts(base, first_row, len(embedding), len(matrices) == 1, _digest(embedding, first_row))
    tensors = _lora_tensors(wrapper) if wrapper is not None else {}
    if facts.rows > first_row:
        way = "token_adapter." if wrapper is not None else ""
        for name, matrix in matrices:
            tensors[f"{_PREFIX}{name}.{way}trainable_tokens_delta"] = matrix.detach()[first_row:]
        for bias in row_parameters(model)[len(matrices) :]:
            tensors[_bias_key(model, names)] = bias.detach()[first_row:]
    with staged_folder(out) as staging:
        write_json(staging / CONFIG, _peft_config(wrapper, facts, [name for name, _ in matrices]))
        save_file({key: _plain(tensors[key]) for key in sorted(tensors)}, staging / WEIGHTS, metadata={"format": "pt"})
        write_json(staging / FACTS, asdict(facts))
        copy_side_files(source, staging)
    return out


def load_adapter(
    folder: Path | str, base: Path | str | None = None, *, merge: bool = False, device: str = "cpu"
) -> Any:
    """Load an adapter folder on its base, in float32: one call, from disk to a model that answers.

    Args:
        folder: an adapter folder.
        base: the base's folder, hub id, GGUF file or `package:NAME`; by default the one the adapter names.
        merge: fold LoRA into the weights, and return a plain transformers model.
        device: auto, cpu, cuda or mps.

    Returns:
        peft's model around the base; the plain model with `merge`, and for adapters that hold rows alone.

    Raises:
        ModelError: the folder is no adapter of langgraft or is damaged, or the base is another one.
    """
    folder = Path(folder)
    facts, tensors = read_adapter(folder)
    with _base_folder(str(base or facts.base), folder) as base_folder:
        model = load_model(base_folder, choose_device(device))
    _check_base(model, facts, folder, base_folder)
    _put_rows(model, facts, tensors)
    if (folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(folder)
    lora = {key: tensor for key, tensor in tensors.items() if ".lora_" in key}
    if not lora:
        return model
    wrapper = _with_lora(model, folder, lora)
    return wrapper.merge_and_unload().eval() if merge else wrapper.eval()


@torch.no_grad()
def merge_parts(wrapper: Any) -> Any:
    """As peft's `merge_and_unload`, into the parts of the weights that each process holds; all call it alike."""
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in wrapper.modules() if isinstance(module, LoraLayer)]
    for module in layers:
        down, up = (_whole(side["default"].weight) for side in (module.lora_A, module.lora_B))
        change = (up @ down) * module.scaling["default"]
        weight = module.get_base_layer().weight
        local(weight).add_(take(change.T if module.fan_in_fan_out else change, region(weight)))
    return wrapper.unload()


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[no-any-return]


def merge_adapter(folder: Path, out: Path, *, base: Path | str | None = None, dtype: str = "float32") -> Path:
    """Write a hub folder `out` with base, LoRA and new rows in one, in `dtype` (float32, bfloat16 or float16).

    Raises:
        ModelError: as `load_adapter`, or the format is unknown.
    """
    if dtype not in DTYPES_OF_FILES:
        raise ModelError(f"dtype `{dtype}` is unknown; choose one of {', '.join(DTYPES_OF_FILES)}")
    model = load_adapter(folder, base, merge=True).to(DTYPES_OF_FILES[dtype])
    with staged_folder(out) as staging:
        model.save_pretrained(staging)
        copy_side_files(folder, staging)
    return out


def read_adapter(folder: Path) -> tuple[Facts, dict[str, Tensor]]:
    """What an adapter folder says of itself, and its tensors.

    Raises:
        ModelError: a file is missing or damaged.
    """
    for name in (CONFIG, FACTS, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}: it is no adapter folder that langgraft wrote")
    try:
        return Facts(**read_json(folder / FACTS)), load_file(folder / WEIGHTS)
    except (InputError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder} is damaged ({error}); copy or export the adapter again") from error


def copy_side_files(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template and generation config."""
    for name in SIDE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _matrices(model: Any, names: dict[int, str]) -> list[tuple[str, Tensor]]:
    """Embedding, and head where it is a matrix of its own, with their names."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    return [(names[id(module)], module.weight) for module in modules]


def _bias_key(model: Any, names: dict[int, str]) -> str:
    return f"{_PREFIX}{names[id(model.get_output_embeddings())]}.bias_rows"


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").contiguous().clone()


def _digest(matrix: Tensor, first_row: int) -> str:
    rows = matrix.detach()[: min(first_row, _CHECKED_ROWS)].to("cpu", torch.float32).contiguous()
    return hashlib.sha256(rows.numpy().tobytes()).hexdigest()


def _lora_tensors(wrapper: Any) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(wrapper, save_embedding_layers=False))


def _peft_config(wrapper: Any, facts: Facts, matrices: list[str]) -> dict[str, Any]:
    """peft's own configuration, with the new rows in it."""
    from peft import TrainableTokensConfig

    rows = list(range(facts.first_row, facts.rows))
    if wrapper is None:
        found = TrainableTokensConfig(token_indices=rows, target_modules=matrices, task_type="CAUSAL_LM").to_dict()
    else:
        found = wrapper.peft_config["default"].to_dict()
        found["trainable_token_indices"] = dict.fromkeys(matrices, rows) if rows else None
    found |= {"base_model_name_or_path": facts.base, "inference_mode": True}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in found.items()}


@contextlib.contextmanager
def _base_folder(name: str, folder: Path) -> Iterator[Path]:
    """The base as a hub folder; one made from GGUF lives as long as the block."""
    if not name:
        raise ModelError(f"{folder} does not name its base; give it")
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        yield materialise(locate(name), Path(scratch) / "base")


def _check_base(model: Any, facts: Facts, folder: Path, base: Path) -> None:
    embedding = model.get_input_embeddings().weight
    tied = len(_matrices(model, {id(module): name for name, module in model.named_modules()})) == 1
    if len(embedding) > facts.rows or tied != facts.tied or _digest(embedding, facts.first_row) != facts.checked:
        raise ModelError(
            f"{folder} belongs to another base than {base}: embedding rows differ; "
            f"give the base it was trained on{f' ({facts.base})' if facts.base else ''}"
        )


@torch.no_grad()
def _put_rows(model: Any, facts: Facts, tensors: dict[str, Tensor]) -> None:
    """Grow embedding and head to the adapter's rows, and fill in its own."""
    before = len(model.get_input_embeddings().weight)
    means = [matrix.mean(dim=0) for matrix in row_parameters(model)]
    if before < facts.rows:
        model.resize_token_embeddings(facts.rows, mean_resizing=False)
    names = {id(module): name for name, module in model.named_modules()}
    rows = {f"{_PREFIX}{name}.": matrix for name, matrix in _matrices(model, names)}
    bias = getattr(model.get_output_embeddings(), "bias", None)
    for grown, mean in zip(row_parameters(model), means, strict=True):
        grown[before : facts.first_row] = mean  # ids that only a config names: as `resize` makes them
    for key, tensor in tensors.items():
        if key.endswith("trainable_tokens_delta"):
            matrix = next(matrix for prefix, matrix in rows.items() if key.startswith(prefix))
            matrix[facts.first_row :] = tensor
        elif bias is not None and key == _bias_key(model, names):
            bias[facts.first_row :] = tensor


def _with_lora(model: nn.Module, folder: Path, tensors: dict[str, Tensor]) -> Any:
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    values = {k: v for k, v in read_json(folder / CONFIG).items() if k not in ("peft_type", "peft_version")}
    wrapper = get_peft_model(model, LoraConfig(**{**values, "trainable_token_indices": None}))
    if set(_lora_tensors(wrapper)) != set(tensors):
        raise ModelError(f"{folder / WEIGHTS} does not hold the layers that {CONFIG} names; export the adapter again")
    set_peft_model_state_dict(wrapper, tensors)
    return wrapper
