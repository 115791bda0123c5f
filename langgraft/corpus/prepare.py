"""From files in any format to clean, deduplicated train, dev and test sets in both languages."""

import contextlib
import gzip
import io
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from langgraft.corpus.clean import MASKED, MIX, Settings, write_shared
from langgraft.corpus.decontaminate import Overlaps, evaluation_texts, index
from langgraft.corpus.dedup import check_leaks, find_duplicates
from langgraft.corpus.document import Document, Input, Report
from langgraft.corpus.filters import Thresholds
from langgraft.corpus.langid import identify
from langgraft.corpus.langid_model import LanguageModel
from langgraft.corpus.lines import parse
from langgraft.corpus.mixed import MODES
from langgraft.corpus.normalise import normalise
from langgraft.corpus.output import Places, keep, write_splits
from langgraft.corpus.part import Part
from langgraft.corpus.pii import check_kinds
from langgraft.corpus.readers import read
from langgraft.corpus.shards import Shards, batches, clean, write_shard
from langgraft.corpus.sources import resolve, with_companions
from langgraft.corpus.split import split
from langgraft.errors import CorpusError, DiskFullError, GateError, InputError, LanggraftError, WorkerError
from langgraft.progress import Log
from langgraft.store import TEMPORARY, atomic_write, fingerprint, lock, one_at_a_time, staged_folder, write_json
from langgraft.text import language, languages

MIN_SHARE_IN_LANGUAGE = 0.1
_LANGUAGE_REASONS = frozenset(("script", "language", "written_chinese", "cantonese", "romanised"))
_GUESSES = 2000  # documents dropped for their language whose language is guessed, for the error message
_IN_ONE_PROCESS = 4_000_000  # bytes of files that are cleaned before other processes have started
# Raise it when the same documents give other shards, so that a run begun by an older version starts again.
_SHARDS = 3


@dataclass(frozen=True)
class Options:
    """How one side of a corpus is cleaned and split; see `prepare`."""

    min_characters: int
    max_characters: int | None
    dev: float
    test: float
    seed: int
    max_documents: int | None
    near_duplicates: bool
    decontaminate: tuple[str, ...]
    mixed: str
    langid_model: str
    extra_rules: tuple[str, ...]
    thresholds: Thresholds | None
    boilerplate: int
    mask: tuple[str, ...]


def prepare(
    target: Sequence[Input],
    out: Path,
    *,
    language: str,
    source: Sequence[Input] = (),
    source_language: str = "en",
    min_characters: int = 1,
    max_characters: int | None = None,
    dev: float = 0.02,
    test: float = 0.02,
    source_dev: float | None = None,
    source_test: float | None = None,
    seed: int = 0,
    max_documents: int | None = None,
    near_duplicates: bool = True,
    decontaminate: Sequence[str] = (),
    mixed: str = "lines",
    langid_model: str = "",
    extra_rules: Sequence[str] = (),
    thresholds: Thresholds | None = None,
    boilerplate: int = 0,
    mask: Sequence[str] = (),
    workers: int = 1,
    part: Part | None = None,
    log: Log,
) -> dict[str, Any]:
    """Clean, deduplicate and split text in the new language, and in the base's own, into the folder `out`.

    Writes `out/target/{train,dev,test}.jsonl.gz` (one `Document` a line), `out/target/dropped.jsonl.gz` (what
    was left out, and why), the same under `out/source` if `source` is given, and `out/summary.json`. The same
    inputs and seed give the same bytes. Train is in a shuffled order, so that sources are mixed.

    Shards that are done are kept in `out.work` until the end: after a crash, the same call goes on from them.

    Args:
        language, source_language: ISO 639 codes; documents that are clearly in another language are dropped.
        min_characters, max_characters: shorter documents are dropped; longer ones end at a paragraph,
            sentence or word before the limit.
        dev, test: share of the documents held out (below 1) or their number (1 and more).
        source_dev, source_test: the same for the source language; None takes `dev` and `test`.
        max_documents: keep at most the first so many documents of each language.
        near_duplicates: also drop documents that nearly repeat an earlier one (see `dedup`).
        decontaminate: evaluation sets (files, folders, `hub:owner/dataset:split`); documents that overlap with
            them are dropped (see `decontaminate`).
        mixed: "lines" keeps the lines of a document that are in its language and leaves out the others, "document"
            keeps or drops documents as a whole, "keep" drops nothing for its language (see `mixed.select`).
        langid_model: a fastText file such as GlotLID's that tells languages apart; "" takes lid.176.
        extra_rules: names in `normalise_rules.EXTRA`, such as "ascii_digits", to apply where they are for the language.
        thresholds: drop documents of the new language outside of these bounds (see `thresholds`, `filters`).
        boilerplate: remove lines that at least so many documents of one source share (see `filters`); 0 keeps
            them. The inputs are then read twice.
        mask: kinds of personal data to mask (see `pii`), or "all".
        workers: processes that clean text; the result is the same for any number.
        part: clean only these shards and write nothing but them, beside other processes that share the folder; when
            all parts are done, the same call without a part finishes, and gives the same bytes as one that did all.

    Returns:
        The summary that is in `summary.json`; for a part, the documents it read and kept on each side.

    Raises:
        CorpusError: a file cannot be read, the text is in another language, or nothing is left.
        InputError: a language code, an extra rule or a value of `mixed` is unknown.
        GateError: a training document repeats a held-out one.
        BusyError: another process is preparing the same folder.
        WorkerError: a worker process ended before its work.
    """
    options = Options(
        *(min_characters, max_characters, dev, test, seed, max_documents, near_duplicates, tuple(decontaminate)),
        *(mixed, langid_model, tuple(extra_rules)),
        *(thresholds, boilerplate, check_kinds(mask)),
    )
    normalise("", language, extra_rules)  # a wrong name is told before hours of reading
    if mixed not in MODES:
        raise InputError(f"mixed is {mixed!r}; choose one of {', '.join(MODES)}")
    if langid_model:
        LanguageModel(Path(langid_model))  # so is a damaged file; every process reads its own
    of_source = replace(
        options,
        thresholds=None,
        dev=dev if source_dev is None else source_dev,
        test=test if source_test is None else source_test,
    )
    summary: dict[str, Any] = {"seed": seed, "target": None, "source": None}
    sides = [("target", target, language, options)]
    if source:
        sides.append(("source", source, source_language, of_source))
    if part is not None:
        with _shared_work(Path(out), part) as work:
            for side, inputs, code, of_side in sides:
                summary[side] = _part(inputs, code, work / side, of_side, workers, log, part)
        return summary
    with _work_folder(Path(out)) as work, staged_folder(Path(out)) as folder:
        for side, inputs, code, of_side in sides:
            summary[side] = _side(inputs, code, folder / side, work / side, of_side, workers, log)
        write_json(folder / "summary.json", summary)
    return summary


