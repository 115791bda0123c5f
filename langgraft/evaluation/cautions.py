"""What a report warns of, each with its figure and what to do; `langgraft doctor` asks the same of a run.

Every function takes the report's dict with any part of it missing, and says nothing of what is not there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraft.evaluation.words import dig, number, percent, result_of, size, source_name, span, target_name

LOSS = 0.02  # rise of source bits per byte that is called forgetting, where it is beyond noise
DEAR = 2.0  # times the tokens per byte that the source language takes
UNUSED = 0.05  # share of tokens that an extension must save
PER_TOKEN = 10  # tokens of training for each new token
DOCUMENTS = 5  # held out; fewer say nothing
EPOCHS = 16  # after which repeated text teaches nothing (Muennighoff et al. 2023, arXiv 2305.16264)
WIDE = 0.05  # half of an interval, where that is also more than half the change
ENDS = 0.5  # share of answers that end, below which a model is of no use in a chat
ANSWERS, WRONG = 4, 0.5  # answers that can be judged, and the share of them that may be in another language


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: what, where, the figure that shows it, and how to mend it."""

    check: str
    problem: str
    where: str
    figure: str
    fix: str


def failed_gates(report: Mapping[str, Any]) -> Iterator[Finding]:
    """Checks of the run that failed."""
    for gate in report.get("gates") or []:
        if gate.get("passed") is False:
            figure = f"{gate.get('value')}, allowed {gate.get('bound')}"
            fix = "the stage's section in docs/recipe.md has the bound; the stage's log line says what was found"
            where = f"stage {gate['stage']}" if gate.get("stage") else "gates"
            yield Finding("gates", f"gate failed: {gate.get('name')}", where, figure, fix)


def no_gain(report: dict[str, Any]) -> Iterator[Finding]:
    """The target language is predicted no better than by the base."""
    change = dig(report, "bits_per_byte", "target", "change") or {}
    if change.get("high") is not None and change["high"] >= 0:
        fix = "train longer or on more text; check that the text is in the language (corpus.html)"
        worse = change.get("low") is not None and change["low"] > 0
        problem = f"{target_name(report)} is predicted {'worse than before' if worse else 'no better than before'}"
        yield Finding("gain", problem, "bits_per_byte.target", _interval(change), fix)


def forgetting(report: dict[str, Any]) -> Iterator[Finding]:
    """The source language is clearly worse."""
    change = dig(report, "bits_per_byte", "source", "change") or {}
    if change.get("mean") is not None and change["mean"] > LOSS and (change.get("low") or 0) > 0:
        fix = 'raise pretrain.replay_ratio (0.25), use replay_loss = "distill", lower old_rows_learning_rate'
        problem = f"{source_name(report)} was partly forgotten"
        yield Finding("forgetting", problem, "bits_per_byte.source", _interval(change), fix)


def _interval(change: dict[str, Any]) -> str:
    text, bounds = percent(change["mean"], signed=True), span(change)
    return f"{text}, {bounds}" if bounds else text


def fertility(report: dict[str, Any]) -> Iterator[Finding]:
    """New tokens that save nothing, or text that stays dear without new tokens."""
    new, saved = dig(report, "tokenizer", "new_tokens"), dig(report, "tokens", "target", "saved")
    if new and saved is not None and saved < UNUSED:
        fix = "learn the tokens from text like this; see `langgraft tokenizer report`, and repair_marks"
        problem = "the extension is hardly used: the new tokens save next to nothing"
        yield Finding("fertility", problem, "tokens.target", f"{percent(saved)} saved", fix)
    ours, theirs = (dig(report, "tokens", side, "adapted", "bytes_per_token") for side in ("target", "source"))
    if not new and ours and theirs and theirs > DEAR * ours:
        fix = "add tokens: [tokenizer] new_tokens = 2048; `langgraft advise` says how many are worth it"
        problem = f"{target_name(report)} takes many tokens, and no tokens were added"
        figure = f"{number(ours)} bytes per token, {source_name(report)} {number(theirs)}"
        yield Finding("fertility", problem, "tokens", figure, fix)


