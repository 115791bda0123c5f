"""The page of a prepared corpus: sizes, sources, licences, what was dropped with texts, lengths, samples."""

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langgraft.errors import CorpusError
from langgraft.evaluation.charts import Bar, bar_chart
from langgraft.evaluation.page import Table, template
from langgraft.evaluation.words import direction, number, percent, size
from langgraft.store import atomic_write, read_json
from langgraft.text import language, languages

SAMPLES, SAMPLE_CHARACTERS = 4, 400
EXAMPLES, LANGUAGES = 3, 10
# What is dropped by rule, in words; a quality filter is named as it is.
REASONS = {
    "duplicate": "repeats an earlier document",
    "near_duplicate": "nearly repeats an earlier document",
    "script": "another script",
    "language": "another language",
    "written_chinese": "written Chinese, not Cantonese",
    "cantonese": "Cantonese, not written Chinese",
    "romanised": "the language in Latin letters",
    "contaminated": "overlaps with an evaluation set",
    "boilerplate": "a line that many documents share",
    "unreadable": "damaged text",
    "empty": "nothing left after cleaning",
    "too_short": "too short",
}


def write_page(folder: Path) -> None:
    """Write `corpus.html` into a folder that `corpus.prepare` wrote; it asks the network for nothing.

    Raises:
        CorpusError: nothing was prepared there, or a split is damaged.
        DiskFullError: no space is left; an older page is untouched.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise CorpusError(f"{folder} holds no summary.json; prepare a corpus there first")
    summary = read_json(folder / "summary.json")
    samples = {
        side: list(itertools.islice(_texts(folder / side / "train.jsonl.gz"), SAMPLES))
        for side in ("target", "source")
        if summary.get(side)
    }
    atomic_write(folder / "corpus.html", render(summary, samples))


def render(summary: dict[str, Any], samples: dict[str, list[dict[str, str]]]) -> str:
    """The page for what `corpus.prepare` returned, with some documents of each side."""
    sides = [_side(side, summary[side], samples.get(side, [])) for side in ("target", "source") if summary.get(side)]
    target = summary["target"]
    kept = sum(split["documents"] for split in target["splits"].values())
    bytes_ = sum(split["bytes"] for split in target["splits"].values())
    name = language(target["language"]).name
    return template("corpus.html").render(
        title=f"{name} corpus",
        headline=f"{kept:,} documents of {name} text, {size(bytes_)}, "
        f"{percent(kept / target['documents']['read'])} of the {target['documents']['read']:,} that were read.",
        unknown=sorted(
            {row["source"] for side in ("target", "source") for row in _sources(summary, side) if not row["license"]}
        ),
        sides=sides,
    )


def _sources(summary: dict[str, Any], side: str) -> list[dict[str, Any]]:
    return list((summary.get(side) or {}).get("source_table", []))


def _side(side: str, facts: dict[str, Any], samples: list[dict[str, str]]) -> dict[str, Any]:
    known = language(facts["language"])
    return {
        "id": side,
        "name": known.name,
        "lang": known.code,
        "dir": direction(known.code, known.scripts, ""),
        "facts": _facts(facts),
        "splits": Table(
            "Splits",
            (("Split", "text"), ("Documents", "number"), ("Characters", "number"), ("Bytes", "number")),
            tuple(
                (name, *(number(part[key]) for key in ("documents", "characters", "bytes")))
                for name, part in facts["splits"].items()
            ),
        ),
        "sources": Table(
            "Sources and licences",
            (("Source", "text"), ("Licence", "text"), ("Documents", "number"), ("Bytes", "number")),
            tuple(
                (row["source"], row["license"] or "unknown", number(row["documents"]), number(row["bytes"]))
                for row in facts["source_table"]
            ),
        ),
        "languages": _languages(facts),
        "lengths": _lengths(f"lengths-{side}", facts["lengths"]),
        "dropped": [_reason(reason, row, facts) for reason, row in facts["dropped"].items()],
        "lines": [_reason(reason, row, facts, lines=True) for reason, row in facts["dropped_lines"].items()],
        "samples": [
            {"id": row["id"], "text": row["text"][:SAMPLE_CHARACTERS] + "…" * (len(row["text"]) > SAMPLE_CHARACTERS)}
            for row in samples
        ],
    }


def _reason(code: str, row: dict[str, Any], facts: dict[str, Any], *, lines: bool = False) -> dict[str, Any]:
    """A reason for which documents (or lines of kept ones) were left out, with the first of them."""
    documents = f"{number(row['documents'])} document{'s' * (row['documents'] != 1)}"
    share = percent(row["documents"] / max(facts["documents"]["read"], 1))
    return {
        "code": code,
        "words": REASONS.get(code) or f"quality filter{_bounds(code, facts)}",
        "count": f"{number(row['lines'])} lines of {documents}" if lines else f"{documents}, {share}",
        "examples": [
            {"id": example["id"], "text": example["text"], "note": _note(example)}
            for example in row["examples"][:EXAMPLES]
        ],
    }


def _bounds(name: str, facts: dict[str, Any]) -> str:
    low, high = (facts.get("filters") or {}).get("bounds", {}).get(name, (None, None))
    parts = ([] if low is None else [f"at least {low:g}"]) + ([] if high is None else [f"at most {high:g}"])
    return f": {' and '.join(parts)}" if parts else ""


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    near, filters, documents = facts["near_duplicates"], facts["filters"], facts["documents"]
    dropped = {reason: row["documents"] for reason, row in facts["dropped"].items()}
    masked = ", ".join(f"{kind} {number(n)}" for kind, n in facts["masked"].items())
    protected = facts["evaluation_texts"]
    found = (
        ("Read", number(documents["read"])),
        ("Kept", number(documents["kept"])),
        ("Exact duplicates", number(dropped.get("duplicate", 0))),
        ("Near duplicates", _near(near)),
        ("Evaluation texts kept out", number(protected) if protected else ""),
        ("Cut at the longest length", number(documents["truncated"]) if documents["truncated"] else ""),
        ("Quality filters", filters["origin"] if filters else "not used"),
        ("Personal data masked", (masked or "none found") if facts["mask"] else "not looked for"),
    )
    return [(label, value) for label, value in found if value]


def _near(near: dict[str, int]) -> str:
    if not near["dropped"]:
        return "0"
    return f"{number(near['dropped'])} in {number(near['clusters'])} clusters, the largest of {number(near['largest'])}"


def _languages(facts: dict[str, Any]) -> Table | None:
    """What languages the text that was read is in, where the summary says it."""
    mix = facts["languages"]
    if not mix:
        return None
    rows = tuple(
        (_named(code), number(row["characters"]), percent(row["share"]))
        for code, row in itertools.islice(mix.items(), LANGUAGES)
    )
    return Table("Languages read", (("Language", "text"), ("Characters", "number"), ("Share", "number")), rows)


def _named(code: str) -> str:
    if code == "und":
        return "cannot be told"
    return languages()[code].name if code in languages() else code


def _lengths(name: str, lengths: dict[str, int]) -> Any:
    """Histogram of documents by length in characters; each bar doubles the length."""
    if not lengths:
        return None
    low, high = min(map(int, lengths)), max(map(int, lengths))
    bars = [Bar(f"{1 << max(bits - 1, 0):,}", "adapted", lengths.get(str(bits), 0)) for bits in range(low, high + 1)]
    groups = [("characters, from", bars)]
    return bar_chart(name, "Documents by length", "documents", groups, width=420, write=lambda n: f"{n:,.0f}")


def _note(example: dict[str, str]) -> str:
    if "duplicate_of" in example:
        return f"repeats {example['duplicate_of']}"
    return f"measured {example['measured']}" if "measured" in example else ""


def _texts(path: Path) -> Iterator[dict[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, json.JSONDecodeError) as error:
        raise CorpusError(f"{path} is damaged: {error}; prepare the corpus again") from error
