"""Labelled sets asked as choices: entailment, sentiment, multiple choice, in any language and any wording.

A prompt with `{field}` places becomes the context, and the options are the texts of fields (multiple choice) or a word
for each label (entailment, sentiment). Scores are those of `langgraft.evaluation.choice`.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraft.errors import CorpusError
from langgraft.evaluation.choice import Built, Item
from langgraft.evaluation.rows import rows_of

SETTINGS = ("target", "source", "translate_test")
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Labelled:
    """A labelled set and how it is asked.

    Attributes:
        path: rows with fields: JSONL, JSON, CSV, TSV, Parquet.
        prompt: the context, with `{field}` where a row's text stands.
        words: for each label as the file writes it, the option's text; for entailment and sentiment.
        options: the fields that hold the options; for multiple choice.
        label: the field with the right label, or with the number or letter of the right option.
        first: number of the first option where labels are numbers.
        setting: what the file is: `target`, `source`, or `translate_test` (the target's texts, translated).
    """

    path: str
    prompt: str
    words: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    label: str = "label"
    first: int = 0
    setting: str = "target"


def labelled_items(of: Labelled, *, items: int = 200, seed: int = 0) -> Built:
    """Items of a labelled set, in an order that depends on nothing but their text and the seed.

    Raises:
        CorpusError: a row has no such field, or a label that has no option.
    """
    if bool(of.words) == bool(of.options):
        raise CorpusError(f"{of.path}: give either `words` for its labels or the fields of its `options`")
    found = []
    for place, row in rows_of(of.path):
        context = _filled(of.prompt, row, place)
        options = tuple(of.words.values()) if of.words else tuple(_text(row, name, place) for name in of.options)
        answer = _answer(of, row, place)
        found.append(Item(context, _FIELD.sub("", of.prompt), options, answer, place))
    found.sort(key=lambda item: hashlib.sha256(f"{seed}\t{item.context}\t{item.id}".encode()).hexdigest())
    if not found:
        raise CorpusError(f"there is no row in {of.path}")
    return Built(tuple(found[:items]), len(found[0].options), 0, {})


def _text(row: Mapping[str, Any], name: str, place: str) -> str:
    if row.get(name) is None:
        raise CorpusError(f"{place} has no field `{name}` (it has {', '.join(row)})")
    return str(row[name])


def _filled(prompt: str, row: Mapping[str, Any], place: str) -> str:
    return _FIELD.sub(lambda match: _text(row, match.group(1), place), prompt)


def _answer(of: Labelled, row: Mapping[str, Any], place: str) -> int:
    label = _text(row, of.label, place).strip()
    if of.words:
        names = [str(name) for name in of.words]
        if label not in names:
            raise CorpusError(f"{place}: label `{label}` has no word; `words` has {', '.join(names)}")
        return names.index(label)
    number = int(label) - of.first if label.isdecimal() else ord(label.upper()[:1] or "?") - ord("A")
    if not 0 <= number < len(of.options):
        raise CorpusError(f"{place}: label `{label}` is none of {len(of.options)} options, numbered from {of.first}")
    return number
