"""`langgraft chat`: a conversation, or a text to continue, in the terminal."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from langgraft.errors import InputError
from langgraft.serving.generate import chat_prompt, generate, text_of, text_prompt
from langgraft.serving.model import LanguageModel
from langgraft.serving.sampling import Sampling
from langgraft.store import atomic_write
from langgraft.text import language
from langgraft.tokenizer.template import Message

HELP = """\
/system TEXT     set the system prompt (empty: none); starts anew
/language CODE   ask for answers in a language, such as hi or yue (empty: none)
/set NAME=VALUE  temperature, top_p, top_k, min_p, repetition_penalty, max_tokens, seed
/mode            from conversation to continuing texts, and back
/retry           another answer to the last message
/undo            forget the last message and its answer
/reset           forget the conversation
/show            the settings and the conversation as the model reads it
/save FILE       write the conversation as JSON messages
/quit            leave (also Ctrl-D); Ctrl-C stops an answer"""


@dataclass
class Conversation:
    """A model, what was said, and how it answers."""

    model: LanguageModel
    sampling: Sampling
    system: str = ""
    code: str = ""
    plain: bool = False
    said: list[Message] = field(default_factory=list)

    def messages(self) -> list[Message]:
        """What the model is given: the system prompt, with the language asked for, and what was said."""
        parts = [self.system]
        if self.code:
            known = language(self.code)
            parts.append(f"Always answer in {known.name} ({known.native_name}).")
        system = " ".join(filter(None, parts))
        return [*([{"role": "system", "content": system}] if system else []), *self.said]

    def prompt(self) -> list[int]:
        """Ids of the conversation, its oldest turns left out where it outgrows the model's context.

        Raises:
            InputError: the template refuses the conversation.
        """
        if self.plain:
            return text_prompt(self.model, "".join(message["content"] for message in self.said))
        messages = self.messages()
        first = len(messages) - len(self.said)
        room = self.model.context - min(self.sampling.max_tokens, self.model.context // 2)
        while len(ids := chat_prompt(self.model, messages)) > room and len(messages) > first + 1:
            del messages[first : first + 2]  # a question goes with its answer
        return ids

    def answer(self, show: Callable[[str], None]) -> tuple[str, int, float]:
        """Answer what was said last, telling `show` each piece; returns text, tokens and seconds.

        Ctrl-C ends the answer there; what was shown is kept.
        """
        text, count, start = "", 0, time.monotonic()
        pieces = generate(self.model, self.prompt(), self.sampling, chat=not self.plain)
        with contextlib.suppress(KeyboardInterrupt):
            for piece in pieces:
                text += piece.text
                count += len(piece.tokens)
                if piece.text:
                    show(piece.text)
        self.said.append({"role": "assistant", "content": text})
        return text, count, time.monotonic() - start

    def forget(self, *, answer_only: bool) -> None:
        """Take back the last answer, and unless `answer_only` what it answered.

        Raises:
            InputError: nothing was said.
        """
        if not self.said:
            raise InputError("nothing was said yet")
        if self.said[-1]["role"] == "assistant":
            self.said.pop()
        if not answer_only and self.said:
            self.said.pop()

    def setting(self, text: str) -> None:
        """Change a setting given as name=value.

        Raises:
            InputError: there is no such setting, or the value does not fit.
        """
        kinds = {one.name: one.type for one in fields(Sampling) if one.name not in ("stop", "logprobs")}
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in kinds:
            raise InputError(f"there is no setting `{name}`; there is {', '.join(kinds)}")
        try:
            number: Any = float(value) if kinds[name] in (float, "float") else int(value)
        except ValueError as error:
            raise InputError(f"{name} needs a number, not `{value}`") from error
        self.sampling = replace(self.sampling, **{name: number})


def talk(conversation: Conversation, *, name: str = "model") -> None:
    """Read lines until the end of input; prompts and notes go to stderr, answers to stdout."""
    terminal = sys.stdin.isatty()
    if terminal:
        _remember_lines()
        how = "continues your text" if conversation.plain else "chats"
        _note(f"{name} {how} on {conversation.model.backend}; /help lists the commands, Ctrl-D leaves")
    while (line := _read(terminal)) is not None:
        if line.strip() in ("/quit", "/exit"):
            return
        try:
            if line.startswith("/") and not line.startswith("//"):
                word, _, rest = line[1:].partition(" ")
                _COMMANDS.get(word, _unknown)(conversation, rest.strip())
                again = word == "retry"
            else:
                again = bool(line.strip())
                if again:
                    # A line that begins with a slash is typed with two.
                    said = line[1:] if line.startswith("//") else line
                    conversation.said.append({"role": "user", "content": said})
            if again:
                _answer(conversation, terminal)
        except InputError as error:
            if conversation.said and conversation.said[-1]["role"] == "user":
                conversation.said.pop()
            _note(f"langgraft: {error}")


def _answer(conversation: Conversation, terminal: bool) -> None:
    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    if terminal and conversation.plain:
        show("\x1b[2m" + "".join(message["content"] for message in conversation.said) + "\x1b[0m")
    _, count, seconds = conversation.answer(show)
    show("\n")
    if terminal:
        _note(f"[{count} tokens, {count / max(seconds, 1e-9):.1f} tokens/s]")


def _read(terminal: bool) -> str | None:
    """A line, or None at the end of input; Ctrl-C at the prompt only clears the line."""
    while True:
        try:
            if not terminal:
                line = sys.stdin.readline()
                return line.rstrip("\n") if line else None
            return input("\x01\x1b[1;32m\x02> \x01\x1b[0m\x02")
        except KeyboardInterrupt:
            _note("")
        except EOFError:
            _note("")
            return None
        except UnicodeDecodeError:
            _note("langgraft: the line is no UTF-8 text")


def _remember_lines() -> None:
    """Arrow keys bring earlier lines back, where Python has readline."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _unknown(_conversation: Conversation, _rest: str) -> None:
    raise InputError("there is no such command; /help lists them (begin the line with // to say a slash)")


