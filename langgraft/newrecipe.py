"""Write a commented recipe fit to this machine and this much text."""

import json
import os
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.base import check_causal_lm, locate
from langgraft.corpus.document import Input
from langgraft.corpus.sources import resolve
from langgraft.errors import RecipeError
from langgraft.methods import suggest
from langgraft.recipe_file import parse_recipe
from langgraft.store import atomic_write
from langgraft.text import language as language_of
from langgraft.training.guidance import size_advice

BYTES_PER_TOKEN = 4.0  # of extended text, near enough to choose a budget
LAPTOP_TOKENS = 123_000  # about a quarter of an hour for a 135M model on two cores
EPOCHS = 4  # times that text is read: as good as new text so far, and soon not any more (arXiv 2305.16264)


@dataclass(frozen=True)
class Preset:
    """What a run is for: the most tokens it takes on a CPU and on a GPU, what is held out and measured, its gates."""

    cpu_tokens: int
    gpu_tokens: int
    held_out: float
    documents: int
    source_loss: float
    to: str
    quality: bool = False


PRESETS = {
    "proof-of-concept": Preset(LAPTOP_TOKENS, 50_000_000, 0.03, 1000, 0.015, '["hf"]'),
    "research": Preset(2_000_000_000, 2_000_000_000, 0.03, 2000, 0.015, '["hf"]'),
    "production": Preset(20_000_000_000, 20_000_000_000, 0.01, 2000, 0.01, '["hf", "gguf"]', quality=True),
}

QUALITY = """
[corpus.filters]
quality = true                  # drop what the quality filters find; see it with `langgraft dropped`
"""

TEMPLATE = """\
# Teach {base} {name}. Every field is explained in docs/recipe.md; fields left out keep their defaults.
# Next: `langgraft plan {file}`, then `langgraft run {file}`.
name = {run}

[model]
base = {base_json}
language = "{code}"             # {name}
source_language = "en"          # the language the base must not forget

{target}{source}
[corpus]
min_characters = 5
dev = {held_out}                      # documents held out for development
test = {held_out}                     # documents held out for the final figures
{quality}
[tokenizer]
new_tokens = {new_tokens}              # {why_tokens}

[surgery]
init = "subword_mean"

[pretrain]
tokens = {tokens}             # {why_budget}
sequence_length = {length}
batch_tokens = {batch}
learning_rate = 2e-4            # the transformer
new_rows_learning_rate = 1e-3   # embedding rows of new tokens
old_rows_learning_rate = 2e-4   # embedding rows the base had: slower, or it forgets
replay = "self"                 # the base writes its own source-language text; "corpus" uses [[corpus.source]]
replay_loss = "{replay_loss}"         # {why_loss}
replay_ratio = 0.25

# [pretrain.retention]          # with [[corpus.source]]: watch what is kept, and stop where too much is lost
# every = {watch}                     # steps between measurements

# [[align.parallel]]            # texts in both languages, pair by pair, learned from after pretraining
# path = "pairs.jsonl"          # {{"en": "...", "{code}": "..."}}, PO, MO, TMX

# [[sft.data]]                  # conversations or instructions, learned from last
# path = "chats.jsonl"

[evaluate]
documents = {documents}

[evaluate.gates]
source_loss = {source_loss}             # {source_note}

[export]
to = {to}                     # "hf" a hub folder, "gguf" for llama.cpp and Ollama
"""


def write_recipe(
    base: str, code: str, corpus: Sequence[str], source: Sequence[str], out: Path, *, preset: str = ""
) -> dict[str, Any]:
    """Write `out`; returns what was chosen and why. Without a `preset`: "research" on a GPU, else a quarter hour.

    Raises:
        RecipeError: `out` exists already, or there is no such preset.
        InputError: the base, the language or a file of text is not there.
    """
    if out.exists():
        raise RecipeError(f"{out} exists already; choose another file with -o")
    known = language_of(code)
    found = locate(base)
    if found.kind == "folder" and found.path is not None:
        check_causal_lm(found.path)
    size = sum(file.stat().st_size for path in [*corpus, *source] for file in resolve(Input(path)))
    text_tokens = int(size / BYTES_PER_TOKEN)
    gpu = _has_gpu()
    preset = preset or ("research" if gpu else "proof-of-concept")
    if preset not in PRESETS:
        raise RecipeError(f"preset `{preset}` is unknown; {suggest(preset, PRESETS)}")
    budget = _budget(PRESETS[preset], text_tokens, gpu)
    tokens = budget["tokens"]
    new_tokens = 2048 if size < 50_000_000 else 8192
    shared = bool(set(known.scripts) & set(language_of("en").scripts))
    laptop = f"{os.cpu_count()} CPU cores: {_minutes(tokens)} for 135M parameters on two"
    chosen = {
        "base": base,
        "base_json": _quoted(base),
        "code": code,
        "name": known.name,
        "file": out,
        "run": _quoted(slug(f"{known.name} {Path(base.split(':')[-1]).name}")),
        "target": _tables("target", corpus),
        "source": _tables("source", source)
        or '# [[corpus.source]]              # held-out English, to measure forgetting\n# path = "english.jsonl.gz"\n',
        "new_tokens": new_tokens,
        "why_tokens": f"for {size / 1e6:,.1f} MB of text",
        **budget,
        "watch": max(budget["tokens"] // budget["batch"] // 10, 1),
        "why_budget": f"the text holds about {text_tokens:,}; {'one GPU' if gpu else laptop}",
        "replay_loss": "text" if shared else "distill",
        "why_loss": "both languages share a script" if shared else "match the base's own predictions on it",
        "source_note": "largest rise of English bits per byte" if source else "judged once [[corpus.source]] is given",
    }
    text = TEMPLATE.format(**chosen)
    parse_recipe(tomllib.loads(text), where=str(out))
    atomic_write(out, text)
    kept = {key: chosen[key] for key in ("base", "code", "new_tokens", "tokens", "length", "batch")}
    return {**kept, "preset": preset, "advice": size_advice(text_tokens)}


def _budget(preset: Preset, text_tokens: int, gpu: bool) -> dict[str, Any]:
    """What a preset makes of so much text on this machine, as fields of the template."""
    most = min(EPOCHS * text_tokens, preset.gpu_tokens if gpu else preset.cpu_tokens)
    batch, length = (65_536, 2048) if gpu else (1024, 256)
    return {
        "tokens": max(-(-most // batch), 1) * batch,
        "length": length,
        "batch": batch,
        "held_out": preset.held_out,
        "documents": preset.documents,
        "source_loss": preset.source_loss,
        "to": preset.to,
        "quality": QUALITY if preset.quality else "",
    }


def _minutes(tokens: int) -> str:
    """How long a 135M model takes for so many tokens on two cores, in words."""
    minutes = 15 * tokens / LAPTOP_TOKENS
    return f"about {minutes:.0f} minutes" if minutes < 100 else f"about {minutes / 60:,.0f} hours"


def _tables(side: str, paths: Sequence[str]) -> str:
    table = '[[corpus.{side}]]\npath = {path}\nlicense = ""                    # name it: it travels into the cards\n\n'
    return "".join(table.format(side=side, path=_quoted(path)) for path in paths)


def _quoted(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's, but for surrogate pairs, so other letters stay as they are."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def slug(text: str) -> str:
    """A name for a run: ASCII letters, digits and dashes; "run" where nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._") or "run"


def _has_gpu() -> bool:
    """Whether an NVIDIA driver is there; asked of the system, since importing torch takes seconds."""
    return Path("/proc/driver/nvidia/version").is_file()
