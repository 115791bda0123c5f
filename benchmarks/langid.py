"""How well languages are told apart, written into docs/langid.md.

    python benchmarks/langid.py MATERIALS [--sentences N] [--page docs/langid.md] [--show N]

MATERIALS holds one folder per language code with `*.jsonl.gz` files of `{"text": ...}` and, in `parallel/`, of
`{"en": ..., CODE: ...}`. Texts are cut into sentences; those with fewer than 24 letters outside addresses and
identifiers (a Han character or kana counts as three) say too little and are left out, except in the tables for
Chinese, which take every sentence with a Han character. The rules were written with the files of `APART` closed.

`pip install canto-filter` adds a table in which that filter, and not our own markers, says which sentences are
Cantonese, written Chinese, mixed or neutral. `--show N` prints N wrong sentences of each file that is not apart.

Ends with status 1 if a figure misses `TARGETS`.
"""

import argparse
import gzip
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from langgraft.corpus.langid import MIN_LETTERS, Identifier, identify, prose, weight
from langgraft.corpus.langid_model import load_model
from langgraft.corpus.langid_rules import chinese_markers
from langgraft.text import languages

PAGE = Path(__file__).parent.parent / "docs" / "langid.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
# Pair files of prose; the others are strings of user interfaces, which hold as much English as anything.
PAIRS = ("tatoeba", "iot_course", "debian_handbook", "installation_guide", "hf_course")
# No rule or threshold was changed after looking at sentences of these; an earlier form of this script left them out.
APART = ("tatoeba", "iot_course_MT", "chat_chatterbot", "mediawiki_ui")
CHINESE = ("yue", "zh")
KINDS = ("cantonese", "mandarin", "mixed", "neutral")
TARGETS = {"prose": 0.99, "cantonese": 0.85, "taken": 0.02}

# A Thai text has no sentence ends; its spaces stand between clauses, so lines serve.
ENDS = re.compile(r"\n+|(?<=[.!?؟۔])\s+|(?<=[。！？।॥])")
HAN = re.compile(r"[\u3400-\u9fff]")


@dataclass
class Row:
    """What one file's sentences were taken for; `lid176` counts those that lid.176 alone gets right."""

    code: str
    name: str
    sentences: list[str]
    labels: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    lid176: int = 0
    seconds: float = 0.0

    @property
    def apart(self) -> bool:
        return any(name in self.name for name in APART)

    @property
    def mixed(self) -> bool:
        """Whether the file is said to hold Cantonese and written Chinese: no test of either."""
        return mixed(self.name)

    def judge(self, show: int) -> None:
        identifier, model = Identifier(self.code), load_model()
        start = time.process_time()
        found = [identify(text).language or "none" for text in self.sentences]
        self.seconds = time.process_time() - start
        self.labels.update(found)
        self.kept = sum(identifier.check(text).keep for text in self.sentences)
        first = (model.candidates(text)[:1] for text in self.sentences)
        self.lid176 = sum(bool(best) and best[0][0] == self.code for best in first)
        if not self.apart:
            wrong = [
                f"  {got} {text[:160]}" for got, text in zip(found, self.sentences, strict=True) if got != self.code
            ]
            print("\n".join(wrong[:show]), end="\n" if show and wrong else "")


def mixed(name: str) -> bool:
    return name.endswith("_mixed")


def texts_of(path: Path, code: str) -> list[str]:
    packed = path.read_bytes()
    rows = [json.loads(line) for line in (gzip.decompress(packed) if path.suffix == ".gz" else packed).splitlines()]
    turns = [turn["content"] for row in rows for turn in row.get("messages", ())]
    return turns + [text for row in rows if isinstance(text := row.get("text", row.get(code)), str)]


def sentences(path: Path, code: str) -> list[str]:
    """Every sentence of a file, without empty ones."""
    return [sentence.strip() for text in texts_of(path, code) for sentence in ENDS.split(text) if sentence.strip()]


def sample(found: list[str], limit: int) -> list[str]:
    return random.Random(0).sample(found, limit) if len(found) > limit else found


def files(materials: Path) -> list[tuple[str, str, Path]]:
    """(language, name, path) of every file of prose; the English of pairs stands beside that of the other side."""
    found = [
        (path.parent.name, f"{path.parent.name}/{path.name.split('.')[0]}", path)
        for path in sorted(materials.glob("*/*.jsonl*"))
        if path.parent.name in languages() and ("chat_" not in path.name or path.parent.name == "zh")
    ]
    for path in sorted(materials.glob("*/parallel/*.jsonl*")):
        code, name = path.parts[-3], path.name.split(".")[0]
        if name.startswith(PAIRS) or code == "yue":
            found.append((code, f"{code}/parallel/{name}", path))
            if name.startswith("tatoeba"):
                found.append(("en", f"en of {code}/parallel/{name}", path))
    return found


def share(part: float, whole: float) -> str:
    return f"{part / whole:.4f}" if whole else "-"


