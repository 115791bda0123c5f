"""The data card of a prepared corpus: README.md as the hub reads it, and the same facts as card.json."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraft.corpus.split import SPLITS
from langgraft.errors import CorpusError
from langgraft.store import atomic_write, read_json, sha256_file, write_json
from langgraft.text import language

# Licence ids as the hub knows them, by their SPDX name in small letters; others are "other" in the metadata.
HUB_LICENSES = frozenset(
    (
        *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "apache-2.0", "mit", "odc-by", "odbl", "pddl"),
        *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "bsd-2-clause", "bsd-3-clause"),
        *("gfdl", "unlicense", "wtfpl", "isc", "artistic-2.0", "cdla-permissive-2.0", "cdla-sharing-1.0"),
    )
)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGE = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))


def hub_license(name: str) -> str:
    """The hub's id of a licence, "other" for one it does not list, "unknown" where none was given."""
    bare = name.strip().lower().replace(" ", "-").removesuffix("-only").removesuffix("-or-later").removesuffix("+")
    if bare in ("", "unknown"):
        return "unknown"
    return bare if bare in HUB_LICENSES else "other"


def card_facts(folder: Path) -> dict[str, Any]:
    """The facts of the corpus in `folder` (what `prepare` wrote), as JSON values.

    Raises:
        CorpusError: nothing was prepared there, or by an older version.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise CorpusError(f"{folder} holds no summary.json; prepare a corpus there first")
    summary = read_json(folder / "summary.json")
    sides = {side: summary[side] for side in ("target", "source") if summary.get(side)}
    if any("source_table" not in facts for facts in sides.values()):
        raise CorpusError(f"{folder} was prepared by an older langgraft; prepare it again")
    rows = [{"side": side, **row} for side, facts in sides.items() for row in facts["source_table"]]
    documents = sum(row["documents"] for row in rows)
    files = {
        f"{side}/{name}.jsonl.gz": sha256_file(folder / side / f"{name}.jsonl.gz")
        for side in sides
        for name in SPLITS
        if sides[side]["splits"][name]["documents"]
    }
    return {
        "languages": [facts["language"] for facts in sides.values()],
        "licenses": sorted({hub_license(row["license"]) for row in rows}),
        "unknown_licenses": sorted({row["source"] for row in rows if hub_license(row["license"]) == "unknown"}),
        "size_category": next((name for most, name in (*_SIZES, *_LARGE) if documents < most), "1B<n<10B"),
        "documents": documents,
        "sources": rows,
        "splits": {side: facts["splits"] for side, facts in sides.items()},
        "read": {side: facts["documents"]["read"] for side, facts in sides.items()},
        "dropped": {
            side: {reason: row["documents"] for reason, row in facts["dropped"].items()}
            for side, facts in sides.items()
        },
        "filters": {side: facts["filters"] for side, facts in sides.items()},
        "dropped_lines": {
            side: {reason: row["lines"] for reason, row in facts["dropped_lines"].items()}
            for side, facts in sides.items()
        },
        "masked": {side: facts["masked"] for side, facts in sides.items()},
        "mask": {side: facts["mask"] for side, facts in sides.items()},
        "evaluation_texts": {side: facts["evaluation_texts"] for side, facts in sides.items()},
        "seed": summary["seed"],
        "sha256": files,
    }


def write_card(folder: Path) -> dict[str, Any]:
    """Write README.md and card.json into a prepared corpus; returns the facts.

    Raises:
        CorpusError: as `card_facts`.
    """
    facts = card_facts(folder)
    write_json(Path(folder) / "card.json", facts)
    atomic_write(Path(folder) / "README.md", data_card(facts))
    return facts


def data_card(facts: Mapping[str, Any]) -> str:
    """README.md of a data set: hub metadata as front matter, then what `card_facts` found."""
    names = [language(code).name for code in facts["languages"]]
    parts = [
        f"---\n{_metadata(facts)}\n---",
        f"# {' and '.join(names)} text",
        _warning(facts["unknown_licenses"]),
        f"{facts['documents']:,} documents, cleaned, deduplicated and split by document with langgraft "
        f"(seed {facts['seed']}). Every line has `text`, `id`, `language`, `source` and `license`.",
        "## Sources",
        _table(
            ("source", "language", "licence", "documents", "characters", "bytes"),
            [
                (
                    row["source"], _language_of(facts, row["side"]), row["license"] or "**unknown**",
                    *(f"{row[key]:,}" for key in ("documents", "characters", "bytes")),
                )
                for row in facts["sources"]
            ],
        ),
        "## Splits",
        _table(
            ("file", "documents", "characters", "bytes", "sha256"),
            [
                (f"`{side}/{name}.jsonl.gz`", *(f"{size[key]:,}" for key in ("documents", "characters", "bytes")),
                 f"`{facts['sha256'][f'{side}/{name}.jsonl.gz']}`")
                for side, splits in facts["splits"].items()
                for name, size in splits.items()
                if size["documents"]
            ],
        ),
        "## Left out",
        _dropped(facts),
        "## Personal data",
        _personal(facts),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(facts: Mapping[str, Any]) -> str:
    from huggingface_hub import DatasetCardData

    configs = [
        {
            "config_name": side,
            "default": side == "target",
            "data_files": [
                {"split": {"dev": "validation"}.get(name, name), "path": f"{side}/{name}.jsonl.gz"}
                for name, size in splits.items()
                if size["documents"]
            ],
        }
        for side, splits in facts["splits"].items()
    ]
    data = DatasetCardData(
        language=list(dict.fromkeys(facts["languages"])),
        license=facts["licenses"],
        size_categories=[facts["size_category"]],
        task_categories=["text-generation"],
        tags=["langgraft"],
        configs=configs,
    )
    return str(data.to_yaml()).strip()


def _language_of(facts: Mapping[str, Any], side: str) -> str:
    return str(facts["languages"][list(facts["splits"]).index(side)])


def _warning(unknown: Sequence[str]) -> str:
    if not unknown:
        return ""
    return f"> **Licence unknown: {', '.join(map(_inline, unknown))}.** Find it out before you share this data."


def _dropped(facts: Mapping[str, Any]) -> str:
    lines = []
    for side, reasons in facts["dropped"].items():
        name, left_out = language(_language_of(facts, side)).name, sum(reasons.values())
        lines.append(f"{name}: {left_out:,} of {facts['read'][side]:,} documents.")
        if reasons:
            lines.append(_table(("reason", "documents"), [(reason, f"{n:,}") for reason, n in reasons.items()]))
        parts = ", ".join(f"{reason} {n:,}" for reason, n in facts["dropped_lines"][side].items())
        if parts:
            lines.append(f"Lines left out of other documents: {parts}.")
        filters = facts["filters"][side]
        if facts["evaluation_texts"][side]:
            lines.append(f"Kept apart from {facts['evaluation_texts'][side]:,} texts of evaluation sets.")
        if filters:
            lines.append(f"Quality filters: {_inline(filters['origin'])}; the bounds are in `card.json`.")
    return "\n\n".join(lines)


def _personal(facts: Mapping[str, Any]) -> str:
    total: Counter[str] = Counter()
    for counts in facts["masked"].values():
        total.update(counts)
    kinds = sorted({kind for wanted in facts["mask"].values() for kind in wanted})
    if not kinds:
        return "Personal data was not looked for and not masked."
    found = ", ".join(f"{kind} {n:,}" for kind, n in sorted(total.items())) or "none found"
    return (
        f"Masked by pattern and checksum ({', '.join(kinds)}): {found}. Names, addresses of places and "
        "what else identifies a person by its meaning are not masked."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_inline(cell) for cell in line) + " |" for line in lines)


def _inline(text: object) -> str:
    """Text that cannot break a table or start a new block."""
    return " ".join(str(text).split()).replace("|", "\\|")
