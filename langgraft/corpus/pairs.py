"""Parallel text to train on: read from any file with two languages, cleaned, and kept apart from what is held out."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.corpus.decontaminate import evaluation_texts, sizes, units
from langgraft.corpus.dedup import Index
from langgraft.corpus.document import Input, Pair, Report
from langgraft.corpus.langid import Identifier
from langgraft.corpus.lines import line_of, parse
from langgraft.corpus.near import Hashes, ngrams, text_key
from langgraft.corpus.normalise import normalise
from langgraft.corpus.parallel import check_format, formatted
from langgraft.corpus.readers import choose, read_pairs
from langgraft.corpus.readers_rows import rows
from langgraft.corpus.sources import is_hub, resolve
from langgraft.corpus.split import order
from langgraft.errors import CorpusError
from langgraft.store import staged_file, staged_folder, write_json
from langgraft.text import language

_ROW_READERS = frozenset(("jsonl", "json", "delimited", "parquet"))
FACTS = "facts.json"
FEWEST = 20  # pairs, below which there is nothing to learn from
_BATCH = 2048
# Texts shorter than this share of a long run are compared as wholes only: 4 words, 15 characters, 6 of Han and kana.
_SHORTEST = 4 / 13


def read_parallel(inputs: Sequence[Input], code: str, source_code: str, report: Report) -> Iterator[Pair]:
    """Pairs of any files that hold two languages; `text` is in the language `code`, `pair` in `source_code`.

    Rows (JSONL, JSON, CSV, TSV, Parquet) have a field for each language's code, or `target` and `source`; otherwise
    `text_key` and the option `pair_key` name the fields. PO, MO, TMX and EDICT say it themselves.

    Raises:
        CorpusError: a file is missing or of an unknown kind, has no such fields, or there is no pair at all.
    """
    found = False
    for pair in read_pairs([one for source in inputs for one in _by_file(source, code, source_code)], code, report):
        found = True
        yield pair
    if not found:
        paths = ", ".join(source.path for source in inputs)
        raise CorpusError(f"there is no text in two languages in {paths}; name its fields (text_key, options.pair_key)")


def _by_file(source: Input, code: str, source_code: str) -> Iterator[Input]:
    """An input for each file, with the options that make its reader yield pairs."""
    if is_hub(source):
        raise CorpusError(f"{source.path}: parallel text is read from files; download the data set first")
    for file in resolve(source):
        reader = source.reader
        if reader == "auto":
            reader = choose(file, language=code, encoding=source.encoding)
        one = replace(source, path=str(file), reader=reader, name=source.name or source.path)
        options: dict[str, Any] = {}
        if reader in _ROW_READERS and "pair_key" not in source.options:
            one, options = _fields(one, file, code, source_code)
        elif reader == "tmx":
            options = {"pair_language": source_code}
        elif reader == "edict":
            options = {"side": "target"}
        yield replace(one, options={**options, **source.options})


def _fields(source: Input, file: Path, code: str, source_code: str) -> tuple[Input, dict[str, Any]]:
    """The fields of a file of rows that hold the two languages, by its first row."""
    row = next((row for _, row in rows(source, file, code)), None)
    names = [str(name) for name in row] if isinstance(row, Mapping | list | tuple) else []
    own = [source.text_key] if source.text_key != "text" else [*_codes(code), "target"]
    target = next((name for name in own if name in names), None)
    pair = next((name for name in (*_codes(source_code), "source") if name in names), None)
    if target is None or pair is None:
        missing = code if target is None else source_code
        raise CorpusError(
            f"{file} has no field for {language(missing).name} ({missing}); the fields are {', '.join(names) or 'none'}"
            ": name the two by text_key and options.pair_key"
        )
    return replace(source, text_key=target), {"pair_key": pair}


def _codes(code: str) -> list[str]:
    return list(dict.fromkeys((code, language(code).code)))


@dataclass(frozen=True)
class Prepared:
    """Pairs to train on, in their order, and others to measure on; how many there were, and why some were left out."""

    train: list[Pair]
    dev: list[Pair]
    facts: dict[str, Any]


def prepare_pairs(
    inputs: Sequence[Input],
    code: str,
    source_code: str,
    *,
    held_out: Sequence[str] = (),
    source_held_out: Sequence[str] = (),
    dev: int = 0,
    seed: int = 0,
) -> Prepared:
    """Read pairs, clean them, leave out what overlaps with held-out text, and set some apart; in memory.

    Args:
        inputs: as for `read_parallel`.
        held_out: texts in the language `code` that no pair to train on may overlap with.
        source_held_out: the same in `source_code`.
        dev: pairs to set apart, at most a tenth of all; what overlaps with one of them is not trained on either.
        seed: decides which.

    Raises:
        CorpusError: a file cannot be read, or fewer than FEWEST pairs are left.
    """
    left_out, report = Counter[str](), Report()
    read = read_parallel(inputs, code, source_code, report)
    clean = clean_pairs(_counted(read, left_out), code, source_code, left_out)
    of_target, of_source = HeldOut(held_out, code), HeldOut(source_held_out, source_code)
    found = list(without_held_out(clean, of_target, of_source, left_out))
    total = left_out.pop("read")
    if len(found) < FEWEST:
        paths = ", ".join(source.path for source in inputs)
        raise CorpusError(
            f"{len(found)} of the {total:,} pairs in {paths} are left, and fewer than {FEWEST} teach nothing (left "
            f"out: {counted(left_out)}); give more, and no file that is measured on"
        )
    apart, rest = _set_apart(found, min(dev, len(found) // 10), seed)
    near = Counter[str]()
    sides = HeldOut([pair.text for pair in apart], code), HeldOut([pair.pair for pair in apart], source_code)
    train = list(without_held_out(rest, *sides, near))
    left = {**left_out, "like_dev": near["held_out"]}
    facts = {
        "read": total,
        "used": len(train),
        "dev": len(apart),
        "left_out": {reason: count for reason, count in sorted(left.items()) if count},
        "sources": dict(Counter(pair.source for pair in train)),
        "licenses": dict(Counter(pair.license or "unknown" for pair in train)),
        "damaged": report.damaged,
    }
    return Prepared(train, apart, facts)


def _counted(pairs: Iterable[Pair], counts: Counter[str]) -> Iterator[Pair]:
    for pair in pairs:
        counts["read"] += 1
        yield pair


def counted(left_out: Mapping[str, int]) -> str:
    """Reasons and counts, for people."""
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in left_out.items() if count) or "none"


def _set_apart(pairs: list[Pair], count: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """`count` pairs that are the first by a hash of their text, and the others in their order."""
    ranks = [order(f"{pair.text}\n{pair.pair}", seed) for pair in pairs]
    chosen = set(sorted(range(len(pairs)), key=ranks.__getitem__)[:count])
    return [pairs[i] for i in sorted(chosen)], [pair for i, pair in enumerate(pairs) if i not in chosen]


def write_pairs(prepared: Prepared, folder: Path) -> None:
    """Write `train.jsonl`, `dev.jsonl` and `facts.json` into `folder`, all or nothing."""
    with staged_folder(folder) as staging:
        for name, pairs in (("train", prepared.train), ("dev", prepared.dev)):
            with (staging / f"{name}.jsonl").open("wb") as file:
                file.writelines(line_of(pair._asdict()) for pair in pairs)
        write_json(staging / FACTS, prepared.facts)


def write_parallel(
    inputs: Sequence[Input],
    out: Path,
    code: str,
    source_code: str,
    *,
    formats: Sequence[str] = ("translation",),
    against: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Write parallel text in some formats as JSONL rows of `text, id, source, license`; `source` is the format.

    Args:
        against: evaluation sets whose texts no pair may overlap with.

    Returns:
        As `Prepared.facts`, and `documents` of each format.

    Raises:
        CorpusError, RecipeError: a file cannot be read, too few pairs are left, or a format is unknown.
    """
    for name in formats:
        check_format(name, {})
    held = list(held_texts(against, code))
    found = prepare_pairs(inputs, code, source_code, held_out=held, source_held_out=held, seed=seed)
    license_ = ", ".join(sorted(found.facts["licenses"]))
    documents: dict[str, int] = {}
    with staged_file(Path(out)) as staging, staging.open("wb") as file:
        for name in dict.fromkeys(formats):
            texts = formatted(found.train, name, language(code), language(source_code), seed=seed)
            for number, text in enumerate(texts, 1):
                file.write(line_of({"text": text, "id": f"{name}-{number}", "source": name, "license": license_}))
                documents[name] = number
    return {**found.facts, "documents": documents}


