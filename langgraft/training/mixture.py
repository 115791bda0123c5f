"""Rows of several packed sources, each with its share of the tokens, in an order that needs no state.

A mixture is a folder with one packed folder for each source and `mixture.json`, which names them and their shares.
Row `i` comes from the source that `corpus.mix.source_at` gives, so every stretch of training holds every source in
its share, and a run that resumes reads the rows it would have read. With `curriculum.json` beside it, shares depend on
the position in the run (`corpus.curriculum`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langgraft.corpus.curriculum import Curriculum, Points
from langgraft.corpus.mix import by_temperature, source_at, tokens
from langgraft.errors import CorpusError
from langgraft.store import read_json, write_json
from langgraft.training.conversations import Conversations, is_packed_chat
from langgraft.training.packing import Packed, Row

_FILE, _CURRICULUM = "mixture.json", "curriculum.json"


def write_mixture(
    folder: Path,
    sources: Mapping[str, Path],
    *,
    budget: int,
    shares: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    max_epochs: float | None = None,
    curriculum: Points = (),
    order: str = "shuffled",
) -> dict[str, dict[str, float]]:
    """Write `folder/mixture.json` for packed folders that lie in `folder`; returns what each source gives.

    Args:
        sources: name -> packed folder, directly in `folder`.
        budget: places (tokens and ends of documents) that will be trained on.
        shares: share of each source, on any scale; 0 leaves it out. None takes them from the sizes.
        temperature: for shares from the sizes: 1 is natural, more is closer to equal.
        max_epochs: most often that a source is repeated; None sets no limit.
        curriculum: (position in the run, shares) instead of `shares` and `temperature`.
        order: of the documents of each source, as `Packed` has it.

    Returns:
        For each source its `tokens` on disk, `share` of the training, and `epochs`.

    Raises:
        CorpusError: the sources do not have the budget within `max_epochs`, or as `mix.tokens` and `curriculum`.
    """
    facts = {name: read_json(path / "packed.json") for name, path in sources.items()}
    sizes = {name: row["tokens"] + row["documents"] for name, row in facts.items()}
    limit = max_epochs if max_epochs is not None else float("inf")
    if curriculum:
        found = _by_position(sizes, curriculum, budget, limit)
    else:
        found = tokens(sizes, dict(shares) if shares else by_temperature(sizes, temperature), budget, limit)
    have = sum(found.values())
    if have < 0.999 * budget:
        raise CorpusError(
            f"mixture: training takes {budget:,} tokens of text, but the sources give {round(have):,} when none is "
            f"repeated more than {max_epochs:g} times; train on fewer tokens, raise max_epochs, or add text"
        )
    parts: dict[str, dict[str, float]] = {
        name: {
            "tokens": facts[name]["tokens"],
            "share": found[name] / have,
            "epochs": round(found[name] / sizes[name], 4),
        }
        for name in sizes
    }
    rows = {name: {"folder": sources[name].name, "order": order, **part} for name, part in parts.items()}
    if curriculum:
        points = [{"at": at, "shares": dict(of)} for at, of in curriculum]
        write_json(folder / _CURRICULUM, {"places": budget, "points": points})
    else:
        (folder / _CURRICULUM).unlink(missing_ok=True)
    write_json(folder / _FILE, rows)
    return parts


def _by_position(sizes: Mapping[str, float], points: Points, budget: int, limit: float) -> dict[str, float]:
    """Places of each source under a curriculum.

    Raises:
        CorpusError: a source would be repeated more often than `limit`, which cannot be made good by others without
            changing the curriculum.
    """
    course = Curriculum(points, budget)
    found = {name: course.total(name) if name in course.names else 0.0 for name in sizes}
    for name, size in sizes.items():
        if found[name] > limit * size * 1.001:
            raise CorpusError(
                f"curriculum: source {name} would be read {found[name] / size:.2f} times, more than max_epochs = "
                f"{limit:g}; give it smaller shares, train on fewer tokens, or raise max_epochs"
            )
    return found


class Mixture:
    """Reads rows of a mixture; `row(i)` is a pure function of (folder, length, seed, i)."""

    masked = False

    def __init__(self, folder: Path, *, length: int, seed: int) -> None:
        parts: dict[str, Any] = read_json(folder / _FILE)
        self._shares = {name: float(part["share"]) for name, part in parts.items() if part["share"] > 0}
        self._packed = {
            name: Packed(folder / part["folder"], length=length, seed=seed, order=part.get("order", "shuffled"))
            for name, part in parts.items()
            if name in self._shares
        }
        self._course: Curriculum | None = None
        if (folder / _CURRICULUM).is_file():
            course = read_json(folder / _CURRICULUM)
            points = [(point["at"], point["shares"]) for point in course["points"]]
            self._course = Curriculum(points, course["places"] / length)
        self.bytes_per_place = sum(
            share * self._packed[name].bytes_per_place for name, share in self._shares.items()
        ) / sum(self._shares.values())

    def row(self, index: int) -> Row:
        """Row `index`; sources are repeated without end."""
        name, own = self._course.source_at(index) if self._course else source_at(index, self._shares)
        return self._packed[name].row(own)


def open_rows(folder: Path, *, length: int, seed: int) -> Packed | Mixture | Conversations:
    """The rows of a packed folder, of text or conversations, or of a mixture."""
    if is_packed_chat(folder):
        return Conversations(folder, length=length, seed=seed)
    kind = Mixture if (folder / _FILE).is_file() else Packed
    return kind(folder, length=length, seed=seed)


def packed_tokens(folder: Path) -> int:
    """Tokens of a packed folder, or of all sources of a mixture."""
    names = [part["folder"] for part in read_json(folder / _FILE).values()] if (folder / _FILE).is_file() else ["."]
    return sum(int(read_json(folder / name / "packed.json")["tokens"]) for name in names)
