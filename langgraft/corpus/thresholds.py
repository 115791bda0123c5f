"""Bounds of the quality filters for a language: derived from clean text, or read from a FineWeb-2 configuration."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.corpus.document import Input, Report
from langgraft.corpus.filters import FILTERS, Bounds, Thresholds, defaults, stop_units, with_changes
from langgraft.corpus.measured import Text
from langgraft.corpus.normalise import normalise
from langgraft.corpus.readers import read
from langgraft.errors import CorpusError
from langgraft.text import language

TAIL = 0.01
MIN_DOCUMENTS = 100
MAX_DOCUMENTS = 20_000
ROOM = 1.1  # bounds are set this much wider than what clean text needs
STOP_WORD_SHARE, MIN_STOP_WORDS, MAX_STOP_WORDS = 0.008, 8, 50
# FineWeb-2's name -> ours, for those that are one upper bound.
_HIGH = {"dup_line_frac": "duplicate_lines", "new_line_ratio": "newlines"}
_KNOWN = {
    *_HIGH,
    *("dup_n_grams", "top_n_grams", "line_punct_thr", "min_avg_word_length", "max_avg_word_length"),
    *("max_non_alpha_words_ratio", "stopwords", "language_score"),
}


def thresholds(
    code: str,
    *,
    wanted: bool = False,
    reference: Sequence[Input] = (),
    tail: float = TAIL,
    fineweb: Path | None = None,
    bounds: Mapping[str, object] | None = None,
) -> Thresholds | None:
    """What `prepare` takes: bounds from a reference or a FineWeb-2 file, or the defaults, with changes by `bounds`.

    None if nothing is given and it is not `wanted`.

    Raises:
        CorpusError: both a reference and a file, or as `derive`, `read_fineweb` and `filters.with_changes`.
    """
    if reference and fineweb is not None:
        raise CorpusError("filters: give either a reference or a FineWeb-2 configuration, not both")
    if reference:
        name = ", ".join(source.name or Path(source.path).name for source in reference)
        texts = (document.text for document in read(reference, code, Report()))
        return with_changes(derive(texts, code, tail=tail, name=name), bounds)
    if fineweb is not None:
        return with_changes(read_fineweb(fineweb, code), bounds)
    return defaults(code, bounds) if wanted or bounds else None


def derive(texts: Iterable[str], code: str, *, tail: float = TAIL, name: str = "a reference") -> Thresholds:
    """Bounds that clean text of a language keeps, and its stop words.

    The rule, for each filter that allows it (see `FILTERS`): measure every text; an upper bound is the quantile
    1 - `tail` of the values, a lower one the quantile `tail`. Each is then moved outward by a tenth, and an
    upper bound alone is never below half of the default (clean text without any repeated line would otherwise
    forbid them all). Where fewer than 100 texts are long enough for a measure, its default stays. Penedo et
    al. 2025 (arXiv 2506.20920) set bounds from such tails of the values in clean text too; they cut 10%,
    because web pages are many. With a hundredth, little of a small corpus is lost.

    Stop words are the words (characters, in languages without spaces) that make up 0.8% or more of the
    reference, at least 8 and at most 50 of them, most frequent first.

    Args:
        texts: clean text, the first 20,000 of which are used.
        tail: share of the clean texts outside each single bound.
        name: what to call the reference in a report.

    Raises:
        CorpusError: fewer than 100 texts, or a tail that is no share below a half.
        InputError: the language is unknown.
    """
    if not 0 <= tail < 0.5:
        raise CorpusError(f"tail = {tail}: the share of clean text outside a bound is from 0 to below 0.5")
    known = language(code)
    cleaned = [text for _, text in zip(range(MAX_DOCUMENTS), (normalise(t, known.code) for t in texts), strict=False)]
    if len(cleaned) < MIN_DOCUMENTS:
        raise CorpusError(
            f"{name} has {len(cleaned):,} documents; bounds need at least {MIN_DOCUMENTS}, so give more clean text"
        )
    words = _stop_words(cleaned, spaces=known.spaces)
    parts = [Text(text, known.code, words) for text in cleaned]
    bounds = {filter_name: _derived(filter_name, parts, tail) for filter_name in FILTERS}
    return Thresholds(known.code, bounds, words, f"derived from {len(cleaned):,} documents of {name}, tail {tail:g}")


def _derived(name: str, parts: list[Text], tail: float) -> Bounds:
    row = FILTERS[name]
    default = row.default(spaces=parts[0].spaces)
    values = [value for text in parts if (value := row.measure(text)) is not None] if row.derive else []
    if len(values) < MIN_DOCUMENTS:
        return default
    low, high = default.low, default.high
    if "low" in row.derive:
        low = _round(float(np.quantile(values, tail)) / ROOM)
    if "high" in row.derive:
        floor = 0.0 if default.high is None or "low" in row.derive else default.high / 2
        high = _round(max(float(np.quantile(values, 1 - tail)) * ROOM, floor))
    return Bounds(low, high)


def _round(value: float) -> float:
    return round(value, 4)


def _stop_words(texts: list[str], *, spaces: bool) -> frozenset[str]:
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        found = stop_units(text, spaces=spaces)
        counts.update(found)
        total += len(found)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_STOP_WORDS]
    often = [word for word, n in ranked if n >= STOP_WORD_SHARE * total]
    return frozenset(often if len(often) >= MIN_STOP_WORDS else [word for word, _ in ranked[:MIN_STOP_WORDS]])


def read_fineweb(path: Path, code: str) -> Thresholds:
    """Bounds from a FineWeb-2 configuration (`configs/hin_Deva.yml` of huggingface/fineweb-2).

    Their `max_non_alpha_words_ratio` is the smallest share of words *with* a letter. Filters that the file does
    not name keep their defaults; `language_score` is not used. For languages without spaces, words there are
    those of a segmenter: bounds of word lengths and of letters are left out, and a few characters stand for a
    word elsewhere (`measured.CHARACTERS_PER_WORD`).

    Raises:
        CorpusError: the file is missing, no YAML, or none of FineWeb-2's.
        InputError: the language is unknown.
    """
    known = language(code)
    config = _yaml(Path(path))
    bounds = dict(defaults(known.code).bounds)
    try:
        for theirs, ours in _HIGH.items():
            if theirs in config:
                bounds[ours] = Bounds(high=float(config[theirs]))
        for theirs, ours in (("top_n_grams", "top"), ("dup_n_grams", "duplicate")):
            for n, share in config.get(theirs) or ():
                if f"{ours}_{n}_grams" in bounds:
                    bounds[f"{ours}_{n}_grams"] = Bounds(high=float(share))
        if "line_punct_thr" in config:
            bounds["line_punctuation"] = Bounds(low=float(config["line_punct_thr"]))
        if known.spaces:
            _words(config, bounds)
        stop_words = frozenset(str(word).casefold() for word in config.get("stopwords") or ())
    except (TypeError, ValueError) as error:
        raise CorpusError(f"{path} is no FineWeb-2 configuration: {error}") from error
    return Thresholds(known.code, bounds, stop_words, f"FineWeb-2 configuration {Path(path).name}")


def _words(config: dict[str, Any], bounds: dict[str, Bounds]) -> None:
    old = bounds["mean_word_length"]
    low: Any = config.get("min_avg_word_length", old.low)
    high: Any = config.get("max_avg_word_length", old.high)
    bounds["mean_word_length"] = Bounds(float(low), float(high))
    if "max_non_alpha_words_ratio" in config:
        bounds["without_letters"] = Bounds(high=_round(1 - float(config["max_non_alpha_words_ratio"])))


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CorpusError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict) or not _KNOWN & set(config):
        raise CorpusError(f"{path} is no FineWeb-2 configuration: it names none of {', '.join(sorted(_KNOWN))}")
    return config