@contextlib.contextmanager
def _shared_work(out: Path, part: Part) -> Iterator[Path]:
    """The same folder for one of several processes that fill it."""
    work = out.with_name(f"{out.name}.work")
    with lock(work, what=f"corpus, part {part}", shared=True):
        yield work


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Where finished shards wait: stays after a crash, a kill or a full disk, goes after success or bad input."""
    work = out.with_name(f"{out.name}.work")
    with lock(work, what="corpus"):
        for left in [*out.parent.glob(f"{TEMPORARY}{out.name}-*"), *work.rglob(f"{TEMPORARY}*")]:
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield work
        except (DiskFullError, WorkerError):
            raise
        except LanggraftError:
            shutil.rmtree(work)
            raise
        shutil.rmtree(work)


def read_split(folder: Path, side: str, name: str) -> Iterator[Document]:
    """Read back what `prepare` wrote: `side` is "target" or "source", `name` is "train", "dev" or "test".

    Raises:
        CorpusError: the file is missing or damaged.
    """
    path = Path(folder) / side / f"{name}.jsonl.gz"
    if not path.exists():
        raise CorpusError(f"{path} does not exist; prepare a corpus into {folder} first")
    try:
        for row in _rows(path):
            yield Document(**row)
    except (EOFError, OSError, json.JSONDecodeError, TypeError) as error:
        raise CorpusError(f"{path} is damaged: {error}; prepare the corpus again") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        yield from map(parse, io.BufferedReader(file, 1 << 18))


def _side(
    inputs: Sequence[Input], code: str, folder: Path, work: Path, options: Options, workers: int, log: Log
) -> dict[str, Any]:
    """Prepare one language into `folder`; returns its summary."""
    known = language(code)
    folder.mkdir()
    report = Report()
    protected, settings = _begin(inputs, known.code, work, options, log)
    shards = _clean(inputs, work, settings, options.max_documents, workers, report, log)
    found = find_duplicates(protected + shards, known.code, work, near=options.near_duplicates)
    places, drops = keep(shards, protected, found, folder, options.max_documents)
    counts = shards.counts()
    _check_language(known.code, counts, folder)
    if not len(places):
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in drops.counts.most_common())
        paths = ", ".join(source.path for source in inputs)
        raise CorpusError(f"nothing is left of {paths}: all {counts['read']:,} documents were dropped ({reasons})")
    parts = split(places.hex_keys(), dev=options.dev, test=options.test, seed=options.seed)
    sizes = write_splits(folder, places, parts)
    gate = _gate(folder, known.code, places, [*parts["dev"], *parts["test"]], protected, settings)
    places.path.unlink()
    mix = _mix(counts)
    _say(log, known.name, counts["read"], len(places), report, mix)
    return {
        "language": known.code,
        "documents": {"read": counts["read"], "kept": len(places), "truncated": counts["truncated"]},
        **sizes,
        "languages": mix,
        "dropped": drops.summary(),
        "dropped_lines": dict(sorted(drops.lines.items())),
        "near_duplicates": found.clusters(),
        "evaluation_texts": len(protected),
        **_filtered(options, counts),
        "files": report.files(),
        "invalid_utf8": report.summary("invalid_utf8"),
        "skipped": {kind: n for kind, n in sorted(report.counts.items()) if kind != "invalid_utf8"},
        **gate,
    }


def _begin(inputs: Sequence[Input], code: str, work: Path, options: Options, log: Log) -> tuple[Shards, Settings]:
    """Make what is needed before any document is cleaned: texts of evaluation sets, and complete settings."""
    settings = _settings(code, options)
    _same_work(work, inputs, settings, options.decontaminate)
    protected, settings = _protect(options.decontaminate, settings, work)
    return protected, _boilerplate(inputs, settings, work, log)


def _part(
    inputs: Sequence[Input], code: str, work: Path, options: Options, workers: int, log: Log, part: Part
) -> dict[str, Any]:
    """Clean the shards of one part; what all parts need is made by the first to come."""
    known = language(code)
    with one_at_a_time(work.parent):
        _, settings = _begin(inputs, known.code, work, options, log)
    shards = _clean(inputs, work, settings, options.max_documents, workers, Report(), log, part)
    read = shards.counts()["read"]
    log.say(f"{known.name}, part {part}: {read:,} documents read, {len(shards):,} kept for now")
    return {"language": known.code, "documents": {"read": read, "kept": len(shards)}}


def _settings(code: str, options: Options) -> Settings:
    return Settings(
        *(code, options.min_characters, options.max_characters, options.near_duplicates),
        *(options.mixed, options.langid_model, options.extra_rules),
        thresholds=options.thresholds,
        mask=options.mask,
        boilerplate=options.boilerplate,
    )


def _filtered(options: Options, counts: Counter[str]) -> dict[str, Any]:
    """What filters were used and what they found, for the summary."""
    return {
        "filters": options.thresholds.as_dict() if options.thresholds else None,
        "mask": list(options.mask),
        "masked": {key.removeprefix(MASKED): n for key, n in sorted(counts.items()) if key.startswith(MASKED)},
    }


def _boilerplate(inputs: Sequence[Input], settings: Settings, work: Path, log: Log) -> Settings:
    """Settings that know the file of the lines that documents share, which takes a first reading."""
    path = work / "shared.json"
    if not settings.boilerplate:
        return settings
    if not path.is_file():
        log.say("reading once to count lines that documents share")
        write_shared(path, read(inputs, settings.code, Report()), settings.boilerplate)
    return replace(settings, shared=path)


def _mix(counts: Counter[str]) -> dict[str, dict[str, float]]:
    """Characters read by language, most first, and their share; "und" is what cannot be told."""
    mix = {name.removeprefix(MIX): n for name, n in counts.items() if name.startswith(MIX)}
    total = sum(mix.values())
    return {
        code: {"characters": n, "share": round(n / total, 4)}
        for code, n in sorted(mix.items(), key=lambda item: (-item[1], item[0]))
    }


def _say(log: Log, name: str, read: int, kept: int, report: Report, mix: dict[str, dict[str, float]]) -> None:
    log.say(f"{name}: {read:,} documents read, {kept:,} kept")
    log.say("languages read: " + ", ".join(f"{code} {row['share']:.1%}" for code, row in mix.items()))
    for path, encoding in report.not_utf8.items():
        log.say(f"{path} was read as {encoding}")
    for damaged in report.damaged:
        log.say(f"damaged: {damaged['reason']} ({damaged['documents']:,} documents before it are kept)")
    for kind, n in sorted(report.counts.items()):
        if report.where.get(kind):
            log.say(f"left out: {n:,} times {kind.replace('_', ' ')}, the first: {report.sentences[kind]}")


def _same_work(work: Path, inputs: Sequence[Input], settings: Settings, protected: Sequence[str]) -> None:
    """Empty the folder of shards unless they were made from the same files in the same way."""
    files = [path for source in (*inputs, *map(Input, protected)) for path in with_companions(resolve(source))]
    files += [Path(settings.langid_model)] if settings.langid_model else []
    of = {
        "version": _SHARDS,
        "settings": settings.identity(),
        "inputs": [{**asdict(source), "options": sorted(map(str, source.options.items()))} for source in inputs],
        "protected": [*protected],
        "files": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files],
    }
    identity = fingerprint(of)
    marker = work / "identity"
    if not marker.is_file() or marker.read_text(encoding="utf-8") != identity:
        shutil.rmtree(work, ignore_errors=True)
        atomic_write(marker, identity)


def _protect(paths: Sequence[str], settings: Settings, work: Path) -> tuple[Shards, Settings]:
    """The texts of evaluation sets as shards, and settings that know the folder of their n-grams."""
    folder = work / "protected"
    if not paths:
        return Shards([]), settings
    if not folder.exists():
        documents = list(evaluation_texts(paths, settings.code))
        with staged_folder(folder) as out:
            (out / "overlaps").mkdir()
            index(documents, settings.code, out / "overlaps")
            for number, batch in enumerate(batches(documents)):
                near = settings.near_duplicates
                write_shard(out / f"{number:06d}", batch, batch, code=settings.code, near=near)
    shards = Shards(sorted(path for path in folder.iterdir() if path.name.isdecimal()))
    return shards, replace(settings, overlaps=folder / "overlaps")


def _clean(
    inputs: Sequence[Input],
    work: Path,
    settings: Settings,
    max_documents: int | None,
    workers: int,
    report: Report,
    log: Log,
    part: Part | None = None,
) -> Shards:
    """Read and clean all documents (or a part of them) into shards, saying how far it is."""
    size = sum(path.stat().st_size for source in inputs for path in resolve(source))
    what = f"cleaning, part {part}" if part else "cleaning"
    progress = log.progress(what, size // 1000, unit="kB") if size else None
    seen: Counter[str] = Counter()

    def done(counts: dict[str, Any]) -> bool:
        seen.update({"read": counts["read"], "kept": counts["kept"]})
        if progress is not None:
            progress.advance(report.position() // 1000 - progress.done, f"{seen['read']:,} documents")
        else:
            log.say(f"{what}: {seen['read']:,} documents")
        # Half as many again, to make up for duplicates.
        return max_documents is None or seen["kept"] < 1.5 * max_documents

    processes = workers if size == 0 or size > _IN_ONE_PROCESS else 1
    stream = read(inputs, settings.code, report)
    return clean(stream, work / "shards", settings, workers=processes, done=done, part=part)


def _check_language(code: str, counts: Counter[str], folder: Path) -> None:
    if not counts["checked"] or counts["in_language"] >= MIN_SHARE_IN_LANGUAGE * counts["checked"]:
        return
    looks_like: Counter[str] = Counter()
    with gzip.open(folder / "dropped.jsonl.gz", "rt", encoding="utf-8") as dropped:
        rows = map(parse, dropped)
        foreign = (row for row in rows if row["reason"] in _LANGUAGE_REASONS and "part" not in row)
        for row in itertools.islice(foreign, _GUESSES):
            looks_like[identify(row["text"]).language] += 1
    seen = ", ".join(
        f"{languages()[label].name if label in languages() else label} ({n:,})"
        for label, n in looks_like.most_common(3)
    )
    raise CorpusError(
        f"the text is not {language(code).name} ({code}): only {counts['in_language']:,} of {counts['checked']:,} "
        f"documents look like it; the others look like {seen}. Check the language code and the files"
    )


class _HeldOut(Sequence[str]):
    """Texts of evaluation sets, then of the dev and test splits, read from disk one at a time."""

    def __init__(self, protected: Shards, places: Places, numbers: Sequence[int], file: BinaryIO) -> None:
        self._protected, self._places, self._numbers, self._file = protected, places, numbers, file

    def __len__(self) -> int:
        return len(self._protected) + len(self._numbers)

    def __getitem__(self, i: Any) -> Any:
        if i < len(self._protected):
            return self._protected.document(i).text
        self._file.seek(self._places.offsets[self._numbers[i - len(self._protected)]])
        return parse(self._file.readline())["text"]


def _gate(
    folder: Path, code: str, places: Places, heldout: Sequence[int], protected: Shards, settings: Settings
) -> dict[str, int]:
    """Compare what was written as training text with everything held out.

    Raises:
        GateError: some of it is in there.
    """
    overlapping = 0
    overlaps = Overlaps(settings.overlaps, code) if settings.overlaps else None

    def train() -> Iterator[str]:
        nonlocal overlapping
        for row in _rows(folder / "train.jsonl.gz"):
            overlapping += bool(overlaps and overlaps.find(row["text"]))
            yield row["text"]

    with places.path.open("rb") as file:
        texts = _HeldOut(protected, places, heldout, file)
        leaks = check_leaks(train(), texts, code, near=settings.near_duplicates)
    if leaks or overlapping:
        raise GateError(
            f"{leaks:,} training documents in {code} repeat a held-out one and {overlapping:,} overlap with an "
            "evaluation set; this is a defect of langgraft"
        )
    return {"leaks": leaks, "overlaps": overlapping}
