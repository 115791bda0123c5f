"""Summaries of documents of the user's own, scored with chrF and ROUGE-L."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langgraft.errors import CorpusError
from langgraft.evaluation.answers import Answers, Ask, Asked, Question, conversation
from langgraft.evaluation.pairs import Seen, one_line, rank
from langgraft.evaluation.rows import rows_of
from langgraft.text import Language

SHOT = 2  # an example's document is so much shorter than the others may be


@dataclass(frozen=True)
class Summaries:
    """A set of documents with their summaries; the fields are those of `[evaluate.summarisation.NAME]` in a recipe.

    Attributes:
        path: rows with fields: JSONL, JSON, CSV, TSV, Parquet.
        document, summary: the fields.
        setting: what the file is: `target`, `source`, or `translate_test` (the target's texts, translated).
        longest: characters of a document that are shown, from its beginning.
    """

    path: str
    document: str = "document"
    summary: str = "summary"
    setting: Literal["target", "source", "translate_test"] = "target"
    items: int = 100
    shots: int = 1
    max_new_tokens: int = 96
    longest: int = 1500
    ask: Ask = "few_shot"


def summaries(of: Summaries, target: Language, source: Language, *, seen: Seen | None = None, seed: int = 0) -> Asked:
    """Documents to sum up, each after `shots` examples from the same file that are not asked for.

    Left out are rows without text, documents that were there before, and those (of the new language) that stand in
    the training text.

    Raises:
        CorpusError: the file cannot be read, or a row lacks a field.
    """
    language = target if of.setting == "target" else source
    out: Counter[str] = Counter()
    rows: list[tuple[str, str, str]] = []
    known: set[str] = set()
    for place, row in rows_of(of.path):
        document, summary = (one_line(_text(row, name, place)) for name in (of.document, of.summary))
        reason = "empty" if not document or not summary else "repeated" if document in known else ""
        if reason:
            out[reason] += 1
            continue
        known.add(document)
        rows.append((document[: of.longest], summary, place))
    rows.sort(key=lambda row: rank(row[0], seed))
    if seen is not None and of.setting == "target":
        marks = seen([document for document, _, _ in rows])
        out["contaminated"] += sum(marks)
        rows = [row for row, mark in zip(rows, marks, strict=True) if not mark]
    shown = sorted(rows[: 8 * of.shots], key=lambda row: len(row[0]))[: of.shots]
    rest = [row for row in rows if row not in shown][: of.items]
    cut = of.longest // SHOT
    head = "".join(f"Text: {document[:cut]}\nSummary: {summary}\n\n" for document, summary, _ in shown)
    order = f"Sum up this text in {language.name}: "
    said = [(order + document[:cut], summary) for document, summary, _ in shown]
    questions = [
        Question(f"{head}Text: {document}\nSummary:", conversation(said, order + document), summary, place)
        for document, summary, place in rest
    ]
    return Asked(tuple(questions), language, len(shown), dict(out))


def summary_measure(asked: Asked, of: Summaries, name: str) -> Answers:
    """The measure of one set."""
    where, facts = ("summarisation", name), {"setting": of.setting}
    return Answers(where, asked, ("chrf", "rouge_l"), of.max_new_tokens, of.ask, facts=facts)


def _text(row: Mapping[str, Any], name: str, place: str) -> str:
    if row.get(name) is None:
        raise CorpusError(f"{place} has no field `{name}` (it has {', '.join(row)})")
    return str(row[name])
