"""The tokenizer section of a GGUF file, from a tokenizer.json: byte-level BPE, or SentencePiece's BPE."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langgraft.base import tokenizer_size
from langgraft.errors import InputError, ModelError
from langgraft.exporting.gguf_pre import pre_for
from langgraft.exporting.gguf_spm import CONTROL, NORMAL, UNUSED, USER_DEFINED, read_spm
from langgraft.store import read_json
from langgraft.tokenizer.files import is_byte_fallback
from langgraft.tokenizer.template import template_of

SPECIAL = ("bos", "eos", "unk", "pad")


@dataclass
class Vocabulary:
    """What llama.cpp needs to tokenize: `tokens[i]`, `types[i]` and `scores[i]` belong to id `i`.

    `model` is `tokenizer.ggml.model`: `gpt2` joins by `merges`, `llama` (SentencePiece) by `scores`.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str
    pre_reason: str
    special: dict[str, int] = field(default_factory=dict)
    end_of_turn: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    chat_template: str | None = None
    holes: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    model: str = "gpt2"
    scores: list[float] = field(default_factory=list)
    add_space_prefix: bool = False
    strips: list[str] = field(default_factory=list)

    def name_for(self, name: str) -> str:
        """A model's name that lets llama.cpp read special tokens as the tokenizer does.

        No field of a GGUF file says that a special token takes the spaces after it along, as Phi-3's do; llama.cpp
        does so if the model's name holds "phi-3", and cannot load such a file if some of Phi-3's tokens are missing.
        """
        named = any(part in name.lower() for part in ("phi-3", "phi3"))
        phi = bool(self.strips) and {"</s>", "<unk>", "<s>", "<|endoftext|>"} <= set(self.tokens)
        if phi and not named:
            return f"{name} (phi-3 tokens)"
        return name if phi or not named else re.sub("phi-?3", "Phi 3", name, flags=re.IGNORECASE)


def read_vocabulary(model: Path, *, pre: str | None = None) -> Vocabulary:
    """Read the tokenizer of a hub folder; `pre` overrides the choice of pre-tokenizer (byte-level BPE only).

    Ids that no token has become unused `[PAD{id}]` entries, which llama.cpp never matches in text. Embedding
    rows beyond the last id get no entry: the writer drops them, so that they can never be generated.

    Raises:
        ModelError: the tokenizer is of another family, or does something that llama.cpp cannot.
    """
    path = model / "tokenizer.json"
    try:
        document = read_json(path)
    except InputError as error:
        raise ModelError(f"{error}; a GGUF file needs a fast tokenizer") from error
    vocabulary = _read_sentencepiece(document, path, pre) if is_spm(document) else _read_bpe(document, path, pre)
    config = read_json(model / "tokenizer_config.json") if (model / "tokenizer_config.json").is_file() else {}
    vocabulary.special = _special(model, config, {token: i for i, token in enumerate(vocabulary.tokens)})
    tokenizer = load_tokenizer(model)
    _check_ids(document, tokenizer, path)
    vocabulary.add_bos, vocabulary.add_eos = _affixes(path, tokenizer, vocabulary.special)
    vocabulary.end_of_turn = _end_of_turn(model, vocabulary.special)
    vocabulary.chat_template = template_of(model)
    vocabulary.strips = [
        token["content"] for token in document.get("added_tokens", []) if token.get("special") and token.get("rstrip")
    ]
    return vocabulary


