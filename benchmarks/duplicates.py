"""Planted duplicates, found or not, as a table: `python benchmarks/duplicates.py [-o docs/benchmarks-duplicates.md]`.

Texts of made-up words (English-like with spaces, Thai-like without) get copies in which a share of the words is
replaced, left out or followed by another one. A copy counts as a duplicate if its Jaccard similarity to the original,
worked out from the shingles as strings, is 0.8 or more. Copies lie in the same file, in another source, or are
compared with a held-out set.
"""

import argparse
import gzip
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

from langgraft.corpus.dedup import Index
from langgraft.corpus.document import Input
from langgraft.corpus.near import folded
from langgraft.corpus.prepare import prepare
from langgraft.progress import Log

RATES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.2)
SYLLABLES = {
    "en": [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er")],
    "th": [chr(0x0E01 + i) + vowel for i in range(40) for vowel in ("\u0e32", "\u0e34", "\u0e39", "")],
}


def made_up(rng: random.Random, code: str, words: int) -> list[str]:
    return ["".join(rng.choices(SYLLABLES[code], k=rng.randint(1, 3))) for _ in range(words)]


def edited(rng: random.Random, code: str, words: list[str], rate: float) -> list[str]:
    out = []
    for word in words:
        kind = rng.choice("rdi") if rng.random() < rate else ""
        out += {"": [word], "r": made_up(rng, code, 1), "d": [], "i": [word, *made_up(rng, code, 1)]}[kind]
    return out


def alike(a: str, b: str, code: str) -> float:
    """Jaccard similarity of two texts, from strings."""

    def parts(text: str) -> set[str]:
        units, n = (folded(text).split(), 3) if code == "en" else (list(folded(text).replace(" ", "")), 5)
        return {" ".join(units[i : i + n]) for i in range(max(1, len(units) - n + 1))}

    left, right = parts(a), parts(b)
    return len(left & right) / len(left | right)


def dropped(originals: list[str], copies: list[str], code: str, folder: Path, across: bool) -> set[str]:
    """The texts that `prepare` drops as duplicates when the copies come after the originals."""
    files = [(folder / "a.jsonl", originals), (folder / "b.jsonl", copies)]
    if not across:
        files = [(folder / "a.jsonl", originals + copies)]
    for path, texts in files:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    inputs = [Input(str(path), name=path.stem) for path, _ in files]
    prepare(inputs, folder / "out", language=code, log=Log(quiet=True))
    with gzip.open(folder / "out/target/dropped.jsonl.gz", "rt", encoding="utf-8") as file:
        return {row["text"] for row in map(json.loads, file) if row["reason"] in ("duplicate", "near_duplicate")}


def table(code: str, where: str, documents: int) -> list[str]:
    """One row for each edit rate, and the total."""
    rng = random.Random(f"{code} {where}")
    originals, copies = [], []
    joint = " " if code == "en" else ""
    for _ in range(documents):
        words = made_up(rng, code, rng.randint(20, 300))
        originals.append(joint.join(words))
        copies.append([joint.join(edited(rng, code, words, rate)) for rate in RATES])
    counts: Counter[tuple[str, float]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        # One run for each rate: a copy then has only its original to be alike to.
        for i, rate in enumerate(RATES):
            texts = [of[i] for of in copies]
            if where == "held-out set":
                repeats = Index(originals, code).repeats(texts)
                gone = {text for text, repeated in zip(texts, repeats, strict=True) if repeated}
            else:
                gone = dropped(originals, texts, code, Path(name), where == "another source")
            for original, text in zip(originals, texts, strict=True):
                # An exact copy is the same text as the original: only one of the two is dropped.
                wanted, found = alike(original, text, code) >= 0.8, text in gone
                counts["wanted", rate] += wanted
                counts["found", rate] += found
                counts["right", rate] += wanted and found
    rows = [(f"{rate:.1%}", [counts[kind, rate] for kind in ("wanted", "found", "right")]) for rate in RATES]
    rows.append(("all", [sum(row[1][k] for row in rows) for k in range(3)]))
    return [
        f"| {code} | {where} | {rate} | {documents * (len(RATES) if rate == 'all' else 1):,} | {wanted:,} | {found:,} "
        f"| {right / found if found else 1:.3f} | {right / wanted if wanted else 1:.3f} |"
        for rate, (wanted, found, right) in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--documents", type=int, default=200)
    given = parser.parse_args()
    page = [
        "# Planted duplicates\n\nMade by `benchmarks/duplicates.py`, which says how they are planted.\n",
        "| language | copies in | words edited | copies | alike (0.8) | dropped | precision | recall |",
        "|" + "---|" * 8,
    ]
    for code in SYLLABLES:
        for where in ("the same file", "another source", "held-out set"):
            page += table(code, where, given.documents)
    text = "\n".join(page) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
