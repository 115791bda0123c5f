"""A GGUF file for Ollama: the Modelfile beside it, with the model's chat template in Ollama's language.

Ollama reads no Jinja. A row of `FORMATS` is a conversation's pieces, from which both a Go template and a plain
rendering are made; a model's template is recognised by rendering some conversations both ways and comparing the texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langgraft.errors import InputError, ModelError
from langgraft.exporting.formats import export_gguf
from langgraft.store import atomic_write, read_json
from langgraft.tokenizer.template import Message, render, special_of, template_of

MODELFILE = "Modelfile"


@dataclass(frozen=True)
class Format:
    """A chat format; in every piece `{}` is the content, `{bos}` and `{eos}` the tokens of those names.

    Args:
        system: the system's turn, or what goes before the first user's text where `inside`.
        between: what begins every user turn after the first.
        start: what the assistant's answer follows.
        strip: whether contents lose the spaces around them.
        stop: texts that end an answer.
        default: the system prompt that the template itself adds where none is given.
    """

    system: str | None
    user: str
    assistant: str
    start: str
    inside: bool = False
    between: str = ""
    strip: bool = False
    stop: tuple[str, ...] = ("{eos}",)
    default: str | None = None


_CHATML = Format(
    "<|im_start|>system\n{}<|im_end|>\n",
    "<|im_start|>user\n{}<|im_end|>\n",
    "<|im_start|>assistant\n{}<|im_end|>\n",
    "<|im_start|>assistant\n",
    stop=("<|im_end|>",),
)
_LLAMA3 = "<|start_header_id|>{0}<|end_header_id|>\n\n{{}}<|eot_id|>"
FORMATS: dict[str, Format] = {
    "chatml": _CHATML,
    # The first lines of a conversation without a system prompt, in templates that bring one of their own.
    "chatml-default": replace(_CHATML, default=""),
    "llama-2": Format(
        "<<SYS>>\n{}\n<</SYS>>\n\n",
        "[INST] {} [/INST]",
        " {} {eos}",
        "",
        inside=True,
        between="{bos}",
        strip=True,
    ),
    "llama-3": Format(
        _LLAMA3.format("system"),
        _LLAMA3.format("user"),
        _LLAMA3.format("assistant"),
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        strip=True,
        stop=("<|eot_id|>",),
    ),
    "gemma": Format(
        None,
        "<start_of_turn>user\n{}<end_of_turn>\n",
        "<start_of_turn>model\n{}<end_of_turn>\n",
        "<start_of_turn>model\n",
        strip=True,
        stop=("<end_of_turn>",),
    ),
    "mistral": Format("{}\n\n", "[INST] {} [/INST]", " {}{eos}", "", inside=True),
    "mistral-tight": Format("{}\n\n", "[INST] {}[/INST]", " {}{eos}", "", inside=True),
    "phi-3": Format(
        "<|system|>\n{}<|end|>\n",
        "<|user|>\n{}<|end|>\n",
        "<|assistant|>\n{}<|end|>\n",
        "<|assistant|>\n",
        stop=("<|end|>", "<|user|>"),
    ),
    "zephyr": Format(
        "<|system|>\n{}{eos}\n",
        "<|user|>\n{}{eos}\n",
        "<|assistant|>\n{}{eos}\n",
        "<|assistant|>\n",
        stop=("{eos}", "<|user|>"),
    ),
}
_CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "First words?"},),
    (
        {"role": "user", "content": "First words?"},
        {"role": "assistant", "content": "An answer."},
        {"role": "user", "content": "More:\n  two lines"},
    ),
    (
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "5"},
    ),
)
_SYSTEM: Message = {"role": "system", "content": "Be short."}


def plain(form: Format, messages: Sequence[Message], special: dict[str, str]) -> str:
    """A conversation as the Go template of `go_template` renders it, without the bos that llama.cpp puts in front."""
    system = next((m["content"] for m in messages if m["role"] == "system"), form.default)
    parts: list[str] = []
    if system is not None and form.system is not None and not form.inside:
        parts.append(form.system.replace("{}", system))
    turns = [m for m in messages if m["role"] != "system"]
    for number, turn in enumerate(turns):
        content = turn["content"]
        if turn["role"] == "assistant":
            parts.append(form.assistant.replace("{}", content))
            continue
        before = form.between if number else ""
        first = form.system is not None and form.inside and number == 0 and system
        content = (form.system or "").replace("{}", str(system)) + content if first else content
        parts.append(before + form.user.replace("{}", content))
    return _filled("".join(parts) + form.start, special)


def _filled(text: str, special: dict[str, str]) -> str:
    return text.replace("{bos}", special.get("bos_token", "")).replace("{eos}", special.get("eos_token", ""))


def go_template(form: Format, special: dict[str, str]) -> str:
    """The format as a template of Ollama: it renders `.Messages`, and merges `.System` where the format does."""

    def piece(text: str) -> str:
        return _filled(text, special).replace("{}", "{{ $m.Content }}")

    user = piece(form.user)
    if form.system is not None and form.inside:
        inner = _filled(form.system, special).replace("{}", "{{ $.System }}")
        user = user.replace("{{ $m.Content }}", "{{ if and $.System (le $i 1) }}" + inner + "{{ end }}{{ $m.Content }}")
    if form.between:
        user = "{{ if gt $i 1 }}" + _filled(form.between, special) + "{{ end }}" + user
    default = ""
    if form.default is not None and form.system is not None:
        given = _filled(form.system, special).replace("{}", form.default)
        default = "{{ if not .System }}" + given + "{{ end }}"
    turns = '{{ range $i, $m := .Messages }}{{ if eq $m.Role "user" }}' + user
    turns += '{{ else if eq $m.Role "assistant" }}' + piece(form.assistant)
    if form.system is not None and not form.inside:
        turns += '{{ else if eq $m.Role "system" }}' + piece(form.system)
    return default + turns + "{{ end }}{{ end }}" + _filled(form.start, special)


def recognise(template: str | None, special: dict[str, str]) -> tuple[str, Format] | None:
    """The row of `FORMATS` that renders like a chat template, or None.

    A format whose system prompt the template does not know (it may refuse one) counts if all else is the same.
    """
    if template is None:
        return None
    for name, known in FORMATS.items():
        form = _with_default(known, template, special) if known.default is not None else known
        if form is None:
            continue
        try:
            if all(_same(form, template, talk, special) for talk in _CONVERSATIONS):
                knows = form.system is not None and _same_or_refused(form, template, special)
                return name, form if knows else replace(form, system=None)
        except InputError:
            continue
    return None


def _same(form: Format, template: str, messages: Sequence[Message], special: dict[str, str]) -> bool:
    ours = plain(form, messages, special)
    # Some templates write bos themselves; llama.cpp puts it there where the tokenizer does.
    return render(template, messages, special) in (ours, special.get("bos_token", "") + ours)


def _same_or_refused(form: Format, template: str, special: dict[str, str]) -> bool:
    try:
        return all(_same(form, template, (_SYSTEM, *talk), special) for talk in _CONVERSATIONS)
    except InputError:
        return False


def _with_default(form: Format, template: str, special: dict[str, str]) -> Format | None:
    """The format with the system prompt that a template adds by itself, or None if it adds none."""
    try:
        text = render(template, _CONVERSATIONS[0], special)
    except InputError:
        return None
    before, _, after = (form.system or "").partition("{}")
    if not text.startswith(before):
        text = text.removeprefix(special.get("bos_token", ""))
    if not text.startswith(before) or after not in text:
        return None
    return replace(form, default=text[len(before) : text.index(after)])


def modelfile(
    gguf: str,
    found: tuple[str, Format] | None,
    special: dict[str, str],
    *,
    system: str | None = None,
    parameters: dict[str, Any] | None = None,
) -> str:
    """The text of a Modelfile.

    Raises:
        InputError: a piece holds three quotes in a row, which a Modelfile cannot say.
    """
    lines = [f"FROM ./{gguf}"]
    if found is None:
        # Ollama gives the prompt as it is: a model without a chat template continues text.
        lines += ['TEMPLATE """{{ .Prompt }}"""']
        stops = [special["eos_token"]] if special.get("eos_token") else []
    else:
        template = go_template(found[1], special)
        if '"""' in template:
            raise InputError('the chat template holds """, which a Modelfile cannot say')
        lines += [f'TEMPLATE """{template}"""']
        stops = [_filled(text, special) for text in found[1].stop]
    lines += [f"PARAMETER stop {_quoted(text)}" for text in dict.fromkeys(stops) if text]
    lines += [f"PARAMETER {name} {value}" for name, value in (parameters or {}).items()]
    if system:
        if '"""' in system:
            raise InputError('the system prompt holds """, which a Modelfile cannot say')
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n").replace('"', '\\"') + '"'


