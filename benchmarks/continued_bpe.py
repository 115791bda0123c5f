"""Continued BPE side by side: langgraft, plain-Python BPE with a heap, and transformers' train_new_from_iterator.

    python benchmarks/continued_bpe.py --base FOLDER [--corpus FILE_OR_GLOB ...] [--language yue] [--merges 4096]

Each contender runs in a process of its own, on the same text, and reports wall time, CPU time (its worker processes
included) and peak memory. Then langgraft alone on every sixteenth, every fourth and all of the documents: parts of one
real text, since repeating a text would add no new words. Writes docs/benchmarks-tokenizer.md. Without --corpus it reads
the Cantonese text of the package pycantonese.
"""

import argparse
import gc
import heapq
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from langgraft.corpus.stream import texts_of
from langgraft.store import atomic_write
from langgraft.text import language

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-tokenizer.md"
CORPUS = ["package:pycantonese/data/ctcpc/sents.json"]


def word_by_word(symbols: list[int], weights: list[int], merges: int, min_frequency: int) -> list[tuple[int, int]]:
    """BPE with a heap as it is usually written: every word that holds the merged pair is spelled anew.

    The way of Sennrich's subword-nmt and of the trainer in `tokenizers`: pair counts are kept up to date, and for each
    pair the words that hold it. Arguments as in `place_by_place`.
    """
    words: list[list[int]] = [[]]
    times: list[int] = []
    for symbol, weight in zip(symbols, weights, strict=True):
        if symbol >= 0:
            words[-1].append(symbol)
        elif words[-1]:
            times.append(weight)
            words.append([])
    words.pop()
    counts: dict[tuple[int, int], int] = defaultdict(int)
    holders: dict[tuple[int, int], set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += times[i]
            holders[pair].add(i)
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    first = max(symbols) + 1
    learned: list[tuple[int, int]] = []
    while heap and len(learned) < merges:
        n, best = heapq.heappop(heap)
        if -n != counts.get(best, 0):
            if counts.get(best, 0) >= min_frequency:
                heapq.heappush(heap, (-counts[best], best))
            continue
        if -n < min_frequency:
            break
        new = first + len(learned)
        learned.append(best)
        changed = set()
        for i in sorted(holders.pop(best)):
            old, word, at = words[i], [], 0
            while at < len(old):
                if at + 1 < len(old) and (old[at], old[at + 1]) == best:
                    word.append(new)
                    at += 2
                else:
                    word.append(old[at])
                    at += 1
            for pair in pairwise(old):
                counts[pair] -= times[i]
            for pair in pairwise(word):
                counts[pair] += times[i]
                if new in pair:
                    holders[pair].add(i)
                    changed.add(pair)
            words[i] = word
        counts.pop(best, None)
        for pair in changed:
            if counts[pair] >= min_frequency:
                heapq.heappush(heap, (-counts[pair], pair))
    return learned


def place_by_place(symbols: list[int], weights: list[int], merges: int, min_frequency: int) -> list[tuple[int, int]]:
    """The fastest plain Python we could write: one linked list, only the places of the merged pair are touched.

    Args:
        symbols: sequences parted by -1.
        weights: how often each symbol's sequence occurs.
        merges: how many to learn.
        min_frequency: fewest occurrences of a merge.
    """
    symbols, weights = [-1, *symbols, -1], [0, *weights, 0]
    after, before = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
    counts: dict[tuple[int, int], int] = defaultdict(int)
    places: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in range(len(symbols) - 1):
        if symbols[i] >= 0 and symbols[i + 1] >= 0:
            pair = symbols[i], symbols[i + 1]
            counts[pair] += weights[i]
            places[pair].append(i)
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    first = max(symbols) + 1
    learned: list[tuple[int, int]] = []
    while heap and len(learned) < merges:
        n, pair = heapq.heappop(heap)
        if -n != counts.get(pair, 0):
            if counts.get(pair, 0) >= min_frequency:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        if -n < min_frequency:
            break
        new = first + len(learned)
        learned.append(pair)
        left, right = pair
        changed = set()
        for i in sorted(places.pop(pair)):
            j = after[i]
            if symbols[i] != left or symbols[j] != right:
                continue
            weight, ahead, behind = weights[i], after[j], before[i]
            if symbols[ahead] >= 0:
                counts[right, symbols[ahead]] -= weight
                fresh = new, symbols[ahead]
                counts[fresh] += weight
                places[fresh].append(i)
                changed.add(fresh)
            if symbols[behind] >= 0:
                counts[symbols[behind], left] -= weight
                fresh = symbols[behind], new
                counts[fresh] += weight
                places[fresh].append(behind)
                changed.add(fresh)
            symbols[i], symbols[j] = new, -2
            after[i], before[ahead] = ahead, i
        counts.pop(pair, None)
        for fresh in changed:
            if counts[fresh] >= min_frequency:
                heapq.heappush(heap, (-counts[fresh], fresh))
    return learned


PYTHON = {"words": word_by_word, "places": place_by_place}


def doubled(symbols: Any, weights: Any, halves: dict[int, int]) -> tuple[list[int], list[int]]:
    """Symbols that are still two as both, for contenders that know no such thing."""
    pairs = (
        (s, w)
        for symbol, w in zip(symbols.tolist(), weights.tolist(), strict=True)
        for s in ((symbol, halves[symbol]) if symbol in halves else (symbol,))
    )
    both = list(pairs)
    return [s for s, _ in both], [w for _, w in both]


def cpu() -> float:
    """CPU seconds of this process and of those it waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Clock:
    """Wall and CPU seconds of named parts."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = time.perf_counter(), cpu()

    def lap(self, name: str) -> None:
        """The part up to now."""
        now = time.perf_counter(), cpu()
        self.parts[name], self.parts[f"{name}_cpu"] = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now


def contender(name: str, base: Path, texts: list[str], code: str, merges: int, scratch: Path) -> dict[str, Any]:
    """Run one contender; what it measured."""
    known = language(code)
    clock = Clock()
    if name == "transformers":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        clock.lap("load")
        specials = len(set(tokenizer.all_special_tokens))
        batches = (texts[i : i + 1000] for i in range(0, len(texts), 1000))
        tokenizer.train_new_from_iterator(batches, 256 + specials + merges, show_progress=False).save_pretrained(
            scratch
        )
        clock.lap("whole")
        return clock.parts
    from langgraft.tokenizer.count import MEMORY, count_words
    from langgraft.tokenizer.extend import extend, read_base, to_learn_from
    from langgraft.tokenizer.learn import learn_merges
    from langgraft.tokenizer.scope import Scope
    from langgraft.tokenizer.units import spelled

    if name == "end_to_end":
        clock.lap("load")
        extend(base, texts, scratch / "out", language=known, new_tokens=merges)
        clock.lap("whole")
        return clock.parts
    data, _, _ = read_base(base, known, repair_marks=True)
    scope = Scope(known.scripts)
    clock.lap("load")
    words = count_words(data, texts, scope)
    clock.lap("count")
    _, symbols, weights, halves = spelled(to_learn_from(data, words, scope, memory=MEMORY))
    clock.lap("encode")
    if name in PYTHON:
        lists = doubled(symbols, weights, halves)
        del words, symbols, weights
        gc.collect()
        clock.lap("convert")
        gc.disable()  # it has no cycles; collecting would only slow it
        learned = PYTHON[name](*lists, merges, 5)
    else:
        learned = learn_merges(symbols, weights, merges, min_frequency=5, halves=halves)
    clock.lap("learn")
    clock.parts["check"] = hash(tuple(learned))
    return clock.parts


def measure(name: str, options: argparse.Namespace, part: int = 1) -> dict[str, Any]:
    """Run a contender in a process of its own, on one in `part` of the text."""
    command = [sys.executable, __file__, "--base", options.base, "--language", options.language]
    command += ["--merges", str(options.merges), "--contender", name, "--part", str(part), "--corpus", *options.corpus]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONHASHSEED": "0"})
    result: dict[str, Any] = json.loads(done.stdout)
    print(name, f"1/{part}", result, file=sys.stderr, flush=True)
    return result


def child(options: argparse.Namespace) -> None:
    """What such a process does."""
    texts = texts_of(options.corpus, options.language)
    texts = texts[:: options.part]
    size = sum(len(text.encode()) for text in texts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(prefix="langgraft-") as scratch:
        result = contender(
            options.contender, Path(options.base), texts, options.language, options.merges, Path(scratch)
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(
        json.dumps(
            {**result, "bytes": size, "documents": len(texts), "peak": peak, "before": before, "worker": workers}
        )
    )


def page(
    found: dict[str, dict[str, Any]], growth: dict[int, dict[str, Any]], options: argparse.Namespace
) -> Iterator[str]:
    """The results as Markdown."""
    ours, theirs, whole = (found[name] for name in ("langgraft", "transformers", "end_to_end"))
    plain, places = (found[name] for name in PYTHON)
    known = language(options.language)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[1]
    yield "# Benchmarks of the tokenizer\n"
    yield "Written by `benchmarks/continued_bpe.py`; nothing is typed by hand.\n"
    yield (
        f"{options.merges:,} merges from {ours['bytes'] / 1e6:.1f} MB of {known.name} "
        f"({ours['documents']:,} documents); {cores} cores ({processor()}), Python {platform.python_version()}, "
        f"tokenizers {version('tokenizers')}, transformers {version('transformers')}, numpy {version('numpy')}; "
        f"{date.today()}. Load average {load:.1f}: where it is above 1, other work shared the cores, and CPU time is "
        "the figure to compare.\n"
    )
    yield "| | learning alone, s (CPU s) | from text to merges, s (CPU s) | peak memory, MB |"
    yield "| --- | --- | --- | --- |"
    yield row("langgraft", ours, whole["whole"], whole["whole_cpu"], whole["peak"])
    for title, own in (("plain Python with a heap, word by word", plain), ("the same, place by place", places)):
        parts = ("count", "encode", "learn")
        wall, used = sum(own[part] for part in parts), sum(own[f"{part}_cpu"] for part in parts)
        yield row(title, own, wall, used, own["peak"])
    yield row("`train_new_from_iterator`", None, theirs["whole"], theirs["whole_cpu"], theirs["peak"])
    same = "the same merges" if ours["check"] == plain["check"] == places["check"] else "DIFFERENT merges"
    yield (
        f"\nlanggraft learns {plain['learn_cpu'] / ours['learn_cpu']:.1f}x as fast as plain Python that spells every "
        "word with the merged pair anew, as subword-nmt and the trainer in `tokenizers` do, and "
        f"{places['learn_cpu'] / ours['learn_cpu']:.1f}x as fast as the fastest plain Python we could write (CPU time; "
        f"{plain['learn'] / ours['learn']:.1f}x and {places['learn'] / ours['learn']:.1f}x in wall time); all find "
        f"{same}. From text to a finished tokenizer "
        f"it takes {whole['whole_cpu'] / theirs['whole_cpu']:.2f}x the CPU time of `train_new_from_iterator` "
        f"({whole['whole'] / theirs['whole']:.2f}x the wall time). Its time from text is that of `extend`, which "
        f"learns half as many merges again, since some are dropped, and writes the tokenizer. Plain Python's is with "
        "langgraft's counting and encoding. `train_new_from_iterator` keeps the base's own pattern; where that cuts "
        "words at combining marks, as GPT-2's does, its words are shorter and its work is less. Peak memory includes "
        f"the texts, which all three are given in memory ({ours['before'] / 1e3:.0f} MB before anything starts), and "
        f"not langgraft's worker processes (at most {whole['worker'] / 1e3:.0f} MB each).\n"
    )
    yield "## Growth\n"
    yield "`extend` on every sixteenth, every fourth and all documents.\n"
    yield "| text, MB | from text to tokenizer, CPU s | MB per CPU s | wall s | peak memory, MB |"
    yield "| --- | --- | --- | --- | --- |"
    for facts in growth.values():
        size = facts["bytes"] / 1e6
        yield (
            f"| {size:.1f} | {facts['whole_cpu']:.1f} | {size / facts['whole_cpu']:.2f} | {facts['whole']:.1f} "
            f"| {facts['peak'] / 1e3:.0f} |"
        )


def row(name: str, learn: dict[str, Any] | None, wall: float, used: float, peak: int) -> str:
    """One line of the table."""
    alone = f"{learn['learn']:.1f} ({learn['learn_cpu']:.1f})" if learn else "not apart"
    return f"| {name} | {alone} | {wall:.1f} ({used:.1f}) | {peak / 1e3:.0f} |"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of the base's tokenizer")
    parser.add_argument("--corpus", nargs="+", default=CORPUS, help="text in the language")
    parser.add_argument("--language", default="yue")
    parser.add_argument("--merges", type=int, default=4096)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        child(options)
        return
    found = {name: measure(name, options) for name in ("langgraft", "end_to_end", *PYTHON, "transformers")}
    growth = {part: measure("end_to_end", options, part) if part > 1 else found["end_to_end"] for part in (16, 4, 1)}
    atomic_write(PAGE, "\n".join(page(found, growth, options)) + "\n")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
