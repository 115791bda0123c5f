"""Answers in the shapes of the OpenAI interface, whole or as a stream of chunks."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraft.serving.generate import Token


@dataclass
class Shape:
    """What every answer to one request shares."""

    model: str
    chat: bool
    logprobs: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: Sequence[str], tokens: Sequence[list[Token]], finishes: Sequence[str]) -> dict[str, Any]:
        """The answer at once, without its usage."""
        choices = []
        for index, (text, used, finish) in enumerate(zip(texts, tokens, finishes, strict=True)):
            choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": self._logprobs(used, 0)}
            choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
            choices.append(choice)
        return self._envelope("chat.completion" if self.chat else "text_completion", choices)

    def opening(self, index: int) -> dict[str, Any]:
        """A chat stream's first chunk of a choice, which names the role."""
        delta = {"role": "assistant", "content": ""}
        return self._chunk({"index": index, "delta": delta, "finish_reason": None, "logprobs": None})

    def chunk(self, index: int, text: str, tokens: list[Token], offset: int, finish: str | None) -> dict[str, Any]:
        """A chunk; `offset` counts the characters of the choice before it."""
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": self._logprobs(tokens, offset)}
        if not self.chat:
            choice["text"] = text
        else:
            choice["delta"] = {"content": text} if text else {}
        return self._chunk(choice)

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk, where the client asked for it."""
        return {**self._envelope("chat.completion.chunk" if self.chat else "text_completion", []), "usage": usage}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._envelope("chat.completion.chunk" if self.chat else "text_completion", [choice])

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {"content": list(map(_chat_token, tokens)), "refusal": None} if self.chat else _legacy(tokens, offset)


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Tokens read and written."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _chat_token(token: Token) -> dict[str, Any]:
    return {
        "token": token.name,
        "logprob": token.logprob,
        "bytes": list(token.data),
        "top_logprobs": [{"token": name, "logprob": logprob, "bytes": list(data)} for name, data, logprob in token.top],
    }


def _legacy(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """The older shape: parallel lists, and one object of rivals per token."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.data.decode("utf-8", "ignore"))
    return {
        "tokens": [token.name for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {name: logprob for name, _, logprob in token.top} if token.logprob is not None else None for token in tokens
        ],
        "text_offset": offsets,
    }