def read_pairs_of(folder: Path, name: str) -> Iterator[Pair]:
    """Read back what `write_pairs` wrote; `name` is "train" or "dev"."""
    with (folder / f"{name}.jsonl").open("rb") as lines:
        yield from (Pair(**parse(line)) for line in lines)


def clean_pairs(pairs: Iterable[Pair], code: str, source_code: str, left_out: Counter[str]) -> Iterator[Pair]:
    """Pairs worth learning from, both sides normalised as a corpus is; the others are counted by reason.

    Left out are pairs with an empty side (`empty`) or with two equal ones (`untranslated`), pairs of which a side is
    in another language (`language`), and pairs that were there before (`repeated`).
    """
    judges = (Identifier(code), Identifier(source_code))
    known: set[str] = set()
    for pair in pairs:
        text, other = normalise(pair.text, code), normalise(pair.pair, source_code)
        key = text_key(text + "\n" + other)
        if not text or not other:
            left_out["empty"] += 1
        elif text_key(text) == text_key(other):
            left_out["untranslated"] += 1
        elif key in known:
            left_out["repeated"] += 1
        elif not (judges[0].check(text).keep and judges[1].check(other).keep):
            left_out["language"] += 1
        else:
            known.add(key)
            yield pair._replace(text=text, pair=other)


