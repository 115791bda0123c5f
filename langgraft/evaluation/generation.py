"""What can be told of generations without a reader: language, script, repetition; and whether chats look as before.

These are proxies: a text can be right in all of them and make no sense. They find the common failures: a model that
answers in its source language, mixes scripts, or loops.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraft.corpus.filters import Text
from langgraft.corpus.langid import Identifier
from langgraft.errors import InputError
from langgraft.evaluation.stats import Better, measure
from langgraft.text import language
from langgraft.tokenizer.files import load
from langgraft.tokenizer.template import Message, render, special_of, template_of

N = 4  # units of a repeated run
PROMPT_SHARE, LONGEST_PROMPT = 0.4, 80  # of a held-out document, and in characters
CHATS: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "What is the capital of France?"},),
    ({"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hello!"}),
    (
        {"role": "user", "content": "Write a short poem about rain."},
        {"role": "assistant", "content": "Rain falls,\nsoft as a whisper."},
        {"role": "user", "content": "Thank you. Now count to 10, and don't use words: 1, 2, 3 ..."},
    ),
    (
        {
            "role": "user",
            "content": "def add(a, b):\n    return a + b\n\nWhat does this do?  \n\tExplain it in 2 steps.",
        },
    ),
)
"""English conversations whose ids an adapted model must read as its base does."""


def beginnings(texts: Sequence[str], most: int) -> list[str]:
    """The beginnings of held-out documents, as prompts: two fifths of each, at most 80 characters."""
    lines = (" ".join(text.split()) for text in texts)
    cut = (line[: min(LONGEST_PROMPT, int(len(line) * PROMPT_SHARE))].rstrip() for line in lines)
    return [one for one in cut if len(one) >= 4][:most]


def quality(written: Mapping[str, Sequence[str]], code: str, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """How continuations of the same prompts look, by model.

    Returns:
        `right_language`: share of texts that are judged to be in the language (those without letters are not);
        `script_purity`: share of their letters in its scripts; `repetition`: share of runs of four words (or as many
        characters as make four words) that stood in the text before, after Welleck et al. 2020 (arXiv 1908.04319).
    """
    judge = Identifier(language(code).code)
    measures: dict[str, tuple[Better, Any]] = {
        "right_language": ("higher", lambda text: float(bool(text.strip()) and judge.check(text).keep)),
        "script_purity": ("higher", lambda text: judge.own_share(judge.shares(text))),
        "repetition": ("lower", lambda text: repetition(text, code)),
    }
    found: dict[str, Any] = {}
    for name, (better, of) in measures.items():
        values = {model: [of(text) for text in texts] for model, texts in written.items()}
        found[name] = measure(values, better=better, resamples=resamples, seed=seed)
    return {**found, "prompts": len(next(iter(written.values())))}


def repetition(text: str, code: str) -> float:
    """Share of runs of four words that stood in the text before; 0 for a text of fewer words."""
    parts = Text(text, code)
    units, width = parts.units, N * parts.size
    runs = [tuple(units[i : i + width]) for i in range(len(units) - width + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def same_chats(base: Path, adapted: Path, chats: Sequence[Sequence[Message]] = CHATS) -> dict[str, Any]:
    """Whether both model folders turn source-language conversations into the same ids.

    Returns:
        `template` ("same", "differs", "lost", "none"), `messages` (conversations compared), `same_ids` (share of them,
        None where there is no template) and `first_difference` (the text and both models' ids, or None).
    """
    templates = template_of(base), template_of(adapted)
    if templates[0] is None:
        return {"template": "none", "messages": 0, "same_ids": None, "first_difference": None}
    if templates[1] is None:
        return {"template": "lost", "messages": 0, "same_ids": 0.0, "first_difference": None}
    same, compared, first = 0, 0, None
    tokenizers = load(base), load(adapted)
    for chat in chats:
        try:
            text = render(templates[0], chat, special_of(base))
        except InputError:
            continue  # some templates know no system prompt
        compared += 1
        try:
            other = render(templates[1], chat, special_of(adapted))
        except InputError as error:
            other = str(error)
        ids = [t.encode(s, add_special_tokens=False).ids for t, s in zip(tokenizers, (text, other), strict=True)]
        if ids[0] == ids[1]:
            same += 1
        elif first is None:
            first = {"text": text, "base": ids[0], "adapted": ids[1]}
    return {
        "template": "same" if templates[0] == templates[1] else "differs",
        "messages": compared,
        "same_ids": same / compared if compared else None,
        "first_difference": first,
    }
