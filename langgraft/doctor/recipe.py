"""What a recipe tells before it runs."""

from collections.abc import Iterator
from pathlib import Path

from langgraft.corpus.sources import resolve
from langgraft.doctor.subject import Subject
from langgraft.errors import LanggraftError
from langgraft.evaluation.cautions import PER_TOKEN, Finding
from langgraft.pipeline import plan
from langgraft.recipe import Recipe
from langgraft.runs import as_input

FAST = 5e-3  # above it, rates of this kind end in a loss that diverges


def recipe(subject: Subject) -> Iterator[Finding]:
    """What keeps it from running, and choices that risk forgetting, no figures, or rows without training."""
    of, where = subject.recipe, str(subject.path)
    assert of is not None
    runs = subject.run.parent if subject.run else Path("runs")
    try:
        plan(of, runs)
    except LanggraftError as error:
        yield Finding("recipe", str(error), where, "–", "mend that; `langgraft plan` shows the whole")
        return
    if of.evaluate is None:
        yield Finding("recipe", "nothing will be measured", where, "no [evaluate]", "add the section [evaluate]")
    elif not of.corpus.source:
        fix = "add [[corpus.source]] with held-out text in the source language"
        yield Finding("recipe", "forgetting will not be measured", where, "no [[corpus.source]]", fix)
    yield from _training(of, where)


def _training(of: Recipe, where: str) -> Iterator[Finding]:
    pretrain = of.pretrain
    if pretrain is None:
        if of.sft is None:
            fix = "add the section [pretrain]: new rows are no use before training"
            yield Finding("recipe", "nothing will be trained", where, "no [pretrain]", fix)
        return
    if pretrain.replay_ratio == 0:
        fix = "set pretrain.replay_ratio = 0.25; without it in-context learning goes first, unseen by perplexity"
        yield Finding("recipe", "the base will forget: no replay", where, "replay_ratio = 0", fix)
    for name in ("learning_rate", "new_rows_learning_rate", "old_rows_learning_rate"):
        rate = getattr(pretrain, name)
        if rate > FAST:
            yield Finding("recipe", f"pretrain.{name} is very high", where, f"{rate:g}", "start from the defaults")
    new = of.tokenizer.new_tokens
    text = sum(file.stat().st_size for entry in of.corpus.target for file in resolve(as_input(entry)))
    if isinstance(new, int) and of.tokenizer.method != "none" and pretrain.tokens < PER_TOKEN * new:
        figure = f"{pretrain.tokens / max(new, 1):.1f} training tokens for each of {new:,} new tokens"
        fix = f"train longer, or add fewer tokens; the text is {text / 1e6:.1f} MB"
        yield Finding("recipe", "too little training for so many new tokens", where, figure, fix)