def held_texts(paths: Sequence[str], code: str) -> Iterator[str]:
    """Every text of evaluation sets, in whichever language; of files in two languages, both sides.

    Raises:
        CorpusError: a path does not exist, cannot be read, or holds no text.
    """
    yield from (document.text for document in evaluation_texts(paths, code))
    for source in map(Input, paths):
        for file in () if is_hub(source) else resolve(source):
            if choose(file, language=code) not in _ROW_READERS:
                for pair in read_pairs([Input(str(file))], code, Report()):
                    yield pair.pair


class HeldOut:
    """Held-out texts in one language, and whether others overlap with them. Holds the texts, and 8 bytes a word."""

    def __init__(self, texts: Sequence[str], code: str) -> None:
        self.code, self.longest = code, sizes(code)[0]
        self.shortest = max(4, round(self.longest * _SHORTEST))
        self._index = Index(texts, code)
        every = [units(text, code) for text in texts]
        self._units = [of for of in every if len(of) >= self.shortest]
        self._wholes = {
            size: np.unique(np.concatenate([ngrams(of, size) for of in group]))
            for size, group in _by_size(self._units).items()
            if size < self.longest
        }
        self._runs: dict[int, Hashes] = {}

    def overlap(self, texts: Sequence[str]) -> list[bool]:
        """Which of `texts` stand in a held-out one, hold one, share a long run with one, or nearly repeat one.

        A long run is one of 13 words (50 characters, 20 of Han and kana); shorter texts count as wholes, those below
        4 words (15 and 6 characters) where they are a whole held-out text.
        """
        found = self._index.repeats(texts)
        for i, text in enumerate(texts):
            of = units(text, self.code)
            if not found[i] and len(of) >= self.shortest:
                found[i] = self._meets(of)
        return found

    def _meets(self, of: Hashes) -> bool:
        size = min(len(of), self.longest)
        if size not in self._runs:
            parts = [ngrams(held, size) for held in self._units if len(held) >= size]
            self._runs[size] = np.unique(np.concatenate([*parts, np.zeros(0, dtype=np.uint64)]))
        if _common(ngrams(of, size), self._runs[size]):
            return True
        return any(size < len(of) and _common(ngrams(of, size), grams) for size, grams in self._wholes.items())


def _by_size(every: Iterable[Hashes]) -> dict[int, list[Hashes]]:
    found: dict[int, list[Hashes]] = {}
    for of in every:
        found.setdefault(len(of), []).append(of)
    return found


def _common(values: Hashes, table: Hashes) -> bool:
    """Whether a value stands in a sorted table."""
    if not len(table):
        return False
    at = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return bool((table[at] == values).any())


def without_held_out(pairs: Iterable[Pair], target: HeldOut, source: HeldOut, left_out: Counter[str]) -> Iterator[Pair]:
    """Pairs of which no side overlaps with held-out text in its language; the others are counted as `held_out`."""
    stream = iter(pairs)
    while batch := list(itertools.islice(stream, _BATCH)):
        sides = zip(target.overlap([p.text for p in batch]), source.overlap([p.pair for p in batch]), strict=True)
        for pair, marks in zip(batch, sides, strict=True):
            if any(marks):
                left_out["held_out"] += 1
            else:
                yield pair