def is_spm(document: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is SentencePiece BPE."""
    model = document.get("model", {})
    return model.get("type", "BPE") == "BPE" and bool(model.get("vocab")) and is_byte_fallback(document)


def _read_bpe(document: dict[str, Any], path: Path, pre: str | None) -> Vocabulary:
    notes = _check(document, path)
    value, reason = (pre, "chosen by the caller") if pre else pre_for(document)
    tokens, types, holes = tokens_and_types(document, path)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    return Vocabulary(tokens, types, merges, value, reason, holes=holes, notes=notes)


def _read_sentencepiece(document: dict[str, Any], path: Path, pre: str | None) -> Vocabulary:
    if pre not in (None, "default"):
        raise ModelError(f"{path} is SentencePiece BPE, which has no pre-tokenizer in llama.cpp; leave out `pre={pre}`")
    tokens, types, holes = tokens_and_types(document, path)
    _check_added(document, path)
    scores, types, prefix, notes = read_spm(document, path, tokens, types)
    reason = "SentencePiece BPE joins by score and needs no pre-tokenizer"
    return Vocabulary(
        tokens,
        types,
        [],
        "default",
        reason,
        holes=holes,
        notes=notes,
        model="llama",
        scores=scores,
        add_space_prefix=prefix,
    )


def _check(document: dict[str, Any], path: Path) -> list[str]:
    """Refuse what a GGUF file cannot say; returns notes on what it says only in part."""
    kind = document.get("model", {})
    byte_level = any(step.get("type") == "ByteLevel" for step in _flatten(document.get("decoder"), "decoders"))
    if kind.get("type") != "BPE" or kind.get("byte_fallback") or not byte_level:
        raise ModelError(
            f"{path} is no byte-level BPE tokenizer (model {kind.get('type')}, byte_fallback "
            f"{bool(kind.get('byte_fallback'))}); GGUF export supports byte-level BPE and SentencePiece BPE{_why(kind)}"
        )
    if kind.get("continuing_subword_prefix") or kind.get("end_of_word_suffix"):
        raise ModelError(f"{path} uses subword prefixes or suffixes, which llama.cpp's BPE does not know")
    notes = []
    for step in _flatten(document.get("normalizer"), "normalizers"):
        if step.get("type") != "NFC":
            raise ModelError(f"{path} normalises text with {step.get('type')}, which llama.cpp does not do")
        notes.append("the tokenizer normalises text to NFC and llama.cpp does not: give it NFC text")
    _check_added(document, path)
    return notes


def _why(kind: dict[str, Any]) -> str:
    """What to say of unigram, the one other family that bases have."""
    if kind.get("type") != "Unigram":
        return ""
    return "; llama.cpp runs unigram (`t5`) in T5 models only, not in a causal model: ship the hub folder"


def _check_added(document: dict[str, Any], path: Path) -> None:
    for token in document.get("added_tokens", []):
        if not token.get("special") and (token.get("lstrip") or token.get("rstrip") or token.get("single_word")):
            raise ModelError(
                f"{path}: added token {token['content']!r} strips spaces or matches whole words only, "
                "which llama.cpp cannot do; add it without lstrip, rstrip and single_word"
            )


def _flatten(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return [leaf for inner in step[key] for leaf in _flatten(inner, key)] if key in step else [step]


def tokens_and_types(document: dict[str, Any], path: Path) -> tuple[list[str], list[int], list[int]]:
    """Tokens and types by id, and the ids that had none."""
    size = tokenizer_size(document)
    texts: list[str | None] = [None] * size
    types = [NORMAL] * size
    for token, i in document["model"]["vocab"].items():
        texts[i] = token
    for added in document.get("added_tokens", []):
        texts[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added.get("special") else USER_DEFINED
    taken = {text for text in texts if text is not None}
    holes = [i for i, text in enumerate(texts) if text is None]
    if len(taken) + len(holes) != size:
        raise ModelError(f"{path}: two ids have the same token, which llama.cpp does not allow")
    for i in holes:
        name = f"[PAD{i}]"
        while name in taken:
            name = f"[{name}]"
        taken.add(name)
        texts[i], types[i] = name, UNUSED
    return [text or "" for text in texts], types, holes


def special_ids(folder: Path, document: dict[str, Any]) -> dict[str, int]:
    """bos, eos, unk and pad as the tokenizer's own files name them: name -> id."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    tokens, _, _ = tokens_and_types(document, folder / "tokenizer.json")
    return _named(folder, config, {token: i for i, token in enumerate(tokens)})


def _named(folder: Path, config: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    special_map = folder / "special_tokens_map.json"
    named = {**(read_json(special_map) if special_map.is_file() else {}), **config}
    found = {}
    for name in SPECIAL:
        token = named.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        if text is not None and text in ids:
            found[name] = ids[text]
    return found


def _special(model: Path, config: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    """Ids of bos, eos, unk and pad: as the tokenizer names them, else as the model's config does."""
    found = _named(model, config, ids)
    fallback = read_json(model / "config.json") if (model / "config.json").is_file() else {}
    for name in SPECIAL:
        number = fallback.get(f"{name}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if name not in found and isinstance(number, int) and 0 <= number < len(ids):
            found[name] = number
    return found


def _end_of_turn(model: Path, special: dict[str, int]) -> int | None:
    """A second id that ends generation, where generation_config.json lists several."""
    path = model / "generation_config.json"
    listed = read_json(path).get("eos_token_id") if path.is_file() else None
    others = [i for i in listed if i != special.get("eos")] if isinstance(listed, list) else []
    return others[0] if others else None


def _check_ids(document: dict[str, Any], tokenizer: Any, path: Path) -> None:
    """The library numbers added tokens anew where model.vocab lacks them, whatever the file says."""
    for added in document.get("added_tokens", []):
        loaded = tokenizer.token_to_id(added["content"])
        if loaded != added["id"]:
            raise ModelError(
                f"{path}: added token {added['content']!r} has id {added['id']}, but loads with id {loaded}; "
                "put it into model.vocab with its id"
            )


def _affixes(path: Path, tokenizer: Any, special: dict[str, int]) -> tuple[bool, bool]:
    """Whether the tokenizer's post-processor puts bos before and eos after a text."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    add_bos = full[:1] == [special.get("bos")] and full != bare
    add_eos = full[-1:] == [special.get("eos")] and full != bare
    if full != [special.get("bos")] * add_bos + bare + [special.get("eos")] * add_eos:
        raise ModelError(f"{path} adds other tokens than bos and eos around a text, which a GGUF file cannot say")
    return add_bos, add_eos


def load_tokenizer(model: Path) -> Any:
    """The `tokenizers.Tokenizer` of a hub folder.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    from tokenizers import Tokenizer

    path = model / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path} does not exist; a fast tokenizer is needed")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
