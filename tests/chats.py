"""Chat templates and conversations for tests of instruction tuning."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As SmolLM2's: a system prompt of its own where none is given.
WITH_DEFAULT = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
# As Llama 3's and Gemma's: contents are trimmed.
TRIMMED = CHATML.replace("m.content", "m.content | trim")
# As Llama 2's: the question is in brackets, the end-of-sequence token ends an answer after a space.
BRACKETS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('no system prompt here') }}{% endif %}{% endfor %}"
)
# As Qwen3's: the last answer alone has room for thoughts.
THOUGHTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if loop.last and m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Earlier answers are rewritten once another one follows.
REWRITING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}(said){% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{{ '(' + messages | length | string + ')' if messages | length > 2 }}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def talk(*turns: str, system: str = "") -> list[dict[str, str]]:
    """A conversation of a user and an assistant in turn."""
    roles = ("user", "assistant")
    found = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
    return [{"role": "system", "content": system}, *found] if system else found


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def sums(count: int) -> list[dict[str, Any]]:
    """Distinct conversations that a pico model can learn something of."""
    names = ["Ann", "Bob", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal"]
    return [
        {"messages": talk(f"{names[i % 8]} has {i} coins. Who?", f"It is {names[i % 8]}.", "How many?", f"{i}.")}
        if i % 3
        else {"instruction": "Say the name.", "input": f"{names[i % 8]}, number {i}", "output": f"{names[i % 8]}!"}
        for i in range(count)
    ]


def with_template(folder: Path, template: str | None) -> Path:
    """Give a model folder another chat template, or none."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("chat_template", None)
    path.write_text(json.dumps(config | ({"chat_template": template} if template else {})))
    return folder
