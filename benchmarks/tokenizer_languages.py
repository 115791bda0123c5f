"""Extend a base for several languages with the command, and measure on text from other sources.

    python benchmarks/tokenizer_languages.py --base BASE --materials FOLDER [--sizes 2048 8192] [--languages hi th]

FOLDER holds one folder per language code with `*.jsonl.gz` files of {"text"} to learn from, and `parallel/` with
files of {"en", CODE}; what is measured are the parallel files whose name is no name of a file learned from, so no
source is in both; with `--leave-one-out`, also each file when learning from the rest. `en/` is English text that
must keep its ids, and so must Python's own standard library.
Writes the table to docs/tokenizer-languages.md.
"""

import argparse
import gzip
import json
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langgraft.runs import versions
from langgraft.store import atomic_write
from langgraft.tokenizer.files import load

PAGE = Path(__file__).parent.parent / "docs" / "tokenizer-languages.md"
ENGLISH_BYTES = 5_000_000


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, compressed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def name_of(path: Path) -> str:
    """A file's name without its endings."""
    return path.name.partition(".")[0]


def learned_from(folder: Path) -> list[Path]:
    """The files of running text; conversations have no `text`."""
    return [path for path in sorted(folder.glob("*.jsonl*")) if "text" in next(rows(path))]


def other_sources(folder: Path, code: str, learned: list[Path]) -> dict[str, list[str]]:
    """Texts of the parallel files that share no name with a file learned from."""
    names = {name_of(path) for path in learned}
    found = {}
    for path in sorted((folder / "parallel").glob("*.jsonl*")):
        name = name_of(path)
        if name not in names:
            found[name] = [row[code] for row in rows(path)]
    return found


def changed(base: Any, extended: Any, texts: list[str]) -> int:
    """How many texts have other ids."""
    pairs = zip(base.encode_batch(texts), extended.encode_batch(texts), strict=True)
    return sum(a.ids != b.ids for a, b in pairs)


def tokens(tokenizer: Any, texts: list[str]) -> int:
    """Tokens of all texts."""
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))


def unchanged_text(materials: Path) -> dict[str, list[str]]:
    """English documents and Python files."""
    english: list[str] = []
    size = 0
    for path in learned_from(materials / "en"):
        for row in rows(path):
            if size < ENGLISH_BYTES and row["text"].isascii():
                english.append(row["text"])
                size += len(row["text"])
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return {"English": english, "Python": [path.read_text("utf-8") for path in library]}


def extend(base: Path, learned: list[Path], code: str, size: int, out: Path) -> dict[str, Any]:
    """Run the command; returns its summary."""
    command = [sys.executable, "-m", "langgraft.cli", "tokenizer", "extend", "--base", str(base)]
    command += [part for path in learned for part in ("--corpus", str(path))]
    command += ["--language", code, "--new-tokens", str(size), "-o", str(out), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{code}, {size}: the command ended with {done.returncode}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def row(
    options: argparse.Namespace,
    code: str,
    size: int,
    learned: list[Path],
    measured: dict[str, list[str]],
    fixed: dict[str, list[str]],
) -> tuple[str, float]:
    """Extend for one language and size; one row of the table, and the share of tokens saved."""
    base = load(options.base)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "tokenizer"
        summary = extend(options.base, learned, code, size, out)
        extended = load(out)
    counts = {name: (tokens(base, texts), tokens(extended, texts)) for name, texts in measured.items()}
    before, after = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
    gates = summary["gates"]
    cells = [
        code,
        f"{summary['new_tokens']:,}",
        f"**{1 - after / before:.1%}**",
        ", ".join(f"{name} {1 - b / a:.1%}" for name, (a, b) in counts.items()),
        f"{sum(gate['passed'] for gate in gates)} of {len(gates)}",
        *(f"{changed(base, extended, texts)} of {len(texts):,} changed" for texts in fixed.values()),
    ]
    return "| " + " | ".join(cells) + " |", 1 - after / before


def main() -> None:
    """Extend, measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--name", default="SmolLM2", help="what the page calls the base")
    parser.add_argument("--materials", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["hi", "th", "ja", "fa", "yue"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[2048, 8192])
    parser.add_argument("--leave-one-out", nargs="+", default=["yue"], help="also learn from all files but one")
    options = parser.parse_args()
    fixed = unchanged_text(options.materials)
    lines = ["| language | new tokens | fewer tokens | by source | gates | " + " | ".join(fixed) + " |"]
    lines.append("| --- | --- | --- | --- | --- |" + " --- |" * len(fixed))
    for code in options.languages:
        learned = learned_from(options.materials / code)
        measured = other_sources(options.materials / code, code, learned)
        runs = [(size, learned, measured) for size in options.sizes]
        if code in options.leave_one_out:
            for path in learned:
                others = [other for other in learned if other != path]
                held_out = {f"without {name_of(path)}: {name_of(path)}": [row["text"] for row in rows(path)]}
                runs += [(size, others, held_out) for size in options.sizes]
        left_out: dict[int, list[float]] = {}
        for size, files, texts in runs:
            line, saved = row(options, code, size, files, texts, fixed)
            lines.append(line)
            if files != learned:
                left_out.setdefault(size, []).append(saved)
            print(lines[-1], flush=True)
        for size, shares in left_out.items():
            of = f"mean of the {len(shares)} sources left out in turn"
            lines.append(f"| {code} | {size:,} | **{sum(shares) / len(shares):.1%}** | {of} |  |" + "  |" * len(fixed))
    found = versions()
    libraries = ", ".join(f"{name} {found[name]}" for name in ("tokenizers", "transformers") if name in found)
    heading = f"# {options.name}'s tokenizer, extended for other languages\n\n"
    where = f"Python {platform.python_version()}, {libraries}; {datetime.now(UTC):%Y-%m-%d}. "
    how = "Fewer tokens than the base's tokenizer, on text from sources that were not learned from.\n"
    atomic_write(PAGE, heading + where + how + "\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
