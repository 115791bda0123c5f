"""What models write when they are asked for a text that is known: the measure behind translation and summarisation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from langgraft.evaluation.likelihood import Scorer
from langgraft.evaluation.overlap import BleuTokenizer, Overlap, bleu, chrf, measure_overlap, rouge_l
from langgraft.evaluation.pairs import one_line
from langgraft.evaluation.suite import Way, kept
from langgraft.progress import Log
from langgraft.store import fingerprint
from langgraft.text import Language
from langgraft.tokenizer.template import Message

Ask = Literal["few_shot", "chat"]
ASKS = get_args(Ask)


@dataclass(frozen=True)
class Question:
    """What a model is asked for: as a text to go on with, as a conversation, and the text that should come."""

    prompt: str
    messages: tuple[Message, ...]
    reference: str
    id: str


@dataclass(frozen=True)
class Asked:
    """Questions whose answers are in one language, and how many candidates were left out for which reason."""

    questions: tuple[Question, ...]
    language: Language
    shots: int
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Answers:
    """Scores of what models write, as a measure of `langgraft.evaluation.suite`.

    Attributes:
        metrics: `chrf`, `bleu`, `rouge_l`.
        ask: `chat` puts questions to models with a chat template as a conversation; others see examples and go on.
        tokenizer: of BLEU.
        facts: what else the results shall say.
    """

    where: tuple[str, ...]
    asked: Asked
    metrics: Sequence[str]
    max_new_tokens: int
    ask: Ask = "few_shot"
    tokenizer: BleuTokenizer = "auto"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def raw(self, scorer: Scorer, keep: Path, identity: str, log: Log | None, what: str) -> Any:
        """How the model was asked, and its answers with what ended them."""
        questions = self.asked.questions
        settings = {
            "model": identity,
            "questions": fingerprint([asdict(question) for question in questions]),
            "max_new_tokens": self.max_new_tokens,
            "ask": self.ask,
        }

        def ask() -> dict[str, Any]:
            how: Ask = "chat" if self.ask == "chat" and scorer.chats else "few_shot"
            prompts = [one.messages if how == "chat" else one.prompt for one in questions]
            found = scorer.write(prompts, max_new_tokens=self.max_new_tokens, line=True, log=log, what=what)
            return {"ask": how, "written": [[one_line(text), finish] for text, finish in found]}

        return kept(keep.with_name(f"{keep.name}.json"), settings, ask)

    def figures(self, raws: Mapping[str, Any], way: Way) -> dict[str, Any]:
        """A measure for each metric, and what was asked and answered."""
        questions = self.asked.questions
        texts = {name: [text for text, _ in raw["written"]] for name, raw in raws.items()}
        found: dict[str, Any] = {
            metric: {
                **measure_overlap(texts, self._overlap(metric), resamples=way.resamples, seed=way.seed),
                "items": len(questions),
            }
            for metric in self.metrics
        }
        cut = {name: [finish == "length" for _, finish in raw["written"]] for name, raw in raws.items()}
        return {
            **found,
            "items": len(questions),
            "shots": self.asked.shots,
            "ask": {name: raw["ask"] for name, raw in raws.items()},
            "cut": {name: sum(marks) / len(marks) for name, marks in cut.items()},
            "max_new_tokens": self.max_new_tokens,
            "left_out": dict(self.asked.left_out),
            "examples": [
                {
                    "prompt": one.messages[-1]["content"],
                    "reference": one.reference,
                    "written": {name: said[number] for name, said in texts.items()},
                }
                for number, one in enumerate(questions[:3])
            ],
            **self.facts,
        }

    def _overlap(self, metric: str) -> Overlap:
        references = [one.reference for one in self.asked.questions]
        if metric == "bleu":
            return bleu(references, self.asked.language, self.tokenizer)
        return rouge_l(references, self.asked.language) if metric == "rouge_l" else chrf(references)


def conversation(asked: Sequence[tuple[str, str]], last: str) -> tuple[Message, ...]:
    """Questions with their answers, and a last question, as the turns of a conversation."""
    turns: list[Message] = []
    for question, answer in asked:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return (*turns, {"role": "user", "content": last})
