"""Recipe sections of what the evaluation lets the models write."""

from typing import Literal

from pydantic import Field

from langgraft.recipe_section import Section

Ask = Literal["few_shot", "chat"]


class TranslationSection(Section):
    """Translation in both directions, scored with chrF and BLEU (sacrebleu)."""

    parallel: list[str] = Field(default_factory=list)
    """Files with text in both languages: rows with a field for each code, PO, TMX, ..."""
    items: int = Field(default=100, ge=20)
    """At most this many sentences."""
    shots: int = Field(default=3, ge=0, le=20)
    """Examples before each, from the same files; none of them is asked for."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest translation in tokens."""
    ask: Ask = "few_shot"
    """`chat` asks models that have a chat template in conversations; others, and all with `few_shot`, see examples and
    go on."""
    tokenizer: Literal["auto", "13a", "intl", "zh", "char", "ja-mecab", "ko-mecab", "flores200"] = "auto"
    """What cuts words for BLEU; `auto` takes one that needs no network, see docs/evaluation.md."""


class SummariesSection(Section):
    """Summaries, scored with chrF and ROUGE-L; one `[evaluate.summarisation.NAME]` table each."""

    path: str
    """Rows with fields: JSONL, JSON, CSV, TSV or Parquet."""
    document: str = "document"
    """The field with the text."""
    summary: str = "summary"
    """The field with its summary."""
    setting: Literal["target", "source", "translate_test"] = "target"
    """What the file holds: the set in the new language, in the source language, or translated into that."""
    items: int = Field(default=100, ge=20)
    """At most this many documents."""
    shots: int = Field(default=1, ge=0, le=10)
    """Examples before each, from the same file; none of them is asked for."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Longest summary in tokens."""
    longest: int = Field(default=1500, ge=100)
    """Characters of a document that are shown, from its beginning; of an example half as many."""
    ask: Ask = "few_shot"
    """As in `[evaluate.translation]`."""


class ChatSection(Section):
    """Whether answers come to an end, for bases and models with a chat template."""

    questions: int = Field(default=24, ge=0, le=24)
    """How many of the short English questions that come with langgraft are put to both models; 0 asks none."""
    messages: list[str] = Field(default_factory=list)
    """More questions, in any language."""
    max_new_tokens: int = Field(default=96, ge=1)
    """An answer ends if it does so within so many tokens."""
