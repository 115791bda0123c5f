"""Text from a model, piece by piece: the same for every backend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from langgraft.errors import InputError
from langgraft.serving.model import LanguageModel
from langgraft.serving.sampling import Sampler, Sampling, log_softmax
from langgraft.serving.stream import TextStream
from langgraft.serving.template import Message, render

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


def generate(
    model: LanguageModel, prompt: Sequence[int], sampling: Sampling, *, slot: int = 0, chat: bool = False
) -> Iterator[Piece]:
    """Answer a prompt, one piece a token; the last piece says how it ended.

    Raises:
        InputError: the prompt is empty or longer than the model's context.
    """
    check_room(model, prompt)
    if not prompt:
        raise InputError("the prompt is empty")
    ids, sampler, stream = list(prompt), Sampler(sampling, list(prompt)), TextStream(sampling.stop)
    lead = chat and model.spaced  # the space SentencePiece writes before a first word
    room = min(sampling.max_tokens, model.context - len(ids))
    for _ in range(room):
        logits = model.logits(ids, slot)
        chosen = sampler.choose(logits)
        ids.append(chosen)
        token = _token(model, chosen, logits, sampling.logprobs)
        if model.ends(chosen):
            yield Piece(stream.finish(), (token,), "stop")
            return
        text = stream.feed(token.data[1:] if lead and token.data.startswith(b" ") else token.data)
        lead = lead and not token.data
        if stream.stopped is not None:
            yield Piece(text, (token,), "stop")
            return
        yield Piece(text, (token,))
    yield Piece(stream.finish(), (), "length")


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