def little_data(report: dict[str, Any]) -> Iterator[Finding]:
    """Too few held-out documents, tokens for each new token, or text that was read over and over."""
    for side in ("target", "source"):
        documents = dig(report, "bits_per_byte", side, "documents")
        if documents is not None and documents < DOCUMENTS:
            fix = "hold out more: corpus.test (target) or corpus.source_test; intervals need some dozens"
            figure = f"{documents} documents"
            yield Finding("little-data", "too few held-out documents", f"bits_per_byte.{side}", figure, fix)
    tokens, new = dig(report, "training", "tokens"), dig(report, "tokenizer", "new_tokens")
    if tokens and new and tokens / new < PER_TOKEN:
        fix = "train longer (pretrain.tokens), or add fewer tokens (tokenizer.new_tokens)"
        figure = f"{number(tokens / new)} training tokens for each new token"
        yield Finding("little-data", "new tokens are hardly trained: too little text for them", "training", figure, fix)
    seen, text = dig(report, "training", "target_bytes"), dig(report, "corpus", "target", "splits", "train", "bytes")
    if seen and text and seen / text > EPOCHS:
        fix = "find more text, or train for fewer tokens; after four readings each one teaches less"
        figure = f"{seen / text:.0f} times {size(text)}"
        yield Finding("little-data", "the same text was read over and over", "training", figure, fix)


def wide_intervals(report: dict[str, Any]) -> Iterator[Finding]:
    """Intervals so wide that the size of a gain is mostly unknown."""
    for side in ("target", "source"):
        change = dig(report, "bits_per_byte", side, "change") or {}
        if change.get("low") is None or change.get("high") is None:
            continue
        half = (change["high"] - change["low"]) / 2
        if half > WIDE and half > abs(change.get("mean") or 0) / 2:
            fix = "measure on more documents: evaluate.documents, corpus.test, corpus.source_test"
            yield Finding("wide-intervals", "the interval is wide", f"bits_per_byte.{side}", _interval(change), fix)


def unmeasured(report: dict[str, Any]) -> Iterator[Finding]:
    """Gain without a word on forgetting."""
    bits = report.get("bits_per_byte") or {}
    if bits.get("target") and not bits.get("source"):
        fix = "add [[corpus.source]] with held-out text in the source language"
        yield Finding("unmeasured", "forgetting was not measured", "bits_per_byte.source", "no source text", fix)


def other_language(report: dict[str, Any]) -> Iterator[Finding]:
    """Answers of the adapted model in another language than the prompts'."""
    code = dig(report, "language", "code")
    marks = [
        found[result_of(found)]
        for item in report.get("generations") or []
        if item.get("language") == code and (found := item.get("written_in"))
    ]
    yield from judge_answers(marks, target_name(report), "generations")


def endless(report: dict[str, Any]) -> Iterator[Finding]:
    """Answers that do not end, where the base's did or the base cannot chat."""
    ends = dig(report, "chat", "ends") or {}
    models = ends.get("models") or {}
    adapted, base = models.get("adapted"), models.get("base")
    lost = (dig(ends, "changes", "adapted") or {}).get("verdict") == "loss"
    if adapted and (lost or (base is None and (adapted.get("mean") or 0) < ENDS)):
        before = f"; the base {percent(base['mean'])}" if base else ""
        yield unending(f"{percent(adapted['mean'])} of {ends.get('items')} answers end{before}", "chat.ends")


def unending(figure: str, where: str) -> Finding:
    """Answers do not end."""
    fix = (
        "fine-tune on conversations in the model's own template, with the loss on the token that ends a turn; after "
        "pretraining alone ask for continuations instead, and look that generation_config names that token as eos"
    )
    return Finding("ends", "answers do not come to an end", where, figure, fix)


def judge_answers(marks: Sequence[Mapping[str, Any]], name: str, where: str) -> Iterator[Finding]:
    """Whether most answers are in the language `name`; `marks` are as `side_by_side.written_in` gives them."""
    from langgraft.text import languages

    judged = [mark for mark in marks if mark.get("right") is not None]
    wrong = [str(mark.get("language") or "") for mark in judged if not mark["right"]]
    if len(judged) < ANSWERS or len(wrong) <= WRONG * len(judged):
        return
    named = sorted(code for code in wrong if code in languages())
    most = max(named, key=named.count, default="")
    into = f", mostly in {languages()[most].name}" if most else ""
    fix = (
        "train on more text of the language, with less replay; look at the corpus page for text in other languages; "
        "prompt a base model with a beginning, not with a command"
    )
    figure = f"{len(wrong)} of {len(judged)} answers"
    yield Finding("language", f"the model does not answer in {name}{into}", where, figure, fix)


CAUTIONS: tuple[Callable[[dict[str, Any]], Iterator[Finding]], ...] = (
    failed_gates, no_gain, forgetting, unmeasured, wide_intervals, little_data, fertility, other_language, endless,
)  # fmt: skip


def cautions(report: dict[str, Any]) -> list[Finding]:
    """Everything that a reader of the report should know before its figures."""
    return [finding for caution in CAUTIONS for finding in caution(report)]
