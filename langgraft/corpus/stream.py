"""The texts of some inputs, for commands that work on text alone."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from langgraft.corpus.document import Input, Report
from langgraft.corpus.readers import read
from langgraft.errors import CorpusError

FEW = 100
"""Documents below which all are learned from and measured on."""
HELD_OUT = 50_000_000
"""Characters of held-out text that are kept."""


def texts_of(paths: Sequence[str], code: str) -> list[str]:
    """All texts of some inputs.

    Raises:
        CorpusError: an input cannot be read, or there is no text.
    """
    return list(stream(paths, code))


def stream(paths: Sequence[str], code: str) -> Iterator[str]:
    """The texts of some inputs, one after the other.

    Raises:
        CorpusError: an input cannot be read, or there is no text.
    """
    found = False
    for document in read([Input(path) for path in paths], code, Report()):
        if document.text.strip():
            found = True
            yield document.text
    if not found:
        raise CorpusError(f"there is no text in {', '.join(paths)}")


class Learning:
    """Texts to learn from, read once; every twentieth is kept in `held_out` instead. Few are all learned from and kept.

    `held_out` is whole when the texts have been read, and holds at most HELD_OUT characters: a corpus may be larger
    than memory.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = iter(texts)
        self.held_out: list[str] = []
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        first = list(itertools.islice(self.texts, FEW))
        if len(first) < FEW:
            self.held_out = first
            yield from first
            return
        for i, text in enumerate(itertools.chain(first, self.texts)):
            if i % 20:
                yield text
            elif self.characters < HELD_OUT:
                self.held_out.append(text)
                self.characters += len(text)
