"""Our corpus stage against a datatrove pipeline of equal steps, growth, memory.

`python benchmarks/corpus.py FILE... -o docs/benchmarks-corpus.md`

The files are JSON lines with a field `text`, in Thai unless `--language` says otherwise. Both sides read, repair
encodings (ftfy), check the language (lid.176, the same file for both), remove near duplicates (MinHash) and write
compressed JSON lines, with one process. datatrove runs with FineWeb's settings: 5-grams of words, 14 buckets of 8
hashes, and its own word tokenizer for the language. Needs `pip install "langgraft[datatrove]"`.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WORDS = {"th": "tha", "hi": "hin", "ja": "jpn", "fa": "fas", "en": "eng", "yue": "yue"}


def lines(files: list[str]) -> Iterator[bytes]:
    for name in files:
        with gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb") as file:
            yield from file


def sample(files: list[str], folder: Path, megabytes: float) -> Path:
    """At most so many megabytes of text, every n-th line, so that each size is the same kind of text."""
    total = sum(map(len, lines(files)))
    step, path, size = max(1.0, total / (megabytes * 1e6)), folder / "sample.jsonl", 0
    with path.open("wb") as out:
        for number, line in enumerate(lines(files)):
            if int(number / step) != int((number - 1) / step) and size + len(line) <= megabytes * 1e6:
                out.write(line)
                size += len(line)
    return path


def ours(path: Path, out: Path, language: str) -> None:
    from langgraft.corpus.document import Input
    from langgraft.corpus.prepare import prepare
    from langgraft.progress import Log

    summary = prepare([Input(str(path))], out, language=language, log=Log(quiet=True))
    print(json.dumps({"kept": summary["target"]["documents"]["kept"], "read": summary["target"]["documents"]["read"]}))


def datatrove(path: Path, out: Path, language: str) -> None:
    import logging

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.formatters import FTFYFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from loguru import logger

    from langgraft.corpus.langid import Identifier

    logger.remove()
    logging.disable()
    identifier, config, code = Identifier(language), MinhashConfig(), WORDS[language]
    clean, at = str(out / "clean"), lambda name: str(out / name)
    steps = [
        [
            JsonlReader(str(path.parent), glob_pattern=path.name),
            FTFYFormatter(normalization="NFC"),
            LambdaFilter(lambda document: identifier.check(document.text).keep),
            JsonlWriter(clean),
        ],
        [JsonlReader(clean), MinhashDedupSignature(at("signatures"), config=config, language=code)],
        [MinhashDedupBuckets(at("signatures"), at("buckets"), config=config)],
        [MinhashDedupCluster(at("buckets"), at("remove"), config=config)],
        [JsonlReader(clean), MinhashDedupFilter(at("remove")), JsonlWriter(at("kept"))],
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        for i, pipeline in enumerate(steps):
            tasks = config.num_buckets if i == 2 else 1
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=at(f"logs{i}")).run()
    kept = sum(1 for _ in lines([str(file) for file in (out / "kept").glob("*.gz")]))
    print(json.dumps({"kept": kept, "read": sum(1 for _ in lines([str(path)]))}))


def measured(side: str, path: Path, folder: Path, language: str) -> dict[str, float]:
    """Run one side in a process of its own; seconds of wall and processor time, peak memory in MB."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, __file__, "--side", side, "--language", language, "-o", str(folder / side), str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    # GNU time is not everywhere: a shell's child is asked for its own peak.
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    first, last = done.stdout.strip().splitlines()[-2:]
    return {"wall": wall, "cpu": cpu, "mb": float(last), **json.loads(first), "size": path.stat().st_size / 1e6}


def row(name: str, found: dict[str, float]) -> str:
    rate = found["size"] / found["cpu"]
    return (
        f"| {name} | {found['size']:.1f} | {found['read']:,} | {found['kept']:,} | {found['wall']:.1f} "
        f"| {found['cpu']:.1f} | {rate:.2f} | {found['mb']:.0f} |"
    )


HEAD = "| | MB | documents | kept | seconds | CPU seconds | MB per CPU second | peak MB |\n|" + "---|" * 8


def report(files: list[str], language: str, megabytes: float, sides: list[str]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = sample(files, folder, megabytes)
        found = {side: measured(side, path, folder, language) for side in sides}
        growth = []
        for share in (16, 4, 1):
            path = sample(files, folder, megabytes / share)
            growth.append(row(f"{16 // share}x", measured("ours", path, folder, language)))
    names = {"ours": "`langgraft corpus`", "datatrove": "datatrove"}
    table = [HEAD, *(row(names[side], found[side]) for side in sides)]
    times = ""
    if "datatrove" in found:
        wall, cpu = (found["datatrove"][key] / found["ours"][key] for key in ("wall", "cpu"))
        times = f"\nlanggraft takes {wall:.1f} times less time and {cpu:.1f} times less processor time.\n"
    return "\n".join(["## Against datatrove", "", *table, times, "## Growth and memory", "", HEAD, *growth, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--language", default="th")
    parser.add_argument("--megabytes", type=float, default=12.0)
    parser.add_argument("--side", choices=("ours", "datatrove"))
    parser.add_argument("--without-datatrove", action="store_true")
    given = parser.parse_args()
    if given.side:
        {"ours": ours, "datatrove": datatrove}[given.side](Path(given.files[0]), given.out, given.language)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    sides = ["ours"] if given.without_datatrove else ["ours", "datatrove"]
    introduction = (
        "# Benchmarks of the corpus stage\n\nMade by `benchmarks/corpus.py`. Both sides read JSON lines, repair "
        "encodings (ftfy), check the language (the same function), remove near duplicates (MinHash) and write "
        "compressed JSON lines, in one process and one thread; langgraft also removes exact duplicates, splits into "
        "train, dev and test, and compares what it wrote with what it held out. datatrove runs FineWeb's settings of "
        "MinHash. Compare processor seconds: seconds depend on what else the machine does.\n\n"
    )
    page = introduction + report(given.files, given.language, given.megabytes, sides)
    print(page)
    if given.out:
        given.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
