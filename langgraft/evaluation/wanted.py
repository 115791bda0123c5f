"""What to measure, in one place for recipes and the command line: from paths to measures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraft.corpus.document import Document, Input, Report
from langgraft.corpus.readers import read
from langgraft.errors import CorpusError
from langgraft.evaluation.answers import Asked
from langgraft.evaluation.chat_ends import ChatEnds
from langgraft.evaluation.choice import Built, Choice, continuation_items, translation_items
from langgraft.evaluation.classification import Labelled, labelled_items
from langgraft.evaluation.minimal_pairs import read_minimal_pairs
from langgraft.evaluation.pairs import training_check
from langgraft.evaluation.rows import parallel_texts
from langgraft.evaluation.suite import BitsPerByte, Measure
from langgraft.evaluation.summarisation import Summaries, summaries, summary_measure
from langgraft.evaluation.translation import Translation, translation_measure, translations
from langgraft.progress import Log
from langgraft.text import Language

Training = Callable[[], Iterable[str]]
FEWEST = 20  # items below which an accuracy says nothing


@dataclass(frozen=True)
class Wanted:
    """What to measure beside bits per byte. Paths are as everywhere: files, folders, globs, `package:…`, `hub:…`.

    Attributes:
        parallel: text in both languages, for translation choice.
        continuation: make continuation choice from the held-out documents.
        items, options, shots: of translation and continuation choice.
        minimal_pairs: files of minimal pairs, BLiMP's or in its format.
        code_mixed: text that mixes both languages.
        classification: labelled sets by their names in the results.
        translation: sentences to translate in both directions; nothing without its `parallel`.
        summarisation: documents to sum up, by their names in the results.
        chat_messages, chat_tokens: questions for models with a chat template, and the tokens in which answers end.
        training: texts that the adapted model was trained on, so that none of them is asked for.
    """

    parallel: Sequence[str] = ()
    continuation: bool = False
    items: int = 200
    options: int = 4
    shots: int = 3
    minimal_pairs: Sequence[str] = ()
    code_mixed: Sequence[str] = ()
    classification: Mapping[str, Labelled] = field(default_factory=dict)
    translation: Translation = field(default_factory=Translation)
    summarisation: Mapping[str, Summaries] = field(default_factory=dict)
    chat_messages: Sequence[str] = ()
    chat_tokens: int = 96
    training: Training | None = None
    seed: int = 0


def documents_of(paths: Sequence[str], code: str, most: int) -> list[Document]:
    """The first documents of some inputs.

    Raises:
        CorpusError: an input cannot be read, or there is no text.
    """
    found = []
    for document in read([Input(path) for path in paths], code, Report()):
        if document.text.strip():
            found.append(document)
        if len(found) == most:
            break
    if not found:
        raise CorpusError(f"there is no text in {', '.join(paths)}")
    return found


def measures(
    wanted: Wanted,
    texts: Mapping[str, Sequence[Document]],
    target: Language,
    source: Language,
    *,
    window: int = 512,
    stride: int = 256,
    documents: int = 1000,
    log: Log | None = None,
) -> list[Measure]:
    """Everything to ask models for: bits per byte of `texts` (by side), and what else is wanted.

    Raises:
        CorpusError: a file cannot be read, or has fewer than FEWEST items to ask for.
    """
    found: list[Measure] = [
        BitsPerByte(side, [one.text for one in of], [one.source for one in of], window, stride)
        for side, of in texts.items()
    ]
    if wanted.code_mixed:
        mixed = documents_of(wanted.code_mixed, target.code, documents)
        of_texts, sources = [one.text for one in mixed], [one.source for one in mixed]
        found.append(BitsPerByte("", of_texts, sources, window, stride, key="code_mixed"))
    found += [read_minimal_pairs(path) for path in wanted.minimal_pairs]
    for name, of in wanted.classification.items():
        asked = labelled_items(of, items=wanted.items, seed=wanted.seed)
        facts = {"setting": of.setting, "kind": "multiple_choice" if of.options else "labels"}
        found.append(Choice(("classification", name), asked, facts=facts))
    found += _choices(wanted, texts, target, source, log)
    found += _answers(wanted, target, source)
    return found + ([ChatEnds(wanted.chat_messages, wanted.chat_tokens)] if wanted.chat_messages else [])


def _answers(wanted: Wanted, target: Language, source: Language) -> Iterator[Measure]:
    """Translations and summaries."""
    seen = training_check(wanted.training, target.code)
    of = wanted.translation
    if of.parallel:
        pairs = parallel_texts(of.parallel, target.code, source.code)
        for way in ("to_target", "to_source"):
            how: dict[str, Any] = {"items": of.items, "shots": of.shots, "seen": seen, "seed": wanted.seed}
            asked = translations(pairs, target, source, to_target=way == "to_target", **how)
            _enough(asked, "translation", ", ".join(of.parallel))
            yield translation_measure(asked, of, way)
    for name, one in wanted.summarisation.items():
        asked = summaries(one, target, source, seen=seen, seed=wanted.seed)
        _enough(asked, "summarisation", one.path)
        yield summary_measure(asked, one, name)


def _enough(asked: Asked, what: str, path: str) -> None:
    if len(asked.questions) < FEWEST:
        raise CorpusError(
            f"only {len(asked.questions)} items for {what} could be made of {path}, "
            f"and fewer than {FEWEST} say nothing (left out: {_reasons(asked.left_out)})"
        )


def _choices(
    wanted: Wanted, texts: Mapping[str, Sequence[Document]], target: Language, source: Language, log: Log | None
) -> list[Measure]:
    seen = training_check(wanted.training, target.code)
    how = {"items": wanted.items, "options": wanted.options, "seed": wanted.seed}
    built: dict[tuple[str, str], Built] = {}
    if wanted.parallel:
        pairs = parallel_texts(wanted.parallel, target.code, source.code)
        for way in ("to_target", "to_source"):
            asked: dict[str, Any] = {"to_target": way == "to_target", "shots": wanted.shots, "seen": seen, **how}
            built["translation", way] = translation_items(pairs, target, source, **asked)
    if wanted.continuation:
        for side, of, check in (("target", target, seen), ("source", source, None)):
            own = [(one.text, one.source) for one in texts.get(side, ())]
            if own:
                built["continuation", side] = continuation_items(own, of, seen=check, **how)
    found: list[Measure] = []
    for (kind, what), one in built.items():
        if len(one.items) >= FEWEST:
            found.append(Choice(("choice", kind, what), one))
        elif kind == "translation":
            raise CorpusError(
                f"only {len(one.items)} items for translation choice could be made of {', '.join(wanted.parallel)}, "
                f"and fewer than {FEWEST} say nothing (left out: {_reasons(one.left_out)})"
            )
        elif log:
            reasons = _reasons(one.left_out)
            log.say(f"evaluate: no continuation choice for {what}: {len(one.items)} items (left out: {reasons})")
    return found


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "none"


def as_listed(results: dict[str, Any]) -> dict[str, Any]:
    """The results with `classification` as a list of sets, each with its measure under `accuracy`."""
    sets = results.get("classification")
    if sets is None:
        return results
    parts = ("models", "changes", "better")
    listed = [
        {
            "name": name,
            **{key: value for key, value in found.items() if key not in parts},
            "accuracy": {key: found[key] for key in parts},
        }
        for name, found in sets.items()
    ]
    return {**results, "classification": listed}
