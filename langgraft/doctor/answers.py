"""The language a model answers in, and whether its answers end."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from langgraft.doctor.subject import Subject
from langgraft.evaluation.cautions import ENDS, Finding, judge_answers, unending
from langgraft.evaluation.chat_ends import QUESTIONS
from langgraft.evaluation.models import Measured, open_scorer
from langgraft.evaluation.prompts import shipped
from langgraft.evaluation.side_by_side import continuations, written_in
from langgraft.evaluation.words import result_of
from langgraft.text import language
from langgraft.tokenizer.template import template_of

ASKED, MAX_NEW_TOKENS = 8, 64  # questions, and tokens within which an answer should end


def reported(subject: Subject) -> Iterator[Finding]:
    """Answers in the run's report."""
    code = subject.language or subject.report.get("language", {}).get("code")
    if code is None:
        return
    texts = [str(g[result_of(g)]) for g in subject.report.get("generations") or [] if g.get("language") == code]
    yield from _judge(texts, code, "report.json, generations")


def asked(subject: Subject) -> Iterator[Finding]:
    """Answers of the model itself to the prompts that are shipped for its language."""
    if subject.model is None or subject.language is None:
        return
    prompts = [prompt.text for prompt in shipped(subject.language)]
    texts = continuations(subject.model, prompts, max_new_tokens=30)
    yield from _judge(texts, language(subject.language).code, f"{subject.model}, {len(prompts)} shipped prompts")


def endless(subject: Subject) -> Iterator[Finding]:
    """Answers of a model with a chat template to short questions, unless its base's do not end either."""
    if subject.model is None or template_of(subject.model) is None:
        return
    share = _ending(subject.model)
    if share < ENDS and not (subject.base and template_of(subject.base) and _ending(subject.base) <= share):
        yield replace(unending(f"{share:.0%} of {ASKED} answers end", str(subject.model)), check="endless")


def _ending(folder: Path) -> float:
    """Share of answers of a hub folder that end."""
    with open_scorer(Measured("model", str(folder), "folder")) as scorer:
        prompts = [({"role": "user", "content": text},) for text in QUESTIONS[:ASKED]]
        written = scorer.write(prompts, max_new_tokens=MAX_NEW_TOKENS)
    return sum(one.finish == "end" for one in written) / ASKED


def _judge(texts: Sequence[str], code: str, where: str) -> Iterator[Finding]:
    return judge_answers([written_in(text, code) for text in texts], language(code).name, where)
