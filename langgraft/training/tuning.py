"""Instruction tuning: a model learns the answers of conversations, by the same loop as pretraining.

What is written lies in `out`: `model/` (with the chat template it was trained with), `metrics.jsonl`, `adapter/` where
one can hold what was learned, `packed/` and `checkpoints/` to go on from, and `dev.jsonl`: the conversations held out.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.base import embedding_rows
from langgraft.corpus.split import order
from langgraft.errors import CorpusError
from langgraft.processes import rank
from langgraft.progress import Log
from langgraft.store import atomic_write, read_json
from langgraft.training.chat_rows import Chat, ChatSource, read_chats
from langgraft.training.conversations import Conversations, pack_chats
from langgraft.training.loop import Compute, Settings, train
from langgraft.training.parallel import first_alone
from langgraft.training.turns import Turns, template_for, write_template

DEV = "dev.jsonl"  # conversations held out, as rows with `messages`


@dataclass(frozen=True)
class Lessons:
    """What to learn from.

    `system`: system prompt for conversations that bring none. `template`: a file with a chat template, instead of the
    model's own. `dev`: different questions whose conversations are held out, a share below 1 or a number.
    """

    sources: tuple[ChatSource, ...]
    system: str = ""
    template: Path | None = None
    dev: float = 0.02
    epochs: int = 2


def tune(
    model: Path,
    out: Path,
    *,
    lessons: Lessons,
    settings: Settings,
    old_rows: int | None = None,
    base: str = "",
    compute: Compute | None = None,
    log: Log | None = None,
    name: str = "sft",
) -> dict[str, Any]:
    """Train the model in `model` on the answers of conversations; writes the folder `out`, resumable until then.

    Args:
        settings: rates, mode, length and size of a batch; its `steps` come from `lessons.epochs`.
        old_rows: rows of embedding and head that the base had; all of the model's when None. Matters for LoRA with
            `rows = "new"`.
        base: name of what an adapter is to be loaded on.
        name: who the log says trains.

    Returns:
        What `train` returns, and `chat`: counts of what was learned from, held out and left out, and the template.

    Raises:
        CorpusError: the data cannot be read, or nothing is left of it.
        InputError: the template cannot be learned with.
        RecipeError, TrainingError, Interrupted: as `train`.
    """
    log = log or Log()
    template, where_from = template_for(model, lessons.template)
    turns = Turns(model, template)
    if where_from:
        log.say(f"{name}: {where_from}")
    with first_alone():
        facts = _prepared(turns, out, lessons, settings)
    packed = Conversations(out / "packed" / "train", length=settings.length, seed=settings.seed)
    steps = max(-(-packed.rows_per_epoch * lessons.epochs // settings.batch_rows), 1)
    log.say(f"{name}: {_sentence(facts, packed, steps, settings)}")
    for reason, count in facts["left_out"].items():
        log.say(f"{name}: {count:,} conversations are left out: {reason}")
    summary = train(
        model, out, target=out / "packed" / "train", replay=None,
        old_rows=embedding_rows(model) if old_rows is None else old_rows,
        settings=replace(settings, steps=steps, replay_ratio=0.0), base=base, compute=compute, log=log, name=name,
    )  # fmt: skip
    if rank() == 0:
        for folder in (out / "model", out / "adapter"):
            if folder.is_dir():
                write_template(folder, template, turns.end)
    chat = {**facts, "rows": packed.rows_per_epoch, "epochs": lessons.epochs,
            "end": turns.tokenizer.id_to_token(turns.end), "template": where_from or "the model's own"}  # fmt: skip
    return {**summary, "chat": chat}


def read_dev(out: Path) -> list[Chat]:
    """The conversations that `tune` held out."""
    lines = (out / DEV).read_text(encoding="utf-8").split("\n")
    rows = (json.loads(line) for line in lines if line)
    return [Chat(tuple(row["messages"]), row["place"]) for row in rows]


def _sentence(facts: dict[str, Any], packed: Conversations, steps: int, settings: Settings) -> str:
    full = facts["places"] / (packed.rows_per_epoch * settings.length)
    cut = f"; {facts['cut']:,} longer than a row lost their last turns" if facts["cut"] else ""
    return (
        f"{facts['documents']:,} conversations with {facts['answers']:,} answers ({facts['answer_tokens']:,} of "
        f"{facts['tokens']:,} tokens) in {packed.rows_per_epoch:,} rows of {settings.length}, {full:.0%} full; "
        f"{facts['dev']:,} held out; {steps:,} steps{cut}"
    )


def _prepared(turns: Turns, out: Path, lessons: Lessons, settings: Settings) -> dict[str, Any]:
    """Pack once what is learned, and write what is held out; the folder's name already stands for all options."""
    folder = out / "packed" / "train"
    if not (folder / "packed.json").is_file():
        chats = _Split(lessons, settings.seed)
        # Only what can be measured in the end is held out, and what cannot be rendered is said now.
        kept = (chat for chat, one in turns.encode(chats.dev(), Counter()) if one.within(settings.length))
        held_out = [json.dumps({"messages": c.messages, "place": c.place}, ensure_ascii=False) for c in kept]
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / DEV, "".join(line + "\n" for line in held_out))
        pack_chats(turns, chats.train(), folder, length=settings.length)
    facts: dict[str, Any] = {k: v for k, v in read_json(folder / "packed.json").items() if k != "separator"}
    return facts | {"places": facts["tokens"] - facts["documents"], "dev": len(read_dev(out))}


class _Split:
    """Conversations to learn from and to hold out: those whose questions come first by hash, with all their answers.

    Files are read again for each side, so that memory holds hashes alone.
    """

    def __init__(self, lessons: Lessons, seed: int) -> None:
        self.lessons, self.seed = lessons, seed
        hashes = np.unique(np.array([order(chat.question, seed) for chat in self._all()], dtype="S16"))
        wanted = lessons.dev if lessons.dev >= 1 else max(1, round(lessons.dev * len(hashes))) if lessons.dev else 0
        if len(hashes) and wanted >= len(hashes):
            raise CorpusError(
                f"dev = {lessons.dev:g} holds out all {len(hashes):,} different questions; lower it, or give more rows"
            )
        self.held_out = {bytes(one) for one in hashes[: int(wanted)]}

    def _all(self) -> Iterator[Chat]:
        return read_chats(self.lessons.sources, system=self.lessons.system, seed=self.seed)

    def _is_dev(self, chat: Chat) -> bool:
        # numpy drops zero bytes at the end of what it holds
        return order(chat.question, self.seed).rstrip(b"\0") in self.held_out

    def dev(self) -> Iterator[Chat]:
        """What is held out."""
        return (chat for chat in self._all() if self.held_out and self._is_dev(chat))

    def train(self) -> Iterator[Chat]:
        """All else."""
        return (chat for chat in self._all() if not self._is_dev(chat))


def sources_of(paths: Sequence[str]) -> tuple[ChatSource, ...]:
    """Whole files as sources."""
    return tuple(ChatSource(path) for path in paths)
