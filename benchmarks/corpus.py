"""Our corpus stage against a datatrove pipeline of equal steps, growth, memory.

`python benchmarks/corpus.py FILE... -o docs/benchmarks-corpus.md`

The files are JSON lines with a field `text`, in Thai unless `--language` says otherwise. Both sides read, repair
encodings (ftfy), check the language (lid.176), measure Gopher's filters of repetition and quality, mask mail and IP
addresses, remove near duplicates (MinHash) and write compressed JSON lines, with one process. datatrove runs its own
modules with FineWeb's settings: 5-grams of words, 14 buckets of 8 hashes, and its own word tokenizer for the
language. Needs `pip install "datatrove[processing,multilingual]"`.
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

from langgraft.corpus.langid_model import load_model

# datatrove measures short documents too, and most of those have a frequent pair of words: computed, not cut at.
WIDE_TOP = tuple((n, 1.0) for n in (2, 3, 4))
WIDE_REPEATED = tuple((n, 1.0) for n in range(5, 11))
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
    from langgraft.corpus.thresholds import thresholds
    from langgraft.progress import Log

    bounds = thresholds(language, wanted=True)
    summary = prepare(
        [Input(str(path))], out, language=language, thresholds=bounds, mask=("email", "ip"), log=Log(quiet=True)
    )
    print(json.dumps({"kept": summary["target"]["documents"]["kept"], "read": summary["target"]["documents"]["read"]}))


def likely(text: str, code: str) -> bool:
    """What datatrove's LanguageFilter asks, of the model file that langgraft has; it would download the same one.

    The threshold is low because short documents score low, and both sides leave out clear contradictions only.
    """
    return dict(load_model().candidates(text.replace("\n", " "))).get(code, 0.0) > 0.01


def only_likely_lines(text: str, code: str) -> str:
    """What langgraft does for a document of several lines: each is asked about, and clearly foreign ones go.

    datatrove has no such step. This is the least that one would do.
    """
    if "\n" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(line for line in lines if len(line) < 24 or likely(line, code))


def datatrove(path: Path, out: Path, language: str) -> None:
    import logging

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter, LambdaFilter
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.pipeline.formatters.base import BaseFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from loguru import logger

    class LinesFormatter(BaseFormatter):  # type: ignore[misc]
        name = "language of lines"

        def format(self, text: str) -> str:
            return only_likely_lines(text, language)

    logger.remove()
    logging.disable()
    config, code = MinhashConfig(), WORDS[language]
    clean, at = str(out / "clean"), lambda name: str(out / name)
    steps = [
        [
            JsonlReader(str(path.parent), glob_pattern=path.name),
            FTFYFormatter(normalization="NFC"),
            LinesFormatter(),
            LambdaFilter(lambda document: likely(document.text, language)),
            # Bounds that only documents far from prose miss, as with langgraft's defaults; short ones stay.
            GopherRepetitionFilter(language=code, dup_line_frac=0.5, top_n_grams=WIDE_TOP, dup_n_grams=WIDE_REPEATED),
            GopherQualityFilter(
                language=code,
                min_doc_words=None,
                min_avg_word_length=1,
                max_avg_word_length=21,
                max_non_alpha_words_ratio=0.1,
                min_stop_words=None,
            ),
            C4QualityFilter(  # "lorem ipsum" and curly brackets alone, which is what both sides look for
                remove_citations=False,
                filter_no_terminal_punct=False,
                min_num_sentences=-1,
                min_words_per_line=-1,
                max_word_length=-1,
                filter_javascript=False,
                filter_policy=False,
                language=code,
            ),
            PIIFormatter(),
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
        "encodings (ftfy), check the language (lid.176), measure Gopher's filters of repetition and quality, mask mail "
        "and IP addresses, remove near duplicates (MinHash) and write compressed JSON lines, in one process and one "
        "thread; langgraft also normalises spelling, judges every line's language, removes exact duplicates, splits "
        "into train, dev and test, and compares what it wrote with what it held out. datatrove runs its own modules, "
        "with FineWeb's settings of MinHash and its word tokenizer of the language, which it asks for each of the "
        "three steps that need words. Compare processor seconds: seconds depend on what else the machine does.\n\n"
    )
    page = introduction + report(given.files, given.language, given.megabytes, sides)
    print(page)
    if given.out:
        given.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
