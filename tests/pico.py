"""Pico models and tokenizers: the real classes at a size that trains in seconds. Used by every test folder."""

import json
from pathlib import Path

ENGLISH = [
    "The quick brown fox jumps over the lazy dog, and then it sleeps.",
    "Language models learn from text; the tokenizer decides what every token costs.",
    "In 1969, 2 people walked on the Moon. They didn't stay long!",
    "def add(a, b):\n    return a + b  # sum of two numbers\n",
    "She said: 'we're going home', but nobody was listening to her.",
    "Water boils at 100 degrees and freezes at 0 degrees under normal pressure.",
]
CANTONESE = [
    "我哋今日去邊度食飯呀？",
    "佢話聽日會落雨，所以唔去行山喇。",
    "呢個係我阿媽煮嘅餸，好好味㗎。",
    "你識唔識講廣東話？我識少少啫。",
    "香港嘅夜景真係好靚，好多人都鍾意影相。",
    "我琴日喺街市買咗三斤菜心同埋一條魚。",
]


def pico_tokenizer(folder: Path, *, vocab_size: int = 400) -> Path:
    """Write a SmolLM2-like byte-level BPE tokenizer (digit splitter, GPT-2 regex, special tokens first)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(ENGLISH * 3, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "model_max_length": 512,
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return folder


def pico_model(folder: Path, *, tie: bool = True, seed: int = 0, hidden: int = 32) -> Path:
    """Write a two-layer Llama with its tokenizer into `folder`; returns `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    pico_tokenizer(folder)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tie,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
