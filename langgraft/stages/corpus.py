"""corpus: read, clean, check the language, deduplicate, split - in both languages."""

from pathlib import Path
from typing import Any

from langgraft.corpus.card import write_card
from langgraft.corpus.part import Part, cores
from langgraft.corpus.prepare import prepare
from langgraft.corpus.thresholds import thresholds
from langgraft.evaluation.corpus_page import write_page
from langgraft.recipe import Corpus
from langgraft.runs import Inputs, as_input


def run(section: Corpus, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/text/{target,source}/{train,dev,test}.jsonl.gz`."""
    summary = _prepare(section, inputs, out)
    write_card(out / "text")
    write_page(out / "text")
    inputs.log.say(f"corpus: {out / 'text' / 'corpus.html'}")
    return summary


def clean_part(section: Corpus, inputs: Inputs, out: Path, part: Part) -> dict[str, Any]:
    """Clean one part of the text, beside other processes; `run` finishes when all parts are done."""
    return _prepare(section, inputs, out, part)


def _prepare(section: Corpus, inputs: Inputs, out: Path, part: Part | None = None) -> dict[str, Any]:
    filters = section.filters
    bounds = thresholds(
        inputs.model.language,
        wanted=filters.quality,
        reference=[as_input(entry) for entry in filters.reference],
        tail=filters.tail,
        fineweb=Path(filters.fineweb) if filters.fineweb else None,
        bounds=filters.bounds,
    )
    return prepare(
        [as_input(entry) for entry in section.target],
        out / "text",
        language=inputs.model.language,
        source=[as_input(entry) for entry in section.source],
        source_language=inputs.model.source_language,
        min_characters=section.min_characters,
        max_characters=section.max_characters,
        dev=section.dev,
        test=section.test,
        source_dev=section.source_dev,
        source_test=section.source_test,
        seed=section.seed,
        near_duplicates=section.near_duplicates,
        decontaminate=section.decontaminate,
        workers=inputs.compute.workers or cores(),
        mixed=section.mixed,
        langid_model=section.langid_model or "",
        extra_rules=section.extra_rules,
        thresholds=bounds,
        boilerplate=filters.boilerplate,
        mask=section.mask,
        part=part,
        log=inputs.log,
    )
