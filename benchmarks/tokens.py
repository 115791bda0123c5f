"""Tokens to disk against `tokenizers.encode_batch` alone: `python benchmarks/tokens.py NAME=TOKENIZER=TEXT,… …`.

Each argument names a language, the folder of a tokenizer and files of text, separated by commas. Writes
docs/benchmarks-tokens.md. Start it with RAYON_NUM_THREADS=1, so that both sides have one thread to encode in.

Both sides get the same documents, the files' own, repeated only where the files are smaller than the size wanted.
Rates are MB (10^6 bytes) of UTF-8 a second, medians of rounds in which the sides take turns; ratios are medians of
the rounds' own, with the lowest in brackets. `encode_batch` throws its result away: no ids are read out, nothing
is written. Ours reads the ids out, adds the marks of the format, and writes and flushes the files. Memory is the
peak of a process of its own that reads documents as they are needed.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from langgraft.corpus.document import Input, Report
from langgraft.corpus.indexed import write_indexed
from langgraft.corpus.readers import read
from langgraft.store import atomic_write
from langgraft.training.packing import pack

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-tokens.md"
SIZE, SIZES, ROUNDS = 12_000_000, (1_500_000, 6_000_000, 24_000_000), 5


def documents(files: str, size: int) -> Iterator[str]:
    """Documents of the files, again and again, up to `size` bytes."""
    done = 0
    while True:
        for document in read([Input(path) for path in files.split(",")], "und", Report()):
            if done >= size:
                return
            done += len(document.text.encode("utf-8"))
            yield document.text


def alone(tokenizer: Tokenizer, texts: list[str], out: Path) -> None:
    """What is measured against."""
    del out
    for start in range(0, len(texts), 1000):
        tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)


def packed(tokenizer: Tokenizer, texts: list[str], out: Path) -> None:
    """Our packed folder."""
    pack(tokenizer, texts, out, separator=0)


def indexed(tokenizer: Tokenizer, texts: list[str], out: Path) -> None:
    """Megatron's indexed dataset."""
    write_indexed(tokenizer, texts, out, eod=0, identity=out.name)


SIDES: dict[str, Callable[[Tokenizer, list[str], Path], None]] = {
    "encode_batch alone": alone,
    "packed, on disk": packed,
    "`.bin/.idx`, on disk": indexed,
}


def rates(folder: str, files: str) -> dict[str, list[tuple[float, float]]]:
    """MB a second of each side in each round, by the clock and by processor time."""
    texts = list(documents(files, SIZE))
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(ROUNDS):
            for name, side in sorted(SIDES.items(), reverse=number % 2 == 1):
                tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
                wall, cpu = time.perf_counter(), time.process_time()
                side(tokenizer, texts, Path(scratch) / f"{list(SIDES).index(name)}-{number}")
                taken = time.perf_counter() - wall, time.process_time() - cpu
                found[name].append((size / taken[0], size / taken[1]))
    return found


def growth(folder: str, files: str, size: int) -> dict[str, float]:
    """Seconds of processor time and peak memory of one process that writes `size` bytes of text as `.bin/.idx`."""
    command = [sys.executable, __file__, "--one", folder, files, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def one(folder: str, files: str, size: str) -> None:
    """The child of `growth`."""
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        cpu = time.process_time()
        write_indexed(tokenizer, documents(files, int(size)), Path(scratch) / "x", eod=0, identity="x")
        seconds = time.process_time() - cpu
    # Not `getrusage`: that begins with the memory of the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "mb": int(peak.split()[1]) / 1e3}))


def _against(ours: list[float], base: list[float]) -> str:
    shares = [one_rate / other for one_rate, other in zip(ours, base, strict=True)]
    return f"{statistics.median(ours):.2f}, {statistics.median(shares):.0%} ({min(shares):.0%})"


def page(found: dict[str, Any]) -> str:
    """The page, from what was measured."""
    lines = ["# Tokens to disk", "", (__doc__ or "").split("\n\n", 1)[1].strip(), ""]
    lines += [f"{SIZE // 10**6} MB of each text, {ROUNDS} rounds, one thread that encodes.", ""]
    for unit, which in (("processor time", 1), ("the clock", 0)):
        lines += [f"By {unit}, MB a second, and against `encode_batch`:", "", f"| | {' | '.join(SIDES)} |"]
        lines += ["| --- |" + " ---: |" * len(SIDES)]
        for name, facts in found.items():
            base, *ours = ([one_round[which] for one_round in facts["rates"][side]] for side in SIDES)
            cells = [f"{statistics.median(base):.2f}", *(_against(side, base) for side in ours)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["The clock counts what the disk and other programs on the machine take, and differs from run to run."]
    lines += [
        "",
        "Growth (`.bin/.idx`, reading included, processor time):",
        "",
        "| | MB of text | seconds | MB a second | peak memory |",
    ]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for name, facts in found.items():
        for size, one_size in facts["growth"].items():
            seconds = one_size["seconds"]
            mb = size / 1e6
            lines.append(f"| {name} | {mb:g} | {seconds:.1f} | {mb / seconds:.2f} | {one_size['mb']:.0f} MB |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure every argument and write the page."""
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
        return
    found = {}
    for argument in sys.argv[1:]:
        name, folder, files = argument.split("=", 2)
        sizes = {size: growth(folder, files, size) for size in SIZES}
        found[name] = {"rates": rates(folder, files), "growth": sizes}
        print(name, found[name], flush=True)
    atomic_write(PAGE, page(found))


if __name__ == "__main__":
    main()
