"""Our corpus stage against a datatrove pipeline of equal steps, growth, memory.

`python benchmarks/corpus.py FILE... -o docs/benchmarks-corpus.md`

The files are JSON lines with a field `text`, in Thai unless `--language` says otherwise. `STEPS` says what each side
does. The sides take turns for `--rounds`; the middle ratio counts. Needs
`pip install "datatrove[processing,multilingual]"`.
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
from langgraft.store import atomic_write

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
    folder.mkdir(parents=True, exist_ok=True)
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


STEPS = """
| step | langgraft | datatrove |
| --- | --- | --- |
| read JSON lines | yes | `JsonlReader`, three times: each of its stages begins from files |
| repair encodings, NFC | ftfy, where a character could be what it repairs | `FTFYFormatter` |
| language of lines | yes | a formatter of this benchmark that asks lid.176 about each line of 24 characters and more |
| language of documents | script, lid.176, rules | a filter of this benchmark that asks lid.176 |
| repetition (Gopher) | lines, paragraphs, most frequent and repeated n-grams | `GopherRepetitionFilter` |
| quality (Gopher) | letters, symbols, bullets, ellipses, length of words | `GopherQualityFilter` |
| where they are measured | words and n-grams in texts of 50 words and more, lines in texts of five | in every text |
| "lorem ipsum", curly brackets (C4) | yes | `C4QualityFilter`, the rest of it off |
| mail and IP addresses masked | yes | `PIIFormatter` |
| near duplicates | MinHash, 25 bands of 5; candidates compared for real | its four stages, FineWeb's 14 buckets of 8 |
| write compressed JSON lines | gzip, level 5 | `JsonlWriter`, gzip, after cleaning and after duplicates |
| decontamination | off | off |
| spelling rules of the language | yes | no |
| exact duplicates without case and punctuation | yes | no |
| train, dev and test; counts by source, licence, length | yes | no |
| what was written compared with what was held out | yes | no |
| what was left out, with the reason, in a file | yes | no |

Bounds are wide on both sides, so that both measure everything and drop little. datatrove counts words with its own
tokenizer of the language, and asks it in three steps; langgraft counts characters where a language writes no spaces.
Both sides run in one process and one thread. Compare processor seconds: seconds depend on what else the machine does.
"""
HEAD = "| | MB | documents | kept | seconds | CPU seconds | MB per CPU second | peak MB |\n|" + "---|" * 8


def report(files: list[str], language: str, megabytes: float, sides: list[str], rounds: int) -> str:
    """The two tables, from rounds in which the sides take turns."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as name:
        path = sample(files, Path(name), megabytes)
        for number in range(rounds):
            for side in sorted(sides, reverse=number % 2 == 1):
                folder = Path(name) / f"round-{number}"
                found[side].append(measured(side, path, folder, language))
        growth = []
        for share in (16, 4, 1):
            path = sample(files, Path(name), megabytes / share)
            growth.append(row(f"{16 // share}x", measured("ours", path, Path(name) / f"of-{share}", language)))
    names = {"ours": "`langgraft corpus`", "datatrove": "datatrove"}
    middle = {side: sorted(runs, key=lambda run: run["cpu"])[rounds // 2] for side, runs in found.items()}
    table = [HEAD, *(row(names[side], middle[side]) for side in sides)]
    times = ""
    if "datatrove" in found:
        pairs = list(zip(found["datatrove"], found["ours"], strict=True))
        wall, cpu = (sorted(theirs[key] / ours[key] for theirs, ours in pairs)[rounds // 2] for key in ("wall", "cpu"))
        how = f" (the middle of {rounds} rounds in which the sides take turns)" if rounds > 1 else ""
        times = f"\nlanggraft takes {wall:.1f} times less time and {cpu:.1f} times less processor time{how}.\n"
    return "\n".join(["## Against datatrove", "", *table, times, "## Growth and memory", "", HEAD, *growth, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--language", default="th")
    parser.add_argument("--megabytes", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "datatrove"))
    parser.add_argument("--without-datatrove", action="store_true")
    given = parser.parse_args()
    if given.side:
        {"ours": ours, "datatrove": datatrove}[given.side](Path(given.files[0]), given.out, given.language)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    sides = ["ours"] if given.without_datatrove else ["ours", "datatrove"]
    page = (
        f"# Benchmarks of the corpus stage\n\nMade by `benchmarks/corpus.py`, on text in `{given.language}`.\n"
        f"{STEPS}\n{report(given.files, given.language, given.megabytes, sides, given.rounds)}"
    )
    print(page)
    if given.out:
        atomic_write(given.out, page)


if __name__ == "__main__":
    main()
