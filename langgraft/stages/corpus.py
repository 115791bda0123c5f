"""corpus: read, clean, check the language, deduplicate, split - in both languages."""

import os
from pathlib import Path
from typing import Any

from langgraft.corpus.card import write_card
from langgraft.corpus.prepare import prepare
from langgraft.corpus.thresholds import thresholds
from langgraft.evaluation.corpus_page import write_page
from langgraft.recipe import Corpus
from langgraft.runs import Inputs, as_input


def run(section: Corpus, inputs: Inputs, out: Path) -> dict[str, Any]:
    """Write `out/text/{target,source}/{train,dev,test}.jsonl.gz`."""
    filters = section.filters
    bounds = thresholds(
        inputs.model.language,
        wanted=filters.quality,
        reference=[as_input(entry) for entry in filters.reference],
        tail=filters.tail,
        fineweb=Path(filters.fineweb) if filters.fineweb else None,
        bounds=filters.bounds,
    )
    summary = prepare(
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
        workers=inputs.compute.workers or os.cpu_count() or 1,
        mixed=section.mixed,
        langid_model=section.langid_model or "",
        extra_rules=section.extra_rules,
        thresholds=bounds,
        boilerplate=filters.boilerplate,
        mask=section.mask,
        log=inputs.log,
    )
    write_card(out / "text")
    write_page(out / "text")
    inputs.log.say(f"corpus: {out / 'text' / 'corpus.html'}")
    return summary
