"""Which evaluation texts a model may have seen: those whose words stand in its training text.

Runs of words as in `langgraft.corpus.decontaminate` (13 of them, 20 or 50 characters without spaces), and texts
shorter than that as wholes, down to four units.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from langgraft.corpus.decontaminate import sizes, units
from langgraft.corpus.near import Hashes, ngrams, text_key

SHORTEST = 4  # units; shorter texts count as seen where they are a whole training text


def seen_in(training: Iterable[str], texts: Sequence[str], code: str) -> list[bool]:
    """For each text, whether it (or a long run of it) stands in a training text; `code` is their language.

    The training text is read once and not held; of `texts`, hashes are.
    """
    longest = sizes(code)[0]
    by_size: dict[int, list[tuple[Hashes, int]]] = {}
    keys: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        of = units(text, code)
        size = min(len(of), longest)
        if size >= SHORTEST:
            by_size.setdefault(size, []).append((ngrams(of, size), number))
        keys.setdefault(text_key(text), []).append(number)
    tables = {}
    for size, parts in by_size.items():
        grams = np.concatenate([grams for grams, _ in parts])
        owners = np.repeat([number for _, number in parts], [len(grams) for grams, _ in parts])
        order = np.argsort(grams, kind="stable")
        tables[size] = (grams[order], owners[order])
    seen = np.zeros(len(texts), dtype=bool)
    for text in training:
        for number in keys.get(text_key(text), ()):
            seen[number] = True
        of = units(text, code)
        for size, (grams, owners) in tables.items():
            if len(of) >= size:
                mine = np.unique(ngrams(of, size))
                begin, end = np.searchsorted(grams, mine, "left"), np.searchsorted(grams, mine, "right")
                for a, b in zip(begin[end > begin], end[end > begin], strict=True):
                    seen[owners[a:b]] = True
    return [bool(one) for one in seen]
