"""What instruction tuning changed, on conversations that were held out: before and after.

Bits per byte of the answers, each after the conversation up to it; and answers that both models write themselves,
through the same code that serves them: does an answer come to its end, and is it in the language of the reference?
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langgraft.corpus.langid import Identifier
from langgraft.evaluation.stats import measure
from langgraft.progress import Log
from langgraft.tokenizer.template import template_of
from langgraft.training.chat_rows import Chat
from langgraft.training.turns import Encoded, Turns

if TYPE_CHECKING:
    from langgraft.serving.model import LanguageModel

BATCH_TOKENS = 2048  # padded, of one forward pass
CHUNK = 256  # places whose logits are held at once


def compare_answers(
    before: Path,
    after: Path,
    chats: Sequence[Chat],
    *,
    languages: Sequence[str] = (),
    documents: int = 200,
    generated: int = 8,
    max_new_tokens: int = 128,
    length: int = 4096,
    device: str = "auto",
    threads: int = 0,
    resamples: int = 2000,
    seed: int = 0,
    log: Log | None = None,
) -> dict[str, Any]:
    """Measure both model folders on held-out conversations, in the chat template of `after`.

    Args:
        languages: codes that answers may be in, the likelier one first; none leaves the language unjudged.
        documents: at most so many conversations for bits per byte.
        generated: so many of their last questions are answered by both models, greedily.
        max_new_tokens: length of these answers; one that has not ended by then counts as not ended.
        length: longest conversation, in tokens; of longer ones the first turns are measured.

    Returns:
        `conversations`, `bits_per_byte` and `loss` (nats a token, by model), and, where answers were written, `ends`,
        `right_language` (both as `stats.measure`) and `samples`. Empty where no conversation can be measured.

    Raises:
        InputError, CorpusError: the conversations cannot be rendered in the template.
    """
    turns = Turns(after, template_of(after) or "")
    found_of = turns.encode(chats, Counter())
    pairs = [(chat, kept) for chat, one in found_of if (kept := one.within(length))][:documents]
    if not pairs:
        return {}
    models = {"before": before, "after": after}
    encoded = [one for _, one in pairs]
    nats = {}
    for name, folder in models.items():
        if log:
            log.say(f"answers: reading {len(encoded)} held-out conversations, {name}")
        nats[name] = answer_nats(folder, encoded, device=device, threads=threads)
    weights = [sum(answer.bytes for answer in one.answers) for one in encoded]
    tokens = sum(int(one.learn.sum()) for one in encoded)
    how: dict[str, Any] = {"resamples": resamples, "seed": seed}
    bits = {name: values / np.log(2) for name, values in nats.items()}
    found: dict[str, Any] = {
        "conversations": len(encoded),
        "bits_per_byte": measure(bits, weights, better="lower", **how),
        "loss": {name: float(values.sum() / tokens) for name, values in nats.items()},
    }
    asked = [_up_to(chat, len(one.answers)) for chat, one in pairs[:generated]]
    if asked and max_new_tokens:
        found |= _written(models, asked, turns, languages, max_new_tokens, how, device, threads, log)
    return found


def answer_nats(folder: Path, encoded: Sequence[Encoded], *, device: str = "auto", threads: int = 0) -> np.ndarray:
    """Summed loss of each conversation's answers in nats, ends of turns included; shape (conversations,), float64."""
    import torch
    import torch.nn.functional as F

    from langgraft.training.device import choose_device, load_model, set_threads
    from langgraft.training.loss import body_and_head
    from langgraft.training.packing import IGNORED

    set_threads(threads)
    where = choose_device(device)
    model = load_model(folder, where).eval()
    body, head = body_and_head(model)
    found = np.zeros(len(encoded))
    for batch in _batches([len(one.ids) - 1 for one in encoded]):
        longest = max(len(encoded[i].ids) - 1 for i in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.int64)
        labels = torch.full((len(batch), longest), IGNORED)
        for row, i in enumerate(batch):
            of = torch.from_numpy(encoded[i].ids)
            ids[row, : len(of) - 1] = of[:-1]
            labels[row, : len(of) - 1] = torch.where(torch.from_numpy(encoded[i].learn)[1:], of[1:], IGNORED)
        positions = torch.arange(longest).expand(len(batch), -1).contiguous()
        with torch.inference_mode():
            states = body(ids.to(where), positions.to(where))
            rows, columns = torch.nonzero(labels != IGNORED, as_tuple=True)
            places = (rows * longest + columns).to(where)
            wanted = labels.flatten().to(where)
            losses = [
                F.cross_entropy(head(states[part]).float(), wanted[part], reduction="none").double().cpu()
                for part in places.split(CHUNK)
            ]
        np.add.at(found, np.array(batch)[rows.numpy()], torch.cat(losses).numpy())
    return found


