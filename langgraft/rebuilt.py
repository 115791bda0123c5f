"""The tokenizer inside a GGUF file, as the files of a hub folder.

Byte-level BPE (`gpt2`) gets the pre-tokenizer that `tokenizer.ggml.pre` names; SentencePiece BPE (`llama`) gets
both tokenizer.json and tokenizer.model, made of the pieces, scores and types that GGUF carries over.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.errors import TokenizerError
from langgraft.store import write_json

GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35_PATTERN = QWEN2_PATTERN.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")

SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # token types, as SentencePiece numbers them


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# tokenizer.ggml.pre -> the `pre_tokenizer` of tokenizer.json that splits the same way.
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _BYTE_LEVEL,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    },
    "llama-bpe": _split(LLAMA3_PATTERN),
    "smaug-bpe": _split(LLAMA3_PATTERN),
    "qwen2": _split(QWEN2_PATTERN),
    "qwen35": _split(QWEN35_PATTERN),
}
WHOLE_WORDS_FIRST = ("llama-bpe",)  # a word that is a token is taken as it is (`ignore_merges`)


@dataclass(frozen=True)
class Rebuilt:
    """tokenizer.json, tokenizer_config.json, ids of special tokens for the model's config, and a tokenizer.model."""

    data: dict[str, Any]
    config: dict[str, Any]
    special: dict[str, int]
    model: bytes | None = None

    def write(self, folder: Path) -> None:
        """Write the tokenizer's files into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "tokenizer.json", self.data)
        write_json(folder / "tokenizer_config.json", self.config)
        if self.model is not None:
            (folder / "tokenizer.model").write_bytes(self.model)


def rebuild(path: Path) -> Rebuilt:
    """Rebuild the tokenizer of the GGUF file at `path`.

    transformers' own conversion forgets the pre-tokenizer (SmolLM2 loses its digit splitter), which changes ids.

    Raises:
        TokenizerError: it is no BPE, or its pre-tokenizer is not known.
    """
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
    except (ValueError, OSError, IndexError) as error:
        raise TokenizerError(f"{path} cannot be read as a GGUF file: {error}; copy it again") from error
    values = {key: field.contents() for key, field in fields.items() if key.startswith(("tokenizer.", "general.arch"))}
    kind = values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        data, model = _byte_level(values, path), None
    elif kind == "llama":
        data, model = _sentencepiece(values), model_bytes(values)
    else:
        raise TokenizerError(
            f"{path} carries a `{kind}` tokenizer; only byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`) can be "
            "rebuilt from GGUF: use the original model folder"
        )
    length = fields.get(f"{values.get('general.architecture')}.context_length")
    config, special = _config(values, int(length.contents()) if length is not None else 2048)
    return Rebuilt(data, config, special, model)


def _byte_level(values: dict[str, Any], path: Path) -> dict[str, Any]:
    pre = values.get("tokenizer.ggml.pre", "default")
    if pre not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"{path} names the pre-tokenizer `{pre}`, which langgraft cannot rebuild from GGUF "
            f"(known: {', '.join(sorted(PRE_TOKENIZERS))}): use the original model folder"
        )
    merges = [merge.split(" ") for merge in values["tokenizer.ggml.merges"]]
    return _document(
        values, merges, pre_tokenizer=PRE_TOKENIZERS[pre], decoder=_BYTE_LEVEL, ignore_merges=pre in WHOLE_WORDS_FIRST
    )


def _sentencepiece(values: dict[str, Any]) -> dict[str, Any]:
    """SentencePiece joins the two neighbours whose piece scores best: a merge for every way to make a piece."""
    tokens, scores = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.scores"]
    types = values["tokenizer.ggml.token_type"]
    ids = {token: i for i, token in enumerate(tokens)}
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, score, kind in zip(tokens, scores, types, strict=True):
        if kind == NORMAL:
            pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
            ranked += [(-score, -len(a), ids[a], a, b) for a, b in pairs if a in ids and b in ids]
    prefix = bool(values.get("tokenizer.ggml.add_space_prefix", True))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    steps = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = values.get("tokenizer.ggml.unknown_token_id")
    return _document(
        values,
        [[a, b] for *_, a, b in sorted(ranked)],
        normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]}
        if prefix
        else replace,
        decoder={"type": "Sequence", "decoders": steps},
        unk_token=tokens[unknown] if unknown is not None else None,
        fuse_unk=True,
        byte_fallback=BYTE in types,
    )


def _document(
    values: dict[str, Any],
    merges: list[list[str]],
    *,
    decoder: dict[str, Any],
    normalizer: dict[str, Any] | None = None,
    pre_tokenizer: dict[str, Any] | None = None,
    **model: Any,
) -> dict[str, Any]:
    tokens, types = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, **flags, "special": kind != USER_DEFINED}
            for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            **model,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def model_bytes(values: dict[str, Any]) -> bytes:
    """SentencePiece's own file (BPE) of the pieces, scores and types that GGUF fields name."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    keys = ("tokens", "scores", "token_type")
    for token, score, kind in zip(*(values[f"tokenizer.ggml.{key}"] for key in keys), strict=True):
        proto.pieces.add(piece=token, score=score, type=kind)
    trainer, normaliser = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = 2, len(proto.pieces), True
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = (
        values.get(f"tokenizer.ggml.{name}_token_id", -1) for name in ("unknown", "bos", "eos", "padding")
    )
    normaliser.name, normaliser.remove_extra_whitespaces = "identity", False
    normaliser.add_dummy_prefix = bool(values.get("tokenizer.ggml.add_space_prefix", True))
    return bytes(proto.SerializeToString(deterministic=True))


def _config(values: dict[str, Any], context: int) -> tuple[dict[str, Any], dict[str, int]]:
    tokens = values["tokenizer.ggml.tokens"]
    special = {
        f"{name}_token_id": int(values[f"tokenizer.ggml.{key}_token_id"])
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        if values.get(f"tokenizer.ggml.{key}_token_id") is not None
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        **{name.removesuffix("_id"): tokens[i] for name, i in special.items()},
    }
    if (unknown := values.get("tokenizer.ggml.unknown_token_id")) is not None:
        config["unk_token"] = tokens[unknown]
    if template := values.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config, special
