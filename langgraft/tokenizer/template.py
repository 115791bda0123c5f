"""Chat templates: a conversation as the text the model was trained on, for training and for every backend."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraft.errors import InputError
from langgraft.store import read_json

Message = dict[str, str]  # role: system, user or assistant; content


def template_of(folder: Path) -> str | None:
    """The chat template of a hub folder, or None; of several, the one called `default`."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    found = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(found, list):
        named = {entry["name"]: entry["template"] for entry in found}
        found = named.get("default")
    return found or None


def special_of(folder: Path) -> dict[str, str]:
    """What a hub folder names its special tokens: `bos_token`, `eos_token`, `pad_token` and `unk_token`, if it does."""
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        values = read_json(folder / file) if (folder / file).is_file() else {}
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            token = values.get(key)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str) and text:
                found[key] = text
    return found


def named_ends(folder: Path) -> list[int]:
    """The ids that end a text by a hub folder's configs; what every program stops at."""
    found: list[int | None] = []
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name).get("eos_token_id")
            found += value if isinstance(value, list) else [value]
    return [number for number in dict.fromkeys(found) if number is not None]


def render(template: str | None, messages: Sequence[Message], special: dict[str, str], *, ask: bool = True) -> str:
    """The conversation as text that ends where the assistant begins.

    Args:
        special: `bos_token`, `eos_token` and the like, as the template may name them (see `special_of`).
        ask: without, the text ends with the last message.

    Raises:
        InputError: there is no template, or it refuses the conversation (some know no system prompt).
    """
    if template is None:
        raise InputError("this model has no chat template; ask it to continue a text (completions) instead")
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        options: dict[str, Any] = {"chat_template": template, "add_generation_prompt": ask, **special}
        texts = render_jinja_template([list(messages)], **options)[0]
    except (TemplateError, TypeError, ValueError) as error:
        raise InputError(f"the model's chat template refuses this conversation: {error}") from error
    return str(texts[0])
