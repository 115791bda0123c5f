"""What is special about extending SentencePiece's BPE: words, and the merges that its pieces stand for.

SentencePiece has no merges, only pieces with scores: two neighbours are joined whenever the result is a piece,
the best score first. A tokenizer.json says the same with a merge for every way to make a piece of two.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import regex

from langgraft.tokenizer.files import SPACE, without_pre_tokenizer
from langgraft.tokenizer.scope import Scope

# Words as byte-level bases cut them, but with marks. Digits stay alone, as SentencePiece bases split them.
WORD = regex.compile(rf"{SPACE}?[\p{{L}}\p{{M}}]+|\p{{N}}|{SPACE}?[^{SPACE}\p{{L}}\p{{M}}\p{{N}}]+")


def words_in(text: str) -> list[str]:
    """Cut normalised text into words, each with the ▁ before it; nothing else may hold one."""
    found: list[str] = WORD.findall(text)
    return found


def merges_for(data: dict[str, Any], new: Sequence[str], scope: Scope) -> list[tuple[str, str]]:
    """The merges that the pieces `new` (in order of score) add to a tokenizer.json.

    First come new ways to make an old piece: SentencePiece joins those at the old piece's score. Then, piece by
    piece, every way to make a new one, the longer left part first as in transformers' conversion.
    """
    old, fresh = data["model"]["vocab"], set(new)
    merges: list[tuple[str, str]] = []
    rank: dict[str, int] = {}
    for left, right in data["model"]["merges"]:
        rank.setdefault(left + right, len(rank))
    touched = [piece for piece in old if len(piece) > 1 and scope.touches(piece)]
    for piece in sorted(touched, key=lambda piece: (rank.get(piece, len(rank)), old[piece])):
        merges += [(a, b) for a, b in _splits(piece, old, fresh) if a in fresh or b in fresh]
    for piece in new:
        merges += _splits(piece, old, fresh)
    return merges


def _splits(piece: str, old: dict[str, int], fresh: set[str]) -> Iterator[tuple[str, str]]:
    for cut in range(len(piece) - 1, 0, -1):
        left, right = piece[:cut], piece[cut:]
        if (left in old or left in fresh) and (right in old or right in fresh):
            yield left, right


def choose_pieces(
    data: dict[str, Any],
    candidates: Iterable[str],
    new_tokens: int,
    max_token_characters: int,
    first_id: int,
    scope: Scope,
) -> tuple[list[str], list[tuple[str, str]]]:
    """The first `new_tokens` candidates that tokenization can reach, and their merges.

    A piece is learned as one pair, but joined from any: a few are then never reached, because their characters
    are always joined otherwise. They are dropped until none is left.
    """
    vocab = data["model"]["vocab"]
    usable = list(dict.fromkeys(c for c in candidates if c not in vocab and len(c) <= max_token_characters))
    while True:
        chosen = usable[:new_tokens]
        merges = merges_for(data, chosen, scope)
        dead = set(unreachable(extended_data(data, chosen, merges, first_id), chosen))
        if not dead:
            return chosen, merges
        usable = [piece for piece in usable if piece not in dead]


def extended_data(
    data: dict[str, Any], new: Sequence[str], merges: Sequence[tuple[str, str]], first_id: int
) -> dict[str, Any]:
    """A tokenizer.json with further pieces and merges; `data` is left as it is."""
    model = data["model"]
    vocab = {**model["vocab"], **{piece: i for i, piece in enumerate(new, first_id)}}
    return {**data, "model": {**model, "vocab": vocab, "merges": [*model["merges"], *map(list, merges)]}}


def unreachable(data: dict[str, Any], new: Sequence[str]) -> list[str]:
    """Those of the pieces `new` that are not encoded as themselves."""
    encodings = without_pre_tokenizer(data).encode_batch(list(new), add_special_tokens=False)
    ids = data["model"]["vocab"]
    return [piece for piece, encoding in zip(new, encodings, strict=True) if encoding.ids != [ids[piece]]]
