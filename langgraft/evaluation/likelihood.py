"""What measuring needs of a model: bits of documents, bits of a text after another, and what it writes itself.

Answers come from transformers, from llama.cpp or over HTTP (see `langgraft.evaluation.models`); everything measured is
built on these three questions, so that models of every kind can be compared.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from langgraft.progress import Log
from langgraft.tokenizer.template import Message


class DocumentBits(NamedTuple):
    """Bits that a model needs for one document, and the tokens it reads it in.

    Where they were counted: tokens that were its first choice, those of new ids, and both at once.
    """

    document: int
    bits: float
    tokens: int
    right: int = 0
    new: int = 0
    new_right: int = 0


class Window(NamedTuple):
    """A part of a document as a model reads it: `ids[0]` is only context, `ids[1 + score_from:]` is scored."""

    document: int
    ids: list[int]
    score_from: int


Prompt = str | Sequence[Message]
"""A text to go on with, from the beginning of a document; or a conversation for the model's chat template."""


class Written(NamedTuple):
    """What a model wrote, and why it stopped: at the end of its text or turn, at a line's end, or at the last token."""

    text: str
    finish: Literal["end", "line", "length"]


class Scorer(Protocol):
    """A model that says how likely texts are, whatever runs it; `kind` is folder, adapter, gguf or endpoint."""

    kind: str

    @property
    def chats(self) -> bool:
        """Whether it has a chat template."""
        ...

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
        """Bits of every document but those already `done`, in groups as they are finished.

        The same call gives the same bits whatever is done already: batches do not depend on it.
        """
        ...

    def continuations(
        self, pairs: Sequence[tuple[str, str]], *, log: Log | None = None, what: str = ""
    ) -> list[tuple[float, int]]:
        """For each (context, text): the bits of the text after the context, and its tokens; in order.

        An empty context is the beginning of a document.
        """
        ...

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        line: bool = False,
        log: Log | None = None,
        what: str = "",
    ) -> list[Written]:
        """The model's likeliest text after each prompt, token by token (greedy); in order.

        It ends with a token that ends a text or a turn, after `max_new_tokens`, and with `line` before the first line
        break.

        Raises:
            InputError: a prompt leaves no room in the model's context, or its chat template refuses a conversation.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def windows(document: int, ids: Sequence[int], separator: int, length: int, stride: int) -> list[Window]:
    """Cut `separator + ids` into windows of at most `length` inputs; each token is scored exactly once.

    After the first, windows advance by `stride` and use the tokens before as context.
    """
    inside = [separator, *ids]
    found = [Window(document, inside[: length + 1], 0)]
    scored = len(found[0].ids) - 1
    while scored < len(ids):
        end = min(scored + stride, len(ids))
        begin = end - length
        found.append(Window(document, inside[begin : end + 1], scored - begin))
        scored = end
    return found


def batches(todo: Sequence[Window], batch_tokens: int) -> list[list[Window]]:
    """Group windows of similar length; a padded batch holds at most `batch_tokens` (or one window)."""
    found: list[list[Window]] = []
    for window in sorted(todo, key=lambda w: (len(w.ids), w.document)):
        if found and len(window.ids) * (len(found[-1]) + 1) <= batch_tokens:
            found[-1].append(window)
        else:
            found.append([window])
    return found


def shared(rows: Sequence[list[int]]) -> int:
    """Length of the beginning that all rows have in common."""
    first, last = min(rows), max(rows)  # in sorted order, the two that differ most
    n = min(len(first), len(last))
    return next((i for i in range(n) if first[i] != last[i]), n)
