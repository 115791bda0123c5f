"""Modelfiles for Ollama: the template says what the model's own says, or nothing is claimed."""

import re
from pathlib import Path
from typing import Any

import pytest
from gguf_cases import with_json

from langgraft.errors import InputError, ModelError
from langgraft.exporting.ollama import FORMATS, export_ollama, go_template, modelfile, plain, recognise
from langgraft.tokenizer.template import render

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
# Chat templates in the words of their makers, shortened.
TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "chatml-default": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama-2": "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set s = messages[0].content %}"
    "{% else %}{% set rest = messages %}{% set s = false %}{% endif %}{% for m in rest %}"
    "{% if loop.index0 == 0 and s %}{% set c = '<<SYS>>\n' + s + '\n<</SYS>>\n\n' + m.content %}{% else %}"
    "{% set c = m.content %}{% endif %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama-3": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
    "m.content | trim + '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    "gemma": "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + "
    "m.content | trim + '<end_of_turn>\n' }}{% endfor %}{{ '<start_of_turn>model\n' }}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% else %}{{ raise_exception('roles') }}"
    "{% endif %}{% endfor %}",
    "phi-3": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' }}",
    "zephyr": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' }}",
}
TALK = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "你好"},
]


def go(template: str, messages: list[dict[str, str]]) -> str:
    """As much of Go's text/template as the Modelfiles use: range over messages, if, else if, and, le, gt, eq, not."""
    tokens = re.split(r"(\{\{.*?\}\})", template)
    tokens = [token for token in tokens if token]
    system = next((m["content"] for m in messages if m["role"] == "system"), "")

    def condition(text: str, at: dict[str, Any]) -> bool:
        if found := re.fullmatch(r'eq \$m\.Role "(\w+)"', text):
            return bool(at["m"]["role"] == found[1])
        if found := re.fullmatch(r"gt \$i (\d)", text):
            return bool(at["i"] > int(found[1]))
        if text == "and $.System (le $i 1)":
            return bool(system) and at["i"] <= 1
        assert text == "not .System", text
        return not system

    def block(start: int) -> int:
        """The position of the `end` or `else` that belongs to the block before `start`."""
        depth = 0
        for place in range(start, len(tokens)):
            word = tokens[place].strip("{} ")
            if re.match(r"(if|range) ", word) and tokens[place].startswith("{{"):
                depth += 1
            elif depth == 0 and tokens[place].startswith("{{") and (word == "end" or word.startswith("else if ")):
                return place
            elif word == "end" and tokens[place].startswith("{{"):
                depth -= 1
        raise AssertionError("no end")

    def run(start: int, stop: int, at: dict[str, Any]) -> str:
        out, place = "", start
        while place < stop:
            token = tokens[place]
            word = token.strip("{} ") if token.startswith("{{") else None
            if word is None:
                out += token
            elif word == "$m.Content":
                out += at["m"]["content"]
            elif word == "$.System":
                out += system
            elif word.startswith("range "):
                end = block(place + 1)
                out += "".join(run(place + 1, end, {"i": i, "m": m}) for i, m in enumerate(messages))
                place = end
            else:
                done, test = False, word.removeprefix("if ")
                while True:
                    end = block(place + 1)
                    if not done and condition(test, at):
                        out, done = out + run(place + 1, end, at), True
                    place, following = end, tokens[end].strip("{} ")
                    if following == "end":
                        break
                    test = following.removeprefix("else if ")
            place += 1
        return out

    return run(0, len(tokens), {})


@pytest.mark.parametrize("name", TEMPLATES)
def test_known_templates_are_recognised_and_say_the_same(name: str) -> None:
    found = recognise(TEMPLATES[name], SPECIAL)
    assert found is not None
    assert found[0] == name
    system = [{"role": "system", "content": "Be short."}] if found[1].system else []
    for talk in (TALK[:1], TALK, *([[*system, *TALK]] if system else [])):
        text = go(go_template(found[1], SPECIAL), talk)
        assert text == plain(found[1], talk, SPECIAL)
        assert text == render(TEMPLATES[name], talk, SPECIAL).removeprefix("<s>")


def test_every_format_but_a_variant_has_a_template() -> None:
    assert set(FORMATS) - set(TEMPLATES) == {"mistral-tight"}


def test_a_system_prompt_that_the_template_lacks_is_not_offered() -> None:
    for name, system in (("gemma", False), ("mistral", False), ("chatml", True), ("llama-2", True)):
        found = recognise(TEMPLATES[name], SPECIAL)
        assert found is not None
        assert (found[1].system is not None) is system


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }}", "{{ raise_exception('never') }}", "{% if"])
def test_other_templates_are_not_guessed(template: str | None) -> None:
    assert recognise(template, SPECIAL) is None
    text = modelfile("m.gguf", None, SPECIAL)
    assert text == 'FROM ./m.gguf\nTEMPLATE """{{ .Prompt }}"""\nPARAMETER stop "</s>"\n'


def test_what_a_modelfile_cannot_say() -> None:
    with pytest.raises(InputError, match='the system prompt holds """'):
        modelfile("m.gguf", ("chatml", FORMATS["chatml"]), SPECIAL, system='say """')
    with pytest.raises(InputError, match='the chat template holds """'):
        modelfile("m.gguf", ("zephyr", FORMATS["zephyr"]), {"eos_token": '"""'})


def test_export(pico: Path, tmp_path: Path) -> None:
    folder = with_json(pico, tmp_path / "m", "tokenizer_config.json", chat_template=TEMPLATES["chatml"])
    summary = export_ollama(folder, tmp_path / "out", system="Speak Cantonese.")
    assert summary["template"] == "chatml"
    text = (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./m-q8_0.gguf\nTEMPLATE")
    assert (tmp_path / "out" / "m-q8_0.gguf").is_file()
    for line in ('PARAMETER stop "<|im_end|>"', "PARAMETER num_ctx 256", 'SYSTEM """Speak Cantonese."""'):
        assert line in text
    odd = with_json(pico, tmp_path / "n", "tokenizer_config.json", chat_template="{{ messages[0].content }}!")
    with pytest.raises(ModelError, match="knows no system prompt"):
        export_ollama(odd, tmp_path / "o", system="x")
    other = export_ollama(odd, tmp_path / "o")
    assert other["template"] is None
    assert "continues text" in other["files"]["q8_0"]["notes"][-1]
