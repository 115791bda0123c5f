"""The language a model answers in."""

from collections.abc import Iterator, Sequence

from langgraft.doctor.subject import Subject
from langgraft.evaluation.cautions import Finding, judge_answers
from langgraft.evaluation.prompts import shipped
from langgraft.evaluation.side_by_side import continuations, written_in
from langgraft.text import language


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
    return judge_answers([written_in(text, code) for text in texts], language(code).name, where)
