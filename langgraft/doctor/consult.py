"""`langgraft doctor`: one subject, or every run of a folder."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langgraft.doctor.checks import NAMES, diagnose, made
from langgraft.doctor.subject import subject_of
from langgraft.errors import InputError, RecipeError
from langgraft.methods import suggest
from langgraft.status import run_folders


def consult(
    what: Path | None,
    *,
    base: str | None = None,
    language: str | None = None,
    deep: bool = False,
    only: Sequence[str] = (),
    runs: Path = Path("runs"),
) -> list[dict[str, Any]]:
    """Judge `what`, or every run in `runs`.

    Returns:
        per subject `name`, `path`, `checks` (names of those that were made) and `findings`: a list of
        `{check, problem, where, figure, fix}`, empty for a healthy one.

    Raises:
        InputError: there is nothing to judge, or `only` names no check.
    """
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise RecipeError(f"--only {unknown[0]}: there is no such check; {suggest(unknown[0], NAMES)}")
    paths = [what] if what is not None else run_folders(runs)
    if not paths:
        raise InputError(f"{runs} holds no run; name a run, a model folder or a recipe")
    results = []
    for path in paths:
        subject = subject_of(path, base=base, language=language, runs=runs)
        found = diagnose(subject, deep=deep, only=only)
        results.append(
            {
                "name": subject.name,
                "path": str(path),
                "checks": [check.name for check in made(subject, deep=deep, only=only)],
                "findings": [asdict(finding) for finding in found],
            }
        )
    return results
