"""What a prepared corpus left out: every text with its reason, as `prepare` wrote it."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langgraft.errors import CorpusError
from langgraft.methods import suggest


def read_dropped(folder: Path, side: str) -> Iterator[dict[str, str]]:
    """Each text that `prepare` left out of a side ("target" or "source"): id, reason, text, and what the reason adds.

    With "part", the text is lines of a document that is kept.

    Raises:
        CorpusError: the file is missing or damaged.
    """
    path = Path(folder) / side / "dropped.jsonl.gz"
    if not path.exists():
        raise CorpusError(f"{path} does not exist; prepare a corpus into {folder} first")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (EOFError, OSError, json.JSONDecodeError) as error:
        raise CorpusError(f"{path} is damaged: {error}; prepare the corpus again") from error


def dropped(folder: Path, side: str = "target", *, reason: str | None = None, examples: int = 5) -> dict[str, Any]:
    """Counts by reason, most first, with the first texts of each: whole documents, and lines of kept ones.

    Args:
        folder: what `prepare` wrote, or the folder of a corpus stage.
        reason: only this one.
        examples: most texts of each reason.

    Returns:
        `{"dropped": {reason: {"documents", "lines", "examples"}}, "dropped_lines": the same}`.

    Raises:
        CorpusError: as `read_dropped`, or nothing was left out for `reason`.
    """
    folder = Path(folder)
    found: dict[str, dict[str, Any]] = {"dropped": {}, "dropped_lines": {}}
    for row in read_dropped(folder / "text" if (folder / "text").is_dir() else folder, side):
        reasons = found["dropped_lines" if "part" in row else "dropped"]
        of = reasons.setdefault(row["reason"], {"documents": 0, "lines": 0, "examples": []})
        of["documents"] += 1
        of["lines"] += row["text"].count("\n") + 1
        if len(of["examples"]) < examples and reason in (None, row["reason"]):
            of["examples"].append({key: value for key, value in row.items() if key not in ("reason", "part")})
    names = {name for reasons in found.values() for name in reasons}
    if reason is not None and reason not in names:
        known = suggest(reason, names) if names else "nothing was left out at all"
        raise CorpusError(f"nothing was left out of {folder} for the reason {reason}; {known}")
    return {
        kind: {
            name: reasons[name]
            for name in sorted(reasons, key=lambda name: (-reasons[name]["documents"], name))
            if reason in (None, name)
        }
        for kind, reasons in found.items()
    }
