"""Chat templates: a conversation as the text the model was trained on, for every backend."""

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
    """The special tokens of a hub folder that its template may name: `bos_token` and the like."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    named = {name: config.get(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in named.items()
        if value is not None
    }


def render(template: str | None, messages: Sequence[Message], special: dict[str, str]) -> str:
    """The conversation as text that ends where the assistant begins.

    Args:
        special: `bos_token`, `eos_token` and the like, as the template may name them.

    Raises:
        InputError: there is no template, or it refuses the conversation (some know no system prompt).
    """
    if template is None:
        raise InputError("this model has no chat template; ask it to continue a text (completions) instead")
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        options: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True, **special}
        texts = render_jinja_template([list(messages)], **options)[0]
    except (TemplateError, TypeError, ValueError) as error:
        raise InputError(f"the model's chat template refuses this conversation: {error}") from error
    return str(texts[0])
