"""The language a model answers in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langgraft.doctor.subject import Finding, Subject
from langgraft.evaluation.prompts import shipped
from langgraft.evaluation.side_by_side import continuations, written_in
from langgraft.text import language

ENOUGH = 4  # answers that can be judged
WRONG = 0.5
FIX = (
    "train on more text of the language, with less replay; look at the corpus page for text in other languages, and "
    "prompt a base model with a beginning, not with a command"
)


def reported(subject: Subject) -> Iterator[Finding]:
    """Answers in the run's report."""
    code = subject.language or subject.report.get("language", {}).get("code")
    if code is None:
        return
    texts = [str(g["adapted"]) for g in subject.report.get("generations") or [] if g.get("language") == code]
    yield from _judge(texts, code, "report.json, generations")


def asked(subject: Subject) -> Iterator[Finding]:
    """Answers of the model itself to the prompts that are shipped for its language."""
    if subject.model is None or subject.language is None:
        return
    prompts = [prompt.text for prompt in shipped(subject.language)]
    texts = continuations(subject.model, prompts, max_new_tokens=30)
    yield from _judge(texts, language(subject.language).code, f"{subject.model}, {len(prompts)} shipped prompts")


def _judge(texts: Sequence[str], code: str, where: str) -> Iterator[Finding]:
    judged: list[Mapping[str, Any]] = [one for text in texts if (one := written_in(text, code))["right"] is not None]
    wrong = [one["language"] for one in judged if not one["right"]]
    if len(judged) >= ENOUGH and len(wrong) > WRONG * len(judged):
        named = [name for name in wrong if name]
        most = max(set(named), key=named.count) if named else None
        into = f", mostly {language(most).name}" if most else ""
        name = language(code).name
        yield Finding(
            "language", f"the model does not answer in {name}{into}", where, f"{len(wrong)} of {len(judged)}", FIX
        )
