"""The same two commands on a small tokenizer of every family: extend, then report with many fuzzed strings.

    python benchmarks/families.py [--corpus FILE_OR_GLOB ...] [--language yue] [--new-tokens 500] [--fuzz 100000]

The tokenizers are those of the tests (real algorithm, normaliser, pre-tokenizer, added tokens above the vocabulary and
padding rows; the originals cannot be shipped). Without --corpus the Cantonese text of the package pycantonese is read.
Writes the table to docs/families.md.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from langgraft.store import atomic_write

HERE = Path(__file__).parent.parent
sys.path[:0] = [str(HERE / "tests"), str(HERE / "tests" / "tokenizer")]
CORPUS = ["package:pycantonese/data/hkcancor"]


def command(*words: str) -> dict[str, Any]:
    """Run a command of langgraft; its summary."""
    line = [sys.executable, "-m", "langgraft.cli", "tokenizer", *words, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(words)}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def row(name: str, options: argparse.Namespace) -> str:
    """One line of the table."""
    from families import FAMILIES

    with tempfile.TemporaryDirectory() as scratch:
        base, out = Path(scratch) / "base", Path(scratch) / "extended"
        base.mkdir()
        FAMILIES[name](base)
        text = [word for path in options.corpus for word in ("--corpus", path)]
        code = ["--language", options.language]
        made = command(
            "extend", "--base", str(base), *text, *code, "--new-tokens", str(options.new_tokens), "-o", str(out)
        )
        text = [word for path in options.corpus for word in ("--text", path)]
        report = command(
            "report", "--base", str(base), "--extended", str(out), *text, *code, "--fuzz", str(options.fuzz)
        )
    gates = report["gates"]
    lossless = next(gate for gate in gates if gate["name"] == "lossless round trip")
    before, after = (made["fertility"][which]["tokens"] for which in ("base", "extended"))
    failed = [gate["name"] for gate in gates if not gate["passed"]]
    cells = [
        name,
        f"{made['new_tokens']:,}",
        f"{1 - after / before:.1%}",
        f"{len(gates) - len(failed)} of {len(gates)}" + (f" (**failed**: {', '.join(failed)})" if failed else ""),
        f"{lossless['value']} {lossless['detail']}".strip(),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run every family and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", default=CORPUS)
    parser.add_argument("--language", default="yue")
    parser.add_argument("--new-tokens", type=int, default=500)
    parser.add_argument("--fuzz", type=int, default=100_000)
    parser.add_argument("--families", nargs="*", help="only these; the page keeps the rows of the others")
    options = parser.parse_args()
    from families import FAMILIES

    lines = [
        "# Every family",
        "",
        f"Written by `benchmarks/families.py`: `langgraft tokenizer extend` ({options.new_tokens} new tokens, "
        f"`{options.language}`) and `langgraft tokenizer report --fuzz {options.fuzz}` on a small tokenizer of each "
        f"family. Python {platform.python_version()}, tokenizers {version('tokenizers')}, sentencepiece "
        f"{version('sentencepiece')}, transformers {version('transformers')}; {date.today()}.",
        "",
        "| family | new tokens | fewer tokens, held out | gates passed "
        "| round trip, lines of text and fuzzed strings |",
        "| --- | --- | --- | --- | --- |",
    ]
    page = HERE / "docs" / "families.md"
    written = page.read_text(encoding="utf-8").splitlines() if options.families and page.is_file() else []
    known = {line.split("|")[1].strip(): line for line in written if line.startswith("|")}
    for name in FAMILIES:
        if name in (options.families or FAMILIES):
            known[name] = row(name, options)
            print(known[name], flush=True)
    lines += [known[name] for name in FAMILIES if name in known]
    atomic_write(page, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
