"""Translation quality: what models make of sentences of the user's own parallel text, scored with chrF and BLEU."""

from collections.abc import Sequence
from dataclasses import dataclass

from langgraft.evaluation.answers import Answers, Ask, Asked, Question, conversation
from langgraft.evaluation.overlap import BleuTokenizer, bleu_tokenizer, check_tokenizer
from langgraft.evaluation.pairs import Seen, clean_pairs, examples
from langgraft.evaluation.rows import Parallel
from langgraft.text import Language

LONGEST = 300  # characters of a sentence


@dataclass(frozen=True)
class Translation:
    """How translation is measured; the fields are those of `[evaluate.translation]` in a recipe."""

    parallel: Sequence[str] = ()
    items: int = 100
    shots: int = 3
    max_new_tokens: int = 128
    ask: Ask = "few_shot"
    tokenizer: BleuTokenizer = "auto"


def translations(
    pairs: Sequence[Parallel],
    target: Language,
    source: Language,
    *,
    to_target: bool = True,
    items: int = 100,
    shots: int = 3,
    seen: Seen | None = None,
    seed: int = 0,
) -> Asked:
    """Sentences to translate, each after `shots` examples from the same files that are not asked for.

    Pairs are left out that are too short or long, that say what another one says, whose sides are the same
    (`copied`), and that stand in the training text. Both directions ask for the same pairs.
    """
    clean, out = clean_pairs(pairs, target, source, longest=LONGEST, copied=_same, seen=seen, seed=seed)
    shown, rest = examples(clean, shots)
    first, second = (source, target) if to_target else (target, source)
    turns = [(p.source, p.target) if to_target else (p.target, p.source) for p in (*shown, *rest[:items])]
    before = turns[: len(shown)]
    head = "".join(f"{first.name}: {a}\n{second.name}: {b}\n\n" for a, b in before)
    order = f"Translate from {first.name} into {second.name}: "
    said = [(order + a, b) for a, b in before]
    questions = [
        Question(f"{head}{first.name}: {a}\n{second.name}:", conversation(said, order + a), b, pair.id)
        for (a, b), pair in zip(turns[len(shown) :], rest, strict=False)
    ]
    return Asked(tuple(questions), second, len(shown), dict(out))


def translation_measure(asked: Asked, of: Translation, way: str) -> Answers:
    """The measure of one direction, `to_target` or `to_source`.

    Raises:
        InputError: BLEU's tokenizer cannot be used here.
    """
    check_tokenizer(bleu_tokenizer(asked.language) if of.tokenizer == "auto" else of.tokenizer)
    return Answers(("translation", way), asked, ("chrf", "bleu"), of.max_new_tokens, of.ask, of.tokenizer)


def _same(target: str, source: str) -> bool:
    return target.casefold() == source.casefold()
