"""Every check of `langgraft doctor`, in the order they are made, and what each of them needs."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langgraft.doctor.subject import Subject
from langgraft.errors import LanggraftError
from langgraft.evaluation.cautions import Finding


@dataclass(frozen=True)
class Check:
    """One row: `function` yields findings about a subject that has what it `needs`.

    `reads` says what it costs: "files" are small files and headers, "text" all text of a corpus, "weights" the
    embedding and the head, "model" lets the model write or measures the
    processor (only when asked for).
    """

    name: str
    looks_for: str
    function: str
    needs: tuple[str, ...]
    reads: str = "files"


CHECKS: tuple[Check, ...] = (
    Check("recipe", "a recipe that cannot run, or risks what it need not", "recipe:recipe", ("recipe",)),
    Check("lock", "a lock whose process died or hangs", "runs:stuck_lock", ("run",)),
    Check("stages", "half-done and stale stages, missing results", "runs:stages", ("run",)),
    Check("loss", "a loss that is no number, rises, or never moved", "training:loss", ("metrics",)),
    Check("slow", "training that slowed down on the way", "training:slower", ("metrics",)),
    Check("speed", "training far below what the processor can do", "training:speed",
          ("metrics", "report", "model"), "model"),
    Check("gates", "failed gates", "runs:gates", ("report",)),
    Check("gain", "a language that was not learned", "runs:gain", ("report",)),
    Check("forgetting", "a source language that was lost", "runs:forgetting", ("report",)),
    Check("fertility", "text in many tokens, an extension that is not used", "runs:fertility", ("report",)),
    Check("little-data", "too little text to learn from or to judge by", "runs:little_data", ("report",)),
    Check("wide-intervals", "figures that could be anything", "runs:wide_intervals", ("report",)),
    Check("language", "answers in another language", "answers:reported", ("report",)),
    Check("ends", "chat answers that do not come to an end", "runs:ends", ("report",)),
    Check("leak", "held-out documents in the training text", "runs:leaks", ("run",), "text"),
    Check("files", "missing or damaged files", "files:files", ("model",)),
    Check("manifest", "files of an export that changed since", "files:manifest", ("model",), "weights"),
    Check("tokenizer-drift", "a tokenizer that gives other ids than when it was made", "files:drift", ("model",)),
    Check("fit", "ids without rows, rows without tokens that can be generated", "files:fit", ("model",)),
    Check("tied-head", "a head that is tied in the config and not in the files, or the reverse", "files:tied",
          ("model",), "weights"),
    Check("template", "a chat template that is missing or another than the base's", "files:template", ("model",)),
    Check("special-ids", "special ids that name other tokens than the base's", "files:special", ("model",)),
    Check("dead-rows", "zero, endless and equal rows", "rows:dead", ("model",), "weights"),
    Check("untrained-rows", "new rows that training never moved", "rows:untrained", ("model", "surgery"), "weights"),
    Check("shifted-ids", "new rows that belong to other tokens", "rows:shifted", ("model", "base"), "weights"),
    Check("answers", "a model that answers in another language", "answers:asked", ("model", "language"), "model"),
    Check("endless", "a model whose answers in a chat do not come to an end", "answers:endless", ("model",), "model"),
)  # fmt: skip
NAMES = tuple(check.name for check in CHECKS)


def made(subject: Subject, *, deep: bool = False, only: Sequence[str] = ()) -> list[Check]:
    """The checks that are made of a subject: those asked for that it has what they need for."""
    return [
        check
        for check in CHECKS
        if (check.name in only if only else deep or check.reads != "model")
        and all(subject.has(need) for need in check.needs)
    ]


def diagnose(subject: Subject, *, deep: bool = False, only: Sequence[str] = ()) -> list[Finding]:
    """Make every check that the subject has what it needs for.

    A check that cannot be made because a file is damaged is a finding itself, each damage once;
    nothing else is asked of a model whose files are damaged.

    Args:
        deep: also the checks that let the model write (seconds on a small model, minutes on a large one).
        only: names of the checks to make; all by default.
    """
    found: list[Finding] = []
    for check in made(subject, deep=deep, only=only):
        if "model" in check.needs and any(finding.check == "files" for finding in found):
            continue
        try:
            found += function_of(check)(subject)
        except (LanggraftError, ValueError, KeyError, TypeError, OSError) as error:
            if not any(str(error) in finding.problem for finding in found):
                fix = "mend or make that file again; the other checks were made without it"
                found.append(Finding(check.name, f"could not be judged: {error}", str(subject.path), "–", fix))
    return found


def function_of(check: Check) -> Callable[[Subject], Iterator[Finding]]:
    """The function behind a row."""
    module, _, name = check.function.partition(":")
    found: Any = getattr(importlib.import_module(f"langgraft.doctor.{module}"), name)
    return found
