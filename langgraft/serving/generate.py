"""Text from a model, piece by piece: the same for every backend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from langgraft.errors import InputError
from langgraft.serving.model import LanguageModel
from langgraft.serving.sampling import Sampler, Sampling, log_softmax
from langgraft.serving.stream import TextStream
from langgraft.tokenizer.template import Message, render

if TYPE_CHECKING:
    import numpy as np

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Token:
    """A token of the answer: its name and bytes, and where wanted its log-probability and likeliest rivals."""

    id: int
    name: str
    data: bytes
    logprob: float | None = None
    top: tuple[tuple[str, bytes, float], ...] = ()  # name, bytes, log-probability; likeliest first


@dataclass(frozen=True)
class Piece:
    """What one step gives: text that can be shown (often none), the step's tokens, and how it ended if it did."""

    text: str
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None


@dataclass
class Answer:
    """A whole answer."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: Finish = "length"


def chat_prompt(model: LanguageModel, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation that the assistant goes on with.

    Raises:
        InputError: the model has no chat template, or it refuses the conversation.
    """
    return model.encode(render(model.template, messages, model.special), chat=True)


def text_prompt(model: LanguageModel, text: str) -> list[int]:
    """Ids of a text to continue; an empty one starts a document."""
    return model.encode(text) or list(model.first)


def text_of(model: LanguageModel, ids: Sequence[int]) -> str:
    """Ids as text, special tokens by their names."""
    return b"".join(model.bytes_of(i) or model.name_of(i).encode() for i in ids).decode("utf-8", "replace")


def check_room(model: LanguageModel, prompt: Sequence[int]) -> None:
    """Check that a prompt leaves room for an answer.

    Raises:
        InputError: it is longer than the model's context.
    """
    if len(prompt) >= model.context:
        raise InputError(
            f"the prompt has {len(prompt):,} tokens, and the model reads at most {model.context:,} with its answer; "
            "shorten it"
        )


class Writing:
    """An answer in the making, for whoever asks the model: give it the logits after `ids`, and it takes a token.

    Attributes:
        ids: what the model has to read: the prompt and the answer so far.
        finish: how the answer ended, None while it goes on.

    Raises:
        InputError: the prompt is empty or longer than the model's context.
    """

    def __init__(self, model: LanguageModel, prompt: Sequence[int], sampling: Sampling, *, chat: bool = False) -> None:
        check_room(model, prompt)
        if not prompt:
            raise InputError("the prompt is empty")
        self.ids = list(prompt)
        self._model, self._wanted = model, sampling.logprobs
        self._sampler, self._stream = Sampler(sampling, list(prompt)), TextStream(sampling.stop)
        self._lead = chat and model.spaced  # the space SentencePiece writes before a first word
        self._end = len(prompt) + min(sampling.max_tokens, model.context - len(prompt))
        self.finish: Finish | None = "length" if self._end == len(prompt) else None

    def take(self, logits: "np.ndarray") -> Piece:
        """Choose a token by `logits`, shape (tokens,), and say what can be shown."""
        chosen = self._sampler.choose(logits)
        self.ids.append(chosen)
        token = _token(self._model, chosen, logits, self._wanted)
        if self._model.ends(chosen):
            self.finish = "stop"
            return Piece(self._stream.finish(), (token,), "stop")
        text = self._stream.feed(token.data[1:] if self._lead and token.data.startswith(b" ") else token.data)
        self._lead = self._lead and not token.data
        if self._stream.stopped is not None:
            self.finish = "stop"
        elif len(self.ids) == self._end:
            text, self.finish = text + self._stream.finish(), "length"
        return Piece(text, (token,), self.finish)


def generate(
    model: LanguageModel, prompt: Sequence[int], sampling: Sampling, *, slot: int = 0, chat: bool = False
) -> Iterator[Piece]:
    """Answer a prompt, one piece a token; the last piece says how it ended.

    Raises:
        InputError: the prompt is empty or longer than the model's context.
    """
    writing = Writing(model, prompt, sampling, chat=chat)
    if writing.finish is not None:
        yield Piece("", (), writing.finish)
    while writing.finish is None:
        yield writing.take(model.logits(writing.ids, slot))


def answer(
    model: LanguageModel, prompt: Sequence[int], sampling: Sampling, *, slot: int = 0, chat: bool = False
) -> Answer:
    """The whole answer at once; see `generate`."""
    whole = Answer()
    for piece in generate(model, prompt, sampling, slot=slot, chat=chat):
        whole.text += piece.text
        whole.tokens += piece.tokens
        whole.finish = piece.finish or whole.finish
    return whole


def scored(model: LanguageModel, prompt: Sequence[int], top: int, *, slot: int = 0) -> list[Token]:
    """The tokens of a prompt with their log-probabilities; the first one has none.

    Raises:
        InputError: the prompt is longer than the model's context.
    """
    check_room(model, prompt)
    rows = model.all_logits(list(prompt), slot)
    first = Token(prompt[0], model.name_of(prompt[0]), model.bytes_of(prompt[0]))
    return [first, *(_token(model, token, row, top) for token, row in zip(prompt[1:], rows, strict=False))]


def _token(model: LanguageModel, chosen: int, logits: "np.ndarray", top: int | None) -> Token:
    name, data = model.name_of(chosen), model.bytes_of(chosen)
    if top is None:
        return Token(chosen, name, data)
    import numpy as np

    logs = log_softmax(logits)
    best = np.argpartition(logs, -top)[-top:] if top else np.empty(0, dtype=np.int64)
    best = best[np.lexsort((best, -logs[best]))]
    rivals = tuple((model.name_of(int(i)), model.bytes_of(int(i)), float(logs[i])) for i in best)
    return Token(chosen, name, data, float(logs[chosen]), rivals)
