"""Conversations to learn from: rows of three common forms, told apart row by row.

| form | fields |
|---|---|
| instructions (Alpaca) | `instruction`, `output`, and where there is one `input` |
| ShareGPT | `conversations`: a list of `{from, value}` |
| messages | `messages`: a list of `{role, content}` |

Each may bring a system prompt, as a turn or in the field `system`. Files are JSONL, JSON (an array) or Parquet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraft.corpus.document import Input
from langgraft.corpus.readers import choose
from langgraft.corpus.readers_rows import rows
from langgraft.corpus.sources import is_hub, resolve
from langgraft.corpus.split import order
from langgraft.errors import CorpusError
from langgraft.tokenizer.template import Message

FILES = ("jsonl", "json", "parquet")
# What data sets call the speakers -> what chat templates call them.
ROLES: Mapping[str, str] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip


@dataclass(frozen=True)
class ChatSource:
    """Where conversations are: a file, folder, glob, `package:...` or `hub:...`, and the share of its rows to take."""

    path: str
    share: float = 1.0


@dataclass(frozen=True)
class Chat:
    """One conversation, and where it stands, for people."""

    messages: tuple[Message, ...]
    place: str

    @property
    def question(self) -> str:
        """All that is said before the first answer: what a split must not have on both sides."""
        return "\0".join(f"{m['role']}\0{m['content']}" for m in self.messages[: self._first_answer()])

    def _first_answer(self) -> int:
        return next((i for i, m in enumerate(self.messages) if m["role"] == "assistant"), len(self.messages))

    def answers(self) -> list[int]:
        """The places of the assistant's messages."""
        return [i for i, m in enumerate(self.messages) if m["role"] == "assistant"]


def read_chats(sources: Sequence[ChatSource], *, system: str = "", seed: int = 0) -> Iterator[Chat]:
    """Yield the conversations of all sources, one after the other.

    Args:
        system: system prompt for conversations that bring none; "" adds none.
        seed: decides which rows a `share` below 1 takes; the same row is taken wherever it stands.

    Raises:
        CorpusError: a file cannot be read, or a row is no conversation; names the file, the row and the field.
    """
    for source in sources:
        given = Input(source.path)
        for path in [None] if is_hub(given) else resolve(given):
            if path is not None and choose(path) not in FILES:
                raise CorpusError(f"{path}: conversations are read from JSONL, JSON (an array of rows) and Parquet")
            for place, row in rows(given, path, ""):
                chat = Chat(with_system(conversation(row, place), system), place)
                if source.share >= 1 or fraction(chat.question, f"share {seed}") < source.share:
                    yield chat


def fraction(text: str, salt: str) -> float:
    """A number in [0, 1) that follows from the text and the salt alone."""
    return int.from_bytes(order(f"{salt}:{text}", 0)[:6]) / 2**48


def conversation(row: Any, place: str) -> tuple[Message, ...]:
    """A row of any of the three forms as messages; the last one is an answer, or there is none.

    Raises:
        CorpusError: the row has none of the forms, a field is no text, or a speaker is unknown.
    """
    if not isinstance(row, dict):
        raise CorpusError(f"{place}: a row of chat data must be an object with fields, not {type(row).__name__}")
    if row.get("messages") is not None:
        found = _turns(row["messages"], f"{place}: messages", ("role", "content"))
    elif row.get("conversations") is not None:
        found = _turns(row["conversations"], f"{place}: conversations", ("from", "value"))
    elif "instruction" in row and "output" in row:
        asked = [_text(row[name], f"{place}: {name}") for name in ("instruction", "input") if row.get(name) is not None]
        answer = _text(row["output"], f"{place}: output")
        found = [_message("user", "\n\n".join(part for part in asked if part)), _message("assistant", answer)]
    else:
        raise CorpusError(
            f"{place}: no conversation in fields {', '.join(map(str, row)) or '(none)'}; a row needs `messages`, "
            "`conversations`, or `instruction` and `output`"
        )
    own = row.get("system")
    if own is not None:
        found = list(with_system(found, _text(own, f"{place}: system")))
    return _until_last_answer(found)


def with_system(messages: Sequence[Message], system: str) -> tuple[Message, ...]:
    """The conversation with a system prompt in front, unless it has its own."""
    if not system or (messages and messages[0]["role"] == "system"):
        return tuple(messages)
    return (_message("system", system), *messages)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _turns(turns: Any, where: str, names: tuple[str, str]) -> list[Message]:
    """A list of turns; ShareGPT's and OpenAI's names of fields are known in both lists."""
    if not isinstance(turns, list) or not turns:
        raise CorpusError(f"{where} must be a list of turns, not {turns!r:.60}")
    found = []
    for number, turn in enumerate(turns, 1):
        at = f"{where}, turn {number}"
        if not isinstance(turn, dict):
            raise CorpusError(f"{at} must be an object with `{names[0]}` and `{names[1]}`, not {turn!r:.60}")
        speaker = turn.get("role", turn.get("from"))
        role = ROLES.get(speaker.lower() if isinstance(speaker, str) else "")
        if role is None:
            raise CorpusError(f"{at}: the speaker {speaker!r:.60} is none of {', '.join(ROLES)}")
        if turn.get("tool_calls"):
            raise CorpusError(f"{at}: calls of tools cannot be learned yet; leave such rows out")
        found.append(_message(role, _text(turn.get("content", turn.get("value")), f"{at}: {names[1]}")))
    return found


def _text(value: Any, where: str) -> str:
    """A text, or the texts of a list of parts (`{"type": "text", "text": ...}`) together."""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        value = "".join(part.get("text", "") for part in value)
    if not isinstance(value, str):
        raise CorpusError(f"{where} must be text, not {value!r:.60}")
    return value


def _until_last_answer(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Without what comes after the last answer: there is nothing to learn from it."""
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
    return tuple(messages[: last + 1])
