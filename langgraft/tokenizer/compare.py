"""The same sentences cut by several tokenizers, lined up where all of them cut."""

import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import regex

from langgraft.errors import TokenizerError
from langgraft.text import Language
from langgraft.tokenizer.files import load, read_byte_level
from langgraft.tokenizer.measure import cut, fertility

SENTENCE_END = regex.compile(r"(?<=[.!?])\s+|(?<=[。！？।॥؟۔])\s*|\n+")
SHORTEST, LONGEST = 8, 120  # characters of a sentence that is shown
WIDTH = 100  # terminal columns when the terminal does not say


@dataclass(frozen=True)
class Sentence:
    """One sentence: `columns` hold, for each tokenizer in turn, the pieces between two cuts that all share."""

    text: str
    tokens: dict[str, int]
    columns: list[list[list[str]]]


@dataclass(frozen=True)
class Comparison:
    """Sentences side by side, and totals over the whole text: tokens, bytes per token, and the share saved."""

    language: str
    names: list[str]
    totals: dict[str, dict[str, float]]
    sentences: list[Sentence]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def compare(
    tokenizers: Mapping[str, Path], texts: Sequence[str], language: Language, *, sentences: int = 12
) -> Comparison:
    """Cut `texts` with each of `tokenizers` (name -> folder; the first is what the others are compared with).

    `sentences` of them, spread evenly over the texts, are lined up; the totals are over everything.

    Raises:
        TokenizerError: a folder holds no byte-level BPE tokenizer, or there is no text.
    """
    if not any(text.strip() for text in texts):
        raise TokenizerError("there is no text to compare the tokenizers on")
    for folder in tokenizers.values():
        read_byte_level(folder)
    loaded = {name: load(folder) for name, folder in tokenizers.items()}
    totals: dict[str, dict[str, float]] = {}
    for name, folder in tokenizers.items():
        found = fertility(folder, texts, language)
        first = next(iter(totals.values()))["tokens"] if totals else found.tokens
        totals[name] = {
            "tokens": found.tokens,
            "bytes_per_token": found.bytes_per_token,
            "saved": 1 - found.tokens / first,
        }
    shown = []
    for text in choose(texts, sentences):
        cuts = [cut(tokenizer, text) for tokenizer in loaded.values()]
        counts = {name: len(pieces) for name, pieces in zip(loaded, cuts, strict=True)}
        shown.append(Sentence(text, counts, align(cuts)))
    return Comparison(language.code, list(tokenizers), totals, shown)


def choose(texts: Sequence[str], count: int) -> list[str]:
    """`count` sentences of `texts`, spread evenly; long ones are cut between two words or characters."""
    found = [shorten(part.strip()) for text in texts for part in SENTENCE_END.split(text) if part.strip()]
    distinct = list(dict.fromkeys(found))
    good = [sentence for sentence in distinct if len(sentence) >= SHORTEST] or distinct
    if len(good) <= count:
        return good
    return [good[i * len(good) // count] for i in range(count)]


def shorten(sentence: str) -> str:
    """At most LONGEST characters, cut at a space if there is one in the second half, and never inside a grapheme."""
    if len(sentence) <= LONGEST:
        return sentence
    space = sentence.rfind(" ", LONGEST // 2, LONGEST)
    if space > 0:
        return sentence[:space]
    kept = ""
    for grapheme in regex.findall(r"\X", sentence[: 2 * LONGEST]):
        if kept and len(kept) + len(grapheme) > LONGEST:
            break
        kept += grapheme
    return kept


def align(cuts: Sequence[Sequence[tuple[str, int]]]) -> list[list[list[str]]]:
    """Line up cuts of one text, given as (piece, bytes): one column between each two cuts that all share.

    A column holds a list of pieces per tokenizer. Where a tokenizer changes the text (its normaliser, or bytes it
    has no token for), the bytes do not add up to the same, and everything is one column.
    """
    ends = []
    for pieces in cuts:
        end, own = 0, []
        for _, size in pieces:
            end += size
            own.append(end)
        ends.append(own)
    if len({own[-1] if own else 0 for own in ends}) > 1:
        return [[[piece for piece, _ in pieces] for pieces in cuts]]
    shared = sorted(set.intersection(*map(set, ends))) if ends else []
    columns: list[list[list[str]]] = [[[] for _ in cuts] for _ in shared]
    for row, pieces in enumerate(cuts):
        column = 0
        for (piece, _), end in zip(pieces, ends[row], strict=True):
            columns[column][row].append(piece)
            column += end == shared[column]
    return columns


def terminal(comparison: Comparison, width: int | None = None) -> Iterator[str]:
    """Lines of text: every sentence with one row per tokenizer, common cuts under one another, then the totals."""
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    margin = max(map(len, comparison.names)) + 2
    for sentence in comparison.sentences:
        yield sentence.text
        for rows in _wrapped(sentence.columns, max(width - margin, 20)):
            for name, row in zip(comparison.names, rows, strict=True):
                yield f"{name:<{margin}}{row}".rstrip()
        yield ", ".join(f"{name} {count} tokens" for name, count in sentence.tokens.items())
        yield ""
    for name, total in comparison.totals.items():
        yield (
            f"{name:<{margin}}{total['tokens']:>12,} tokens  {total['bytes_per_token']:5.2f} bytes per token  "
            f"{-total['saved']:+.1%}"
        )


def _wrapped(columns: Sequence[Sequence[Sequence[str]]], width: int) -> Iterator[list[str]]:
    """Rows of text for the terminal, broken where the next column would pass `width`."""
    rows: list[str] = []
    used = 0
    for cells in (part for column in columns for part in _parts(column, width)):
        widest = max(map(display_width, cells))
        if rows and used + widest + 1 > width:
            yield rows
            rows, used = [], 0
        rows = rows or [""] * len(cells)
        rows = [f"{row}{cell}{' ' * (widest - display_width(cell))}|" for row, cell in zip(rows, cells, strict=True)]
        used += widest + 1
    if rows:
        yield rows


def _parts(column: Sequence[Sequence[str]], width: int) -> Iterator[list[str]]:
    """The cells of a column as text; one that is wider than the terminal is broken between pieces, row by row."""
    packed: list[list[str]] = []
    for pieces in column:
        lines = [""]
        for piece in map(visible, pieces):
            if lines[-1] and display_width(lines[-1]) + display_width(piece) + 2 > width:
                lines.append("")
            lines[-1] += f"·{piece}" if lines[-1] else piece
        packed.append(lines)
    for i in range(max(map(len, packed))):
        yield [lines[i] if i < len(lines) else "" for lines in packed]


def visible(piece: str) -> str:
    """A piece with its white space shown."""
    return piece.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")


def display_width(text: str) -> int:
    """Terminal columns of `text`: wide characters take two, combining and invisible ones none."""
    width = 0
    for char in text:
        if unicodedata.category(char) in ("Mn", "Me", "Cf"):
            continue
        width += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return width
