"""Tokenizer folders: read, change and write `tokenizer.json` as data, so that nothing else in it moves."""

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langgraft.base import copy_tokenizer_files, tokenizer_size
from langgraft.errors import TokenizerError
from langgraft.store import atomic_write, read_json, write_json
from langgraft.tokenizer.spm_model import MODEL, extended_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
SPACE = "▁"  # how SentencePiece writes a space
Family = Literal["byte-level", "byte-fallback"]


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Read `tokenizer.json` of a tokenizer that can be extended: BPE, byte-level or with byte fallback.

    Raises:
        TokenizerError: there is none, or it is of another family.
    """
    path = Path(folder) / TOKENIZER
    if not path.is_file():
        raise TokenizerError(f"{folder} has no tokenizer.json; save the base's fast tokenizer there first")
    data = read_json(path)
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise TokenizerError(f"{path} is no tokenizer.json (it has no model with a vocabulary); save the base's again")
    kind = model.get("type") or ("BPE" if "merges" in model else "unknown")  # old files leave the type out
    if kind != "BPE" or not (is_byte_fallback(data) or (is_byte_level(data) and not model.get("byte_fallback"))):
        raise TokenizerError(
            f"{path} is a {kind} tokenizer without byte-level pre-tokenization or byte tokens; "
            "only byte-level BPE and BPE with byte fallback can be extended"
        )
    merges = model["merges"]
    if merges and isinstance(merges[0], str):
        model["merges"] = [merge.split(" ", 1) for merge in merges]
    return {**data, "model": {"type": kind, **model}}


def is_byte_level(data: dict[str, Any]) -> bool:
    """Whether a tokenizer.json spells bytes in GPT-2's alphabet."""
    decoder = data.get("decoder") or {}
    parts = decoder.get("decoders", [decoder])
    return any(part.get("type") == "ByteLevel" for part in parts)


def is_byte_fallback(data: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is SentencePiece's BPE: spaces written as ▁, byte tokens such as <0xE5>."""
    model = data["model"]
    steps = json.dumps([data.get("normalizer"), data.get("pre_tokenizer")], ensure_ascii=False)
    return (
        bool(model.get("byte_fallback")) and "<0x00>" in model["vocab"] and SPACE in steps and not is_byte_level(data)
    )


def family(data: dict[str, Any]) -> Family:
    """The family of a tokenizer.json that `read_tokenizer` has read."""
    return "byte-fallback" if is_byte_fallback(data) else "byte-level"


def read_byte_level(folder: Path) -> dict[str, Any]:
    """Read `tokenizer.json` of a byte-level BPE tokenizer, and no other.

    Raises:
        TokenizerError: there is none, or it is of another family.
    """
    data = read_tokenizer(folder)
    if family(data) != "byte-level":
        raise TokenizerError(
            f"{Path(folder) / TOKENIZER} is SentencePiece BPE, and this needs byte-level BPE; "
            "SentencePiece bases are extended with method `continue`"
        )
    return data


def spelling(data: dict[str, Any]) -> Callable[[str], bytes]:
    """The function that turns a token of this tokenizer into its bytes: `token_bytes` or `piece_bytes`."""
    return piece_bytes if family(data) == "byte-fallback" else token_bytes


def write_tokenizer(data: dict[str, Any], base: Path, out: Path) -> None:
    """Write a changed `tokenizer.json` into `out`, with the base's other tokenizer files.

    A SentencePiece base's `tokenizer.model` gets the same new pieces. The class in
    tokenizer_config.json becomes PreTrainedTokenizerFast: transformers' model-specific classes rebuild parts of
    the pipeline from code and change ids.
    """
    out.mkdir(parents=True, exist_ok=True)
    copy_tokenizer_files(base, out)
    path = out / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.pop("auto_map", None)
    write_json(path, config)
    write_json(out / TOKENIZER, with_added_tokens(data))
    if family(data) == "byte-fallback" and (base / MODEL).is_file():
        atomic_write(out / MODEL, extended_model(base / MODEL, data))


def with_added_tokens(data: dict[str, Any]) -> dict[str, Any]:
    """Give added tokens that the vocabulary has outgrown an entry in it.

    `tokenizers` numbers an added token that the vocabulary lacks anew, behind the highest id, when it loads.
    """
    vocab = data["model"]["vocab"]
    top = max(vocab.values(), default=-1)
    missing = {t["content"]: t["id"] for t in data.get("added_tokens", []) if t["content"] not in vocab}
    if not any(i < top for i in missing.values()):
        return data
    whole = dict(sorted({**vocab, **missing}.items(), key=lambda item: item[1]))
    return {**data, "model": {**data["model"], "vocab": whole}}


def load(folder: Path) -> "Tokenizer":
    """`Tokenizer.from_file`: the truth about a folder's tokenizer."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(Path(folder) / TOKENIZER))


def from_data(data: dict[str, Any]) -> "Tokenizer":
    """Build a tokenizer from tokenizer.json data."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(data, ensure_ascii=False))


def without_pre_tokenizer(data: dict[str, Any]) -> "Tokenizer":
    """The bare BPE of a tokenizer: encodes strings that are already spelled in the byte alphabet."""
    bare = copy.deepcopy(data)
    bare.update(normalizer=None, pre_tokenizer=None, post_processor=None, added_tokens=[])
    return from_data(bare)


def next_id(data: dict[str, Any], config: dict[str, Any] | None = None) -> int:
    """The first id that vocabulary, added tokens and ids named only in a model config leave free."""
    named: list[int] = []
    for key, value in (config or {}).items():
        if key.endswith("_token_id"):
            named.extend(i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))
    return max([tokenizer_size(data) - 1, *named]) + 1


@functools.cache
def byte_alphabet() -> tuple[dict[int, str], dict[str, int]]:
    """GPT-2's byte alphabet: byte -> printable character, and back."""
    keep = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    forward = {byte: chr(byte) for byte in keep}
    extra = 0
    for byte in range(256):
        if byte not in forward:
            forward[byte] = chr(256 + extra)
            extra += 1
    return forward, {char: byte for byte, char in forward.items()}


def token_bytes(token: str) -> bytes:
    """The bytes that a byte-level token stands for.

    Raises:
        KeyError: the token is not spelled in the byte alphabet (an added token).
    """
    return bytes(map(byte_alphabet()[1].__getitem__, token))


def piece_bytes(piece: str) -> bytes:
    """The bytes that a SentencePiece piece stands for: `<0xE5>` one byte, ▁ a space."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(SPACE, " ").encode("utf-8")


def byte_spelling(text: str) -> str:
    """Text spelled in the byte alphabet; `token_bytes` undoes it."""
    forward = byte_alphabet()[0]
    return "".join(forward[byte] for byte in text.encode("utf-8"))


def token_text(token: str) -> str:
    """A byte-level token as readable text; incomplete characters become U+FFFD."""
    return token_bytes(token).decode("utf-8", "replace")