def _system(conversation: Conversation, rest: str) -> None:
    conversation.system, conversation.said = rest, []
    _note(f"system prompt: {rest or 'none'}; the conversation starts anew")


def _language(conversation: Conversation, rest: str) -> None:
    conversation.code = language(rest).code if rest else ""
    known = language(rest) if rest else None
    _note(f"answers are asked for in {known.name} ({known.native_name})" if known else "answers in any language")


def _set(conversation: Conversation, rest: str) -> None:
    conversation.setting(rest)
    _note(_settings(conversation.sampling))


def _settings(sampling: Sampling) -> str:
    return ", ".join(f"{one.name}={getattr(sampling, one.name)}" for one in fields(Sampling) if one.name != "logprobs")


def _mode(conversation: Conversation, _rest: str) -> None:
    if conversation.plain and conversation.model.template is None:
        raise InputError("this model has no chat template; it can only continue texts")
    conversation.plain, conversation.said = not conversation.plain, []
    _note("continuing texts" if conversation.plain else "conversation")


def _retry(conversation: Conversation, _rest: str) -> None:
    conversation.forget(answer_only=True)


def _undo(conversation: Conversation, _rest: str) -> None:
    conversation.forget(answer_only=False)
    _note(f"{len(conversation.said)} messages left")


def _reset(conversation: Conversation, _rest: str) -> None:
    conversation.said = []
    _note("the conversation starts anew")


def _show(conversation: Conversation, _rest: str) -> None:
    _note(_settings(conversation.sampling))
    ids = conversation.prompt() if conversation.said else []
    _note(text_of(conversation.model, ids) or "nothing was said yet")


def _save(conversation: Conversation, rest: str) -> None:
    if not rest:
        raise InputError("name the file: /save talk.json")
    path = Path(rest).expanduser()
    if path.exists():
        raise InputError(f"{path} exists already; choose another file")
    try:
        atomic_write(path, json.dumps({"messages": conversation.messages()}, ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    _note(f"wrote {path}")


def _help(_conversation: Conversation, _rest: str) -> None:
    _note(HELP)


_COMMANDS: Mapping[str, Callable[[Conversation, str], None]] = {
    "help": _help,
    "system": _system,
    "language": _language,
    "set": _set,
    "mode": _mode,
    "retry": _retry,
    "undo": _undo,
    "reset": _reset,
    "show": _show,
    "save": _save,
}
