"""Donor tokenizers for tests: trained on the lines of a language with a word pattern like Llama-3's."""

from pathlib import Path

from languages import LINES

from langgraft.base import LLAMA3_PATTERN
from langgraft.tokenizer.pretokenizer import mark_aware


def donor_tokenizer(folder: Path, code: str = "yue", *, vocab_size: int = 420) -> Path:
    """Write a byte-level BPE tokenizer with its own ids, merges and pattern into `folder`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(mark_aware(LLAMA3_PATTERN)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|begin_of_text|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES[code] * 10, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