def table(head: str, rows: list[list[str]]) -> list[str]:
    columns = head.split("|")
    ruler = "|".join(" --- " for _ in columns)
    return [f"| {' | '.join(map(str.strip, columns))} |", f"|{ruler}|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def by_language(rows: list[Row], apart: bool) -> list[str]:
    codes = list(dict.fromkeys(row.code for row in rows))
    lines = []
    for code in codes:
        of = [row for row in rows if row.code == code and row.apart == apart and not row.mixed]
        labels: Counter[str] = sum((row.labels for row in of), Counter())
        n, kept, alone = labels.total(), sum(row.kept for row in of), sum(row.lid176 for row in of)
        others = ", ".join(f"{label} {k}" for label, k in labels.most_common(4) if label != code)
        if n:
            lines.append(
                [code, str(len(of)), f"{n:,}", share(labels[code], n), share(kept, n), share(alone, n), others]
            )
    return table("language | files | sentences | identified | kept | lid.176 alone | taken for", lines)


def by_file(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        n, others = len(row.sentences), [f"{label} {k}" for label, k in row.labels.most_common(4) if label != row.code]
        name = row.name + (" (apart)" if row.apart else "")
        lines.append([name, f"{n:,}", share(row.labels[row.code], n), share(row.kept, n), ", ".join(others)])
    return table("file | sentences | identified | kept | taken for", lines)


def own_kind(text: str) -> str:
    cantonese, written = chinese_markers(text)
    if cantonese and written:
        return "mixed"
    return "cantonese" if cantonese else "mandarin" if written else "neutral"


def outside_kind() -> Callable[[str], str] | None:
    try:
        from cantofilter import judge
    except ImportError:
        return None
    return lambda text: str(judge(text))


def chinese(found: dict[str, list[str]], kind: Callable[[str], str]) -> tuple[list[str], dict[str, Counter[str]]]:
    """The table, and for "yue" and "zh" how many sentences of each kind there are and are taken as Cantonese."""
    lines, sums = [], {code: Counter[str]() for code in CHINESE}
    for name, every in found.items():
        counts: Counter[str] = Counter()
        for text in every:
            of, taken = kind(text), identify(text).language == "yue"
            counts.update({of: 1, f"{of} taken": taken, "all": 1, "all taken": taken})
        if not mixed(name):
            sums[name.split("/")[0]].update(counts)
        cells = [f"{counts[of]:,}: {share(counts[f'{of} taken'], counts[of])}" for of in (*KINDS, "all")]
        lines.append([name + (" (apart)" if any(part in name for part in APART) else ""), *cells])
    return table(f"file | {' | '.join(KINDS)} | all", lines), sums


def failures(rows: list[Row], chinese_sums: dict[str, Counter[str]]) -> list[str]:
    """What misses `TARGETS`, in words."""
    found = []
    for code in ("en", "fa", "hi", "ja", "th"):
        for apart in (False, True):
            of = [row for row in rows if row.code == code and row.apart == apart]
            right, n = sum(row.labels[code] for row in of), sum(len(row.sentences) for row in of)
            if n and right < TARGETS["prose"] * n:
                found.append(f"{code}{' apart' if apart else ''}: {share(right, n)} is below {TARGETS['prose']}")
    # Sentences without a marker count here, as nothing but our own markers may be at hand to tell them.
    long = [row for row in rows if row.code == "yue" and not row.mixed]
    right, n = sum(row.labels["yue"] for row in long), sum(len(row.sentences) for row in long)
    if n and right < TARGETS["cantonese"] * n:
        found.append(f"Cantonese of 8 Han characters or more: {share(right, n)} is below {TARGETS['cantonese']}")
    yue, zh = (chinese_sums[code] for code in CHINESE)
    if yue["cantonese taken"] < TARGETS["cantonese"] * yue["cantonese"]:
        found.append(f"Cantonese: {share(yue['cantonese taken'], yue['cantonese'])} is below {TARGETS['cantonese']}")
    if zh["all taken"] > TARGETS["taken"] * zh["all"]:
        found.append(f"written Chinese taken: {share(zh['all taken'], zh['all'])} is above {TARGETS['taken']}")
    return found


def report(rows: list[Row], han: dict[str, list[str]]) -> tuple[str, list[str]]:
    """The figures as Markdown, and what misses its target."""
    outside = outside_kind()
    own_lines, sums = chinese(han, own_kind)
    parts = ["### Sentences of the files the rules were developed on", "", *by_language(rows, apart=False)]
    parts += ["### Sentences of files kept apart", "", *by_language(rows, apart=True)]
    if outside:
        lines, sums = chinese(han, outside)
        yue, zh = (sums[code] for code in CHINESE)
        parts += ["### Cantonese and written Chinese, as canto-filter judges them", ""]
        parts += ["Number of sentences, and the share taken as Cantonese; sentences of any length.", "", *lines]
        parts += [
            f"Of {yue['cantonese']:,} sentences of the Cantonese files that canto-filter calls Cantonese, "
            f"{share(yue['cantonese taken'], yue['cantonese'])} come out as Cantonese; of all {zh['all']:,} sentences "
            f"of written Chinese {share(zh['all taken'], zh['all'])} do.",
            "",
        ]
    parts += ["### The same by our own markers", "", *own_lines]
    parts += ["### By file", "", *by_file(rows)]
    n, seconds = sum(len(row.sentences) for row in rows), sum(row.seconds for row in rows)
    parts.append(f"{n:,} sentences, {n / seconds:,.0f} a second in processor time of one thread.")
    return "\n".join(parts), failures(rows, sums)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("materials", type=Path)
    parser.add_argument("--sentences", type=int, default=1000, help="at most so many of each file")
    parser.add_argument("--page", type=Path, default=PAGE, help="write the figures into this page")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong sentences of each file")
    args = parser.parse_args()
    rows, han = [], {}
    for code, name, path in files(args.materials):
        every = sentences(path, code)
        row = Row(code, name, sample([t for t in every if weight(prose(t)) >= MIN_LETTERS], args.sentences))
        if code in CHINESE:
            han[name] = sample([text for text in every if HAN.search(text)], args.sentences)
        if row.sentences:
            print(name, flush=True)
            row.judge(args.show)
            rows.append(row)
    figures, missed = report(rows, han)
    before, _, rest = args.page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    args.page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")
    print(figures)
    for line in missed:
        print(f"MISSED: {line}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
