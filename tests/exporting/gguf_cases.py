"""Models and tokenizers for the export tests."""

import json
import shutil
from pathlib import Path
from typing import Any

from langgraft.base import GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN

MARKS = GPT2_PATTERN.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
QWEN_MARKS = QWEN2_PATTERN.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"\s\p{L}\p{N}", r"\s\p{L}\p{M}\p{N}")
DIGITS = {"type": "Digits", "individual_digits": True}


def byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


SMOLLM = sequence(DIGITS, byte_level(use_regex=True))
# value of tokenizer.ggml.pre -> (pre_tokenizer of tokenizer.json, ignore_merges)
STRUCTURES: dict[str, tuple[dict[str, Any], bool]] = {
    "smollm": (SMOLLM, False),
    "gpt-2": (byte_level(use_regex=True), False),
    "llama-bpe": (sequence(split(LLAMA3_PATTERN), byte_level(use_regex=False)), True),
    "smaug-bpe": (sequence(split(LLAMA3_PATTERN), byte_level(use_regex=False)), False),
    "qwen2": (sequence(split(QWEN2_PATTERN), byte_level(use_regex=False)), False),
    "qwen35": (sequence(split(QWEN_MARKS), byte_level(use_regex=False)), False),
}
REPAIRED = sequence(DIGITS, split(MARKS), byte_level(use_regex=False))


def greedy_tokenizer(lines: list[str], *, size: int = 4000) -> dict[str, Any]:
    """A tokenizer.json whose merges cross every boundary, so that any difference in splitting changes ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return json.loads(tokenizer.to_str())


def with_json(folder: Path, target: Path, name: str, **changes: Any) -> Path:
    """A copy of `folder` with top-level fields of one JSON file replaced."""
    shutil.copytree(folder, target)
    path = target / name
    values = json.loads(path.read_text(encoding="utf-8"))
    values.update(changes)
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return target


def with_config(folder: Path, target: Path, **changes: Any) -> Path:
    return with_json(folder, target, "config.json", **changes)


def with_tokenizer(folder: Path, target: Path, **changes: Any) -> Path:
    return with_json(folder, target, "tokenizer.json", **changes)


def model_of(folder: Path, source: Path, kind: str, **settings: Any) -> Path:
    """A pico model of another architecture with the tokenizer of `source`; returns `folder`."""
    import torch
    import transformers

    shutil.copytree(source, folder)
    vocab = json.loads((source / "config.json").read_text())["vocab_size"]
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(
        **{
            "vocab_size": vocab,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            **settings,
        }
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
            elif "norm" not in name:
                parameter.mul_(4)
    model.save_pretrained(folder)
    return folder
