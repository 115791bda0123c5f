"""Write a commented recipe fit to this machine and this much text."""

import json
import os
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraft.base import check_causal_lm, locate
from langgraft.corpus.document import Input
from langgraft.corpus.sources import resolve
from langgraft.errors import RecipeError
from langgraft.recipe_file import parse_recipe
from langgraft.store import atomic_write
from langgraft.text import language as language_of

BYTES_PER_TOKEN = 4.0  # of extended text, near enough to choose a budget
LAPTOP_TOKENS = 123_000  # about a quarter of an hour for a 135M model on two cores

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
dev = 0.03                      # documents held out for development
test = 0.03                     # documents held out for the final figures

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

[evaluate]
documents = 1000

[evaluate.gates]
source_loss = 0.015             # {source_note}

[export]
to = ["hf"]                     # add "gguf" for llama.cpp and Ollama
"""


def write_recipe(base: str, code: str, corpus: Sequence[str], source: Sequence[str], out: Path) -> dict[str, Any]:
    """Write `out`; returns what was chosen and why.

    Raises:
        RecipeError: `out` exists already.
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
    budget = min(4 * text_tokens, 2_000_000_000) if gpu else min(4 * text_tokens, LAPTOP_TOKENS)
    batch, length = (65_536, 2048) if gpu else (1024, 256)
    tokens = max(-(-budget // batch), 1) * batch
    new_tokens = 2048 if size < 50_000_000 else 8192
    shared = bool(set(known.scripts) & set(language_of("en").scripts))
    laptop = f"{os.cpu_count()} CPU cores: about a quarter of an hour for 135M parameters"
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
        "tokens": tokens,
        "why_budget": f"the text holds about {text_tokens:,}; {'one GPU' if gpu else laptop}",
        "replay_loss": "text" if shared else "distill",
        "why_loss": "both languages share a script" if shared else "match the base's own predictions on it",
        "length": length,
        "batch": batch,
        "source_note": "largest rise of English bits per byte" if source else "judged once [[corpus.source]] is given",
    }
    text = TEMPLATE.format(**chosen)
    parse_recipe(tomllib.loads(text), where=str(out))
    atomic_write(out, text)
    return {key: chosen[key] for key in ("base", "code", "new_tokens", "tokens", "length", "batch")}


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