def _parameters(model: Path) -> dict[str, Any]:
    """Sampling settings of generation_config.json by Ollama's names, and the context that the model has."""
    path = model / "generation_config.json"
    given = read_json(path) if path.is_file() else {}
    sampled = given.get("do_sample", False)
    found = {
        "temperature": given.get("temperature") if sampled else None,
        "top_p": given.get("top_p") if sampled else None,
        "top_k": given.get("top_k") if sampled else None,
        "repeat_penalty": given.get("repetition_penalty"),
    }
    config = read_json(model / "config.json")
    context = config.get("max_position_embeddings") or config.get("n_positions")
    return {**{key: value for key, value in found.items() if value is not None}, "num_ctx": min(context or 4096, 8192)}


def export_ollama(
    model: Path,
    out: Path,
    *,
    quant: tuple[str, ...] = ("q8_0",),
    pre: str | None = None,
    accept_mismatch: float = 0.0,
    name: str | None = None,
    system: str | None = None,
) -> dict[str, Any]:
    """Write a GGUF file and the Modelfile that `ollama create NAME -f Modelfile` takes.

    A chat template that is none of `FORMATS` gives a Modelfile that continues text, and a note that says so.

    Args:
        quant: of the file; of several, the Modelfile names the first.
        system: the system prompt that Ollama shall use.

    Returns:
        What `export_gguf` returns, with `modelfile, template` (name of the format, or None).

    Raises:
        ModelError: as `export_gguf`, or the format knows no system prompt and one is given.
        InputError: a text that a Modelfile cannot say.
    """
    model, out = Path(model), Path(out)
    special = special_of(model)
    template = template_of(model)
    found = recognise(template, special)
    if system and (found is None or found[1].system is None):
        raise ModelError(f"{model}: the chat template knows no system prompt; leave it out")
    summary = export_gguf(model, out, quant=quant, pre=pre, accept_mismatch=accept_mismatch, name=name)
    first = next(iter(summary["files"].values()))
    text = modelfile(Path(first["path"]).name, found, special, system=system, parameters=_parameters(model))
    atomic_write(out / MODELFILE, text)
    if template and found is None:
        first["notes"] = [
            *first["notes"],
            f"the chat template is none of {', '.join(FORMATS)}: the Modelfile continues text, without a conversation",
        ]
    return {**summary, "format": "ollama", "modelfile": str(out / MODELFILE), "template": found[0] if found else None}
