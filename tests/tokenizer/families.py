"""Small tokenizers of every family: the real algorithm, pipeline and added tokens, trained on a page of text."""

import io
import json
from pathlib import Path
from typing import Any

from pico import ENGLISH

from langgraft.base import GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN

NEMO_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# A few Chinese characters and Cyrillic words, as the vocabularies of such bases hold them.
TEXT = [*ENGLISH * 4, "一 个 不 的 我 日 今 食 " * 4, "привет это русский текст и ещё один " * 4, "यह है के " * 3]


def _special(i: int, content: str, *, special: bool = True) -> dict[str, Any]:
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special}  # fmt: skip


def _write(folder: Path, data: dict[str, Any], config: dict[str, Any], rows: int) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": rows, "eos_token_id": 2}))
    return folder


def spm_model(vocab_size: int = 520, **options: Any) -> bytes:
    """Train a tokenizer.model with the settings of Llama-2's."""
    import sentencepiece

    model = io.BytesIO()
    settings: dict[str, Any] = {
        "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "add_dummy_prefix": True,
        "remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True,
        "character_coverage": 1.0, "num_threads": 1, "minloglevel": 2, "unk_surface": " \u2047 ",
    }  # fmt: skip
    settings.update(options)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TEXT for line in text.split("\n")),
        model_writer=model, vocab_size=vocab_size, **settings,
    )  # fmt: skip
    return model.getvalue()


def pieces_of(model: bytes) -> list[tuple[str, float, int]]:
    """Piece, score and type of a tokenizer.model, by id."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto.FromString(model)
    return [(piece.piece, piece.score, piece.type) for piece in proto.pieces]


def all_merges(pieces: list[tuple[str, float, int]]) -> list[list[str]]:
    """Every way to make a piece of two, the best score first: what transformers' converter writes."""
    ids = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    merges = []
    for piece, score, kind in pieces:
        if kind == 1:
            pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
            found = [(a, b) for a, b in pairs if a in ids and b in ids]
            merges += [(score, a, b) for a, b in sorted(found, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [[a, b] for _, a, b in merges]


def llama2(folder: Path, *, model_file: bool = True, metaspace: bool = False, **options: Any) -> Path:
    """Llama-2-like: SentencePiece BPE with byte fallback, two added tokens above the vocabulary, padding rows.

    `metaspace` is the newer spelling of the same pipeline, without `legacy`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = spm_model(**options)
    pieces = pieces_of(model)
    count = len(pieces)
    prefix = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    data = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [_special(0, "<unk>"), _special(1, "<s>"), _special(2, "</s>"),
                         _special(count, "<|im_start|>"), _special(count + 1, "<tool>", special=False)],
        "normalizer": None if metaspace else normalizer, "pre_tokenizer": prefix if metaspace else None,
        "post_processor": None, "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {piece: i for i, (piece, _, _) in enumerate(pieces)}, "merges": all_merges(pieces)},
    }  # fmt: skip
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
              "legacy": not metaspace, "clean_up_tokenization_spaces": False}  # fmt: skip
    if model_file:
        (folder / "tokenizer.model").write_bytes(model)
    return _write(folder, data, config, count + 30)


def byte_level(folder: Path, pattern: str | None, *, ignore_merges: bool = False, nfc: bool = False) -> Path:
    """A byte-level BPE with `pattern` (None: ByteLevel's own), its special tokens above the vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is None:
        tokenizer.pre_tokenizer = plain
    else:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    data = json.loads(tokenizer.to_str())
    count = len(data["model"]["vocab"])
    data["model"]["ignore_merges"] = ignore_merges
    data["added_tokens"] = [_special(count, "<|begin_of_text|>"), _special(count + 1, "<|endoftext|>"),
                            _special(count + 2, "<think>", special=False)]  # fmt: skip
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    return _write(folder, data, config, count + 40)


BYTE_LEVEL: dict[str, dict[str, Any]] = {
    "gpt2": {"pattern": None},
    "gpt2-split": {"pattern": GPT2_PATTERN},
    "llama3": {"pattern": LLAMA3_PATTERN, "ignore_merges": True},
    "qwen2": {"pattern": QWEN2_PATTERN, "nfc": True},
    "nemo": {"pattern": NEMO_PATTERN, "ignore_merges": True},
}
