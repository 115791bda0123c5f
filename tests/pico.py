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


def pico_writer(folder: Path, *, steps: int = 80, rate: float = 1e-2, falling: bool = False) -> Path:
    """A pico model that has read a little English, so that what it samples is text; for replay from the base.

    With a rate falling to zero, what it has learned does not hang on the rounding of the last steps.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    pico_model(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [[0, *tokenizer.encode(text).ids, 0] for text in ENGLISH]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step in range(steps):
        if falling:
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        ids = torch.tensor([rows[step % len(rows)]])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def sentences(count: int) -> list[str]:
    """Distinct Cantonese sentences, made from parts."""
    who = ["我", "佢", "我哋", "佢哋", "阿媽", "阿爸", "個細路", "老師"]
    when = ["今日", "聽日", "琴日", "而家", "頭先", "下晝", "夜晚"]
    what = ["去街市買餸", "喺屋企煮飯", "搭巴士返工", "睇緊電視", "同朋友飲茶", "行山影相", "學講廣東話", "唔想出街"]
    end = ["喇。", "呀？", "㗎。", "囉！", "啫。", "咩？"]
    found = [f"{a}{b}{c}{d}" for c in what for a in who for d in end for b in when]
    return found[:count]


def pico_recipe(folder: Path, base: Path, *, steps: int = 12, documents: int = 400, gguf: bool = False) -> Path:
    """Write a recipe (and its text) that runs every stage on a pico model in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in sentences(documents)]
    (folder / "yue.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    english = [f"{text} This is sentence number {i} of the collection." for i in range(8) for text in ENGLISH]
    (folder / "en.txt").write_text("\n".join(t.replace("\n", " ") for t in english) + "\n", encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f"""
name = "pico"
[model]
base = "{base}"
language = "yue"
[[corpus.target]]
path = "{folder}/yue.jsonl"
license = "CC0-1.0"
[[corpus.source]]
path = "{folder}/en.txt"
license = "CC0-1.0"
[corpus]
near_duplicates = false
dev = 20
test = 20
source_dev = 6
source_test = 6
[tokenizer]
new_tokens = 50
min_frequency = 2
[surgery]
[pretrain]
tokens = {steps * 128}
sequence_length = 32
batch_tokens = 128
learning_rate = 1e-3
new_rows_learning_rate = 3e-3
old_rows_learning_rate = 5e-4
replay_tokens = 200
[evaluate]
documents = 20
resamples = 200
max_new_tokens = 8
[evaluate.prompts]
target = ["我今日"]
source = ["The quick"]
[evaluate.chat]
questions = 4
max_new_tokens = 16
[evaluate.gates]
source_loss = 0.9
[export]
to = {'["hf", "gguf"]' if gguf else '["hf"]'}
quant = ["f16"]
parity_lines = 50
[compute]
threads = 1
checkpoint_every = 4
""",
        encoding="utf-8",
    )
    return recipe