def _batches(sizes: Sequence[int]) -> list[list[int]]:
    """Places of like size together, a padded batch holding at most BATCH_TOKENS (or one that is longer)."""
    found: list[list[int]] = []
    for place in np.argsort(np.array(sizes), kind="stable")[::-1].tolist():
        if found and sizes[found[-1][0]] * (len(found[-1]) + 1) <= BATCH_TOKENS:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _written(
    models: Mapping[str, Path],
    chats: Sequence[Chat],
    turns: Turns,
    languages: Sequence[str],
    max_new_tokens: int,
    how: Mapping[str, Any],
    device: str,
    threads: int,
    log: Log | None,
) -> dict[str, Any]:
    """Answers of both models to the last question of each conversation, and what can be told of them."""
    from langgraft.serving.hub import HubModel
    from langgraft.serving.model import cores

    texts: dict[str, list[str]] = {}
    ended: dict[str, list[float]] = {}
    for name, folder in models.items():
        if log:
            log.say(f"answers: {len(chats)} questions, {name}")
        model = HubModel(folder, threads=cores(threads), device=device)
        model.template = turns.template  # the model before may have none
        answers = [_answer(model, chat, turns.end, max_new_tokens) for chat in chats]
        texts[name] = [text for text, _ in answers]
        ended[name] = [float(end) for _, end in answers]
    questions = [chat.messages[chat.answers()[-1] - 1]["content"] for chat in chats]
    wanted = [chat.messages[chat.answers()[-1]]["content"] for chat in chats]
    found: dict[str, Any] = {"ends": measure(ended, **how)}
    if languages:
        right = _right_language(texts, wanted, [Identifier(code) for code in languages])
        if any(right.values()):
            found["right_language"] = measure(right, **how)
    samples = zip(questions, wanted, texts["before"], texts["after"], strict=True)
    return found | {"samples": [dict(zip(("question", "wanted", *models), one, strict=True)) for one in samples]}


def _answer(model: "LanguageModel", chat: Chat, end: int, max_new_tokens: int) -> tuple[str, bool]:
    """What a model answers to the last question, and whether it ended its turn."""
    from langgraft.serving.generate import answer, chat_prompt
    from langgraft.serving.sampling import Sampling

    prompt = chat_prompt(model, chat.messages[: chat.answers()[-1]])
    if len(prompt) >= model.context:
        return "", False
    found = answer(model, prompt, Sampling(max_tokens=max_new_tokens, temperature=0), chat=True)
    return found.text, any(token.id == end for token in found.tokens)


def _up_to(chat: Chat, answers: int) -> Chat:
    """The conversation up to its answer of that number."""
    return Chat(chat.messages[: chat.answers()[answers - 1] + 1], chat.place)


def _right_language(
    texts: Mapping[str, Sequence[str]], wanted: Sequence[str], judges: Sequence[Identifier]
) -> dict[str, list[float]]:
    """By model, 1 for an answer in the language of the reference; references in none of the languages do not count."""
    of = [next((judge for judge in judges if judge.check(text).keep), None) for text in wanted]
    return {
        name: [float(bool(t.strip()) and judge.check(t).keep) for t, judge in zip(every, of, strict=True) if judge]
        for name, every in texts.items()
    }
