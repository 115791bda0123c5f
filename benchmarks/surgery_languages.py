"""What surgery alone does to the old and the new language: one base, several languages, before any training.

    python benchmarks/surgery_languages.py BASE --english PATH --language yue=PATH --language hi=PATH ...
        [--new-tokens 2048] [--documents 100] [--init subword_mean] [--out docs/benchmarks-surgery-languages.md]

For each language the tokenizer is extended on its text (every twentieth document is held out), the model gets rows,
and every gate of `langgraft.surgery.verify` runs: old rows identical, reload from disk equal, bits per byte of both
languages. Exit 1 when one fails.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from langgraft.corpus.stream import texts_of
from langgraft.progress import Log
from langgraft.surgery.extend import ExtendedModel, extend_model
from langgraft.text import language
from langgraft.tokenizer.extend import extend

CHARACTERS = 1000
COLUMNS = (
    ("old rows bit-identical", "old rows"),
    ("old logits unchanged on source text", "largest change of a logit"),
    ("probability leaked to new rows", "probability of new rows, English"),
    ("bits per byte on source text", "English bits per byte"),
    ("bits per byte on target text", "its own bits per byte"),
    ("tied as in the base after reloading", "saved and reloaded"),
)


def short(texts: list[str], documents: int) -> list[str]:
    """The first characters of the first documents: some sources have whole chapters as documents."""
    return [text[:CHARACTERS] for text in texts[:documents]]


def one(base: Path, code: str, path: str, english: list[str], options: argparse.Namespace, root: Path) -> ExtendedModel:
    """Extend tokenizer and model for one language, and judge the result."""
    texts, known = texts_of([path], code), language(code)
    train = [text for i, text in enumerate(texts) if i % 20]
    extend(base, train, root / "tokenizer", language=known, new_tokens=options.new_tokens)
    return extend_model(
        base,
        root / "tokenizer",
        root / "model",
        init=options.init,
        source_texts=english,
        target_texts=short(texts[::20], options.documents),
        log=Log(),
    )


def row(code: str, made: ExtendedModel, seconds: float) -> str:
    """A line of the table."""
    gates = {gate.name: gate for gate in made.gates}
    cells = [("" if gates[name].passed else "FAILED ") + gates[name].value for name, _ in COLUMNS]
    passed = f"{sum(gate.passed for gate in made.gates)} of {len(made.gates)}"
    name = language(code).name
    return f"| {name} | {made.resized.new_tokens:,} | {' | '.join(cells)} | {passed} | {seconds:.0f} |"


def main() -> None:
    """Every language in turn, then the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("--english", required=True, help="English text the tokenizer has not learned from")
    parser.add_argument("--language", action="append", required=True, metavar="CODE=PATH")
    parser.add_argument("--new-tokens", type=int, default=2048)
    parser.add_argument("--documents", type=int, default=100, help="documents of each language to measure on")
    parser.add_argument("--init", default="subword_mean")
    default = Path(__file__).parent.parent / "docs" / "benchmarks-surgery-languages.md"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    english = short(texts_of([options.english], "en"), options.documents)
    rows, good = [], True
    for entry in options.language:
        code, _, path = entry.partition("=")
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="surgery-") as scratch:
            made = one(options.base, code, path, english, options, Path(scratch))
        rows.append(row(code, made, time.perf_counter() - start))
        good = good and made.passed
        print(rows[-1], flush=True)
    size = sum(len(text.encode("utf-8")) for text in english)
    lines = [
        "# Surgery alone, language by language",
        "",
        f"Written by `python benchmarks/surgery_languages.py`: init `{options.init}`, no training. English:",
        f"{len(english)} documents, {size:,} bytes; of each language at most {options.documents} held-out documents, "
        f"{CHARACTERS:,} characters of each.",
        "",
        f"| language | new tokens | {' | '.join(title for _, title in COLUMNS)} | gates passed | seconds |",
        f"| {' | '.join(['---'] * (len(COLUMNS) + 4))} |",
        *rows,
        "",
    ]
    options.out.write_text("\n".join(lines), encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
