"""The small interface behind which a model answers, whatever runs it."""

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class LanguageModel(Protocol):
    """What generation needs of a model. One thread at a time may use it.

    Attributes:
        context: tokens that one text may have, prompt and answer together.
        tokens: ids are below this.
        slots: how many texts it keeps in memory at a time.
        template: its chat template, or None.
        special: names and texts of the special tokens that a template may use.
        first: what an empty text is continued from: the separator between documents.
        spaced: its first token brings a space that is no part of the text (SentencePiece).
    """

    backend: str
    context: int
    tokens: int
    slots: int
    template: str | None
    special: dict[str, str]
    first: list[int]
    spaced: bool

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Ids of a text, special tokens recognised; a chat brings its own first token, other texts get it."""
        ...

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; special tokens stand for nothing."""
        ...

    def name_of(self, token: int) -> str:
        """A token as people read it, special tokens by their name."""
        ...

    def ends(self, token: int) -> bool:
        """Whether the model ends its text with this token."""
        ...

    def logits(self, ids: list[int], slot: int = 0) -> "np.ndarray":
        """What may follow `ids`: float32, shape (tokens,); -inf where no token has the id.

        What the slot remembers of an earlier call with the same beginning is not computed again.
        """
        ...

    def next_logits(self, texts: "dict[int, list[int]]") -> "dict[int, np.ndarray]":
        """`logits` for several slots at once, ids by slot; together where the backend can."""
        ...

    def all_logits(self, ids: list[int], slot: int = 0) -> "np.ndarray":
        """Logits after every token of a text: float32, shape (len(ids), tokens); the slot forgets what it held."""
        ...

    def remembered(self, slot: int) -> list[int]:
        """The ids a slot holds."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def cores(threads: int = 0) -> int:
    """`threads`, or every core this process may run on."""
    lent = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return threads or lent or 1


def shared(left: list[int], right: list[int]) -> int:
    """Length of the common beginning."""
    n = min(len(left), len(right))
    if left[:n] == right[:n]:
        return n
    return next(i for i in range(n) if left[i] != right[i])
