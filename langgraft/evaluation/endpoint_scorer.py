"""Log-likelihoods over HTTP from an OpenAI-compatible server that returns those of a prompt (`echo` with `logprobs`).

`langgraft serve`, vLLM and llama-cpp-python's server do. The server tokenises, so what a text needs is asked for whole,
and what it needs after a context is the difference of two requests: bits(context + text) - bits(context).
"""

import functools
import json
import math
import os
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from langgraft.errors import InputError, ModelError
from langgraft.evaluation.likelihood import DocumentBits, Prompt, Written
from langgraft.progress import Log
from langgraft.text import utf8_bytes

SEPARATOR = "<|endoftext|>"
KEYS = ("LANGGRAFT_API_KEY", "OPENAI_API_KEY")
BYTES_OF_TOKEN = 4  # a text of so many bytes for each token of the window is asked for at once
TIMEOUT = 600


class EndpointScorer:
    """See `langgraft.evaluation.likelihood.Scorer`.

    Args:
        url: of the interface, such as `http://127.0.0.1:8000/v1`.
        model: the model's name there; "" takes the only one.

    Raises:
        ModelError: nobody answers, or the server does not give log-probabilities of prompts.
    """

    kind = "endpoint"

    def __init__(self, url: str, model: str = "") -> None:
        self.url = url.rstrip("/")
        self.model = model or self._only_model()
        self._first = self._find_first()

    def documents(
        self,
        texts: Sequence[str],
        *,
        window: int,
        stride: int,
        done: Collection[int] = (),
        log: Log | None = None,
        what: str = "",
    ) -> Iterator[list[DocumentBits]]:
        """Bits of every document but those `done`, one after the other.

        Documents longer than a window are read in parts of `stride` tokens' bytes, each after as much text as fits.
        """
        sizes = [utf8_bytes(text) for text in texts]
        before = sum(size for i, size in enumerate(sizes) if i in done)
        progress = log.progress(what, sum(sizes), unit="bytes", done=before) if log else None
        for i, text in enumerate(texts):
            if i in done:
                continue
            bits, tokens = self._document(text, window * BYTES_OF_TOKEN, stride * BYTES_OF_TOKEN)
            yield [DocumentBits(i, bits, tokens)]
            if progress:
                progress.advance(sizes[i])

    def continuations(
        self, pairs: Sequence[tuple[str, str]], *, log: Log | None = None, what: str = ""
    ) -> list[tuple[float, int]]:
        """Bits and tokens of each text after its context."""
        progress = log.progress(what, len(pairs), unit="texts") if log and pairs else None
        contexts: dict[str, tuple[float, int]] = {"": (0.0, 0)}
        found = []
        for context, text in pairs:
            if context not in contexts:
                contexts[context] = self._bits(context)
            bits, tokens = self._bits(context + text)
            found.append((bits - contexts[context][0], tokens - contexts[context][1]))
            if progress:
                progress.advance()
        return found

    @functools.cached_property
    def chats(self) -> bool:
        """Whether the server answers a conversation."""
        messages = [{"role": "user", "content": "Hello!"}]
        try:
            self._ask("/chat/completions", {"model": self.model, "messages": messages, "max_tokens": 1})
        except ModelError:
            return False
        return True

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        line: bool = False,
        log: Log | None = None,
        what: str = "",
    ) -> list[Written]:
        """What the server answers to each prompt; with `line`, an end of text is told as a line's."""
        progress = log.progress(what, len(prompts), unit="answers") if log and prompts else None
        how = {
            "model": self.model,
            "max_tokens": max_new_tokens,
            "temperature": 0,
            **({"stop": ["\n"]} if line else {}),
        }
        found = []
        for prompt in prompts:
            plain = isinstance(prompt, str)
            asked = {"prompt": f"{self._first}{prompt}"} if plain else {"messages": list(prompt)}
            answer = self._ask("/completions" if plain else "/chat/completions", {**how, **asked})
            try:
                choice = answer["choices"][0]
                text = choice["text"] if plain else choice["message"]["content"] or ""
                ended = choice.get("finish_reason") == "stop"
            except (KeyError, IndexError, TypeError) as error:
                raise ModelError(f"{self.url} answers in a shape that is not OpenAI's: no {error}") from error
            found.append(Written(str(text), "length" if not ended else "line" if line else "end"))
            if progress:
                progress.advance()
        return found

    def _document(self, text: str, window: int, stride: int) -> tuple[float, int]:
        data = text.encode("utf-8", "surrogatepass")
        if len(data) <= window:
            return self._bits(text)
        bits, tokens = self._bits(_cut(data, 0, window))
        for begin in range(window, len(data), stride):
            context = _cut(data, begin + stride - window, begin)
            (before, known), (both, all_known) = (
                self._bits(part) for part in (context, context + _cut(data, begin, begin + stride))
            )
            bits, tokens = bits + both - before, tokens + all_known - known
        return bits, tokens

    def _bits(self, text: str) -> tuple[float, int]:
        """Bits and tokens of a text from the beginning of a document."""
        logprobs = self._logprobs(self._first + text)[1][1:]
        if any(value is None for value in logprobs):
            raise ModelError(f"{self.url} left out log-probabilities of a prompt; it cannot be measured")
        return -sum(logprobs) / math.log(2), len(logprobs)

    def _find_first(self) -> str:
        """What stands before a document, so that its first token is predicted as well.

        The usual separator where the server knows it as one token; nothing where it sets a first token itself; else a
        line break.
        """
        names, logprobs = self._logprobs(f"{SEPARATOR}a")
        if not logprobs or len(names) != len(logprobs):
            raise ModelError(
                f"{self.url} gives no log-probabilities of a prompt (`echo` with `logprobs`); "
                "langgraft serve, vLLM and llama-cpp-python's server do"
            )
        if names[0] == SEPARATOR:
            return SEPARATOR
        return "\n" if self._logprobs("a")[0][0] == "a" else ""

    def _logprobs(self, text: str) -> tuple[list[str], list[float]]:
        body = {"model": self.model, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0, "temperature": 0}
        answer = self._ask("/completions", body)
        try:
            found = answer["choices"][0]["logprobs"] or {}
            return found.get("tokens") or [], found.get("token_logprobs") or []
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"{self.url} answers in a shape that is not OpenAI's: no {error}") from error

    def _only_model(self) -> str:
        names = [entry["id"] for entry in self._ask("/models").get("data", [])]
        if len(names) != 1:
            raise InputError(f"{self.url} serves {', '.join(names) or 'nothing'}; name one, as in {self.url}#NAME")
        return str(names[0])

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            raise ModelError(f"{self.url}{path} answers {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.url}{path} does not answer as an OpenAI-compatible server: {error}") from error

    def close(self) -> None:
        """Nothing is held."""


def _cut(data: bytes, begin: int, end: int) -> str:
    """The characters that begin at bytes `begin` to `end`."""

    def start(at: int) -> int:
        while 0 < at < len(data) and data[at] & 0xC0 == 0x80:
            at += 1
        return min(max(at, 0), len(data))

    return data[start(begin) : start(end)].decode("utf-8", "surrogatepass")
