"""Do answers come to an end? A chat model that forgot its format writes on until it is stopped.

Short questions are put to every model through its own chat template; an answer ends if the model writes a token that
ends a turn within so many tokens. Nothing is asked of what the answer says. A fine-tuned model that answers without
end, or a base that lost this through further pretraining, is of no use in a chat whatever it knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.evaluation.likelihood import Scorer
from langgraft.evaluation.stats import measure, wilson
from langgraft.evaluation.suite import Way, kept
from langgraft.progress import Log
from langgraft.store import fingerprint

QUESTIONS = (
    "What is the capital of France?", "How many days are in a week?", "Say hello.", "What colour is the sky?",
    "Is water wet? Answer yes or no.", "What is two plus three?", "Name one fruit.", "What is the opposite of hot?",
    "Which animal says meow?", "What do bees make?", "Name a month with 28 days.", "How many legs has a spider?",
    "What language is spoken in Brazil?", "Who wrote Romeo and Juliet?", "What is frozen water called?",
    "Name the largest ocean.", "What is ten minus four?", "Give one word that rhymes with cat.",
    "What is the first letter of the alphabet?", "Is the sun a star? Answer in one word.",
    "What do you use to cut paper?", "Where do fish live?", "What is the plural of mouse?", "Tell me goodbye.",
)  # fmt: skip
"""English questions that a sentence answers."""


@dataclass(frozen=True)
class ChatEnds:
    """Share of answers that end, as a measure of `langgraft.evaluation.suite`; of models with a chat template."""

    messages: Sequence[str]
    max_new_tokens: int = 96
    where: tuple[str, ...] = field(default=("chat", "ends"), init=False)

    def raw(self, scorer: Scorer, keep: Path, identity: str, log: Log | None, what: str) -> Any:
        """Every answer with what ended it; None for a model without a chat template."""
        settings = {
            "model": identity, "messages": fingerprint(list(self.messages)), "max_new_tokens": self.max_new_tokens,
        }  # fmt: skip

        def ask() -> list[list[str]] | None:
            if not scorer.chats:
                return None
            prompts = [({"role": "user", "content": message},) for message in self.messages]
            return [list(one) for one in scorer.write(prompts, max_new_tokens=self.max_new_tokens, log=log, what=what)]

        return kept(keep.with_name(f"{keep.name}.json"), settings, ask)

    def figures(self, raws: Mapping[str, Any], way: Way) -> dict[str, Any]:
        """The share with Wilson's interval (a bootstrap's has no width where all answers end); changes are paired."""
        chats = {name: raw for name, raw in raws.items() if raw is not None}
        ended = {name: np.array([float(finish == "end") for _, finish in raw]) for name, raw in chats.items()}
        found: dict[str, Any] = {"models": {}, "changes": {}, "better": "higher"}
        if ended:
            found = measure(ended, resamples=way.resamples, seed=way.seed)
        if next(iter(raws)) not in chats:
            found["changes"] = {}  # there is no first model to compare with
        for name, marks in ended.items():
            low, high = wilson(int(marks.sum()), len(marks))
            found["models"][name] |= {"low": low, "high": high}
        return {
            **found,
            "items": len(self.messages),
            "max_new_tokens": self.max_new_tokens,
            "examples": [
                {"message": message, "written": {name: raw[number][0] for name, raw in chats.items()}}
                for number, message in enumerate(self.messages[:3])
            ],
        }
