"""Conversations as token ids in a model's own chat template, with the exact places that are answers.

The template renders a conversation up to each answer, as serving does it when it asks the model (`prompt`), and once
as a whole. An answer is what comes after its prompt's ids, up to and with the token that ends a turn: no text is
searched for, so whatever a template strips, inserts or repeats is where it will be when the model is asked.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from langgraft.errors import CorpusError, InputError
from langgraft.store import atomic_write, read_json, write_json
from langgraft.tokenizer.files import load
from langgraft.tokenizer.template import named_ends, render, special_of, template_of
from langgraft.training.chat_rows import Chat

BATCH = 256  # conversations
_PROBE = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": "LANGGRAFT"})
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Turn markers in ordinary text, after Alpaca (Taori et al. 2023); every turn ends with the end-of-sequence token.
PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)


class Answer(NamedTuple):
    """Places of an answer's tokens in its conversation, end of the turn included; UTF-8 bytes of its text."""

    start: int
    stop: int
    bytes: int


@dataclass(frozen=True)
class Encoded:
    """A conversation's ids, shape (tokens,), up to the end of its last answer, and where its answers are."""

    ids: np.ndarray
    answers: tuple[Answer, ...]

    @property
    def learn(self) -> np.ndarray:
        """Whether each token is to be predicted; shape (tokens,), bool."""
        mask = np.zeros(len(self.ids), dtype=bool)
        for answer in self.answers:
            mask[answer.start : answer.stop] = True
        return mask

    def within(self, places: int) -> "Encoded | None":
        """As many turns as fit into `places` of a row (which reads all tokens but the last); None if none does."""
        kept = tuple(answer for answer in self.answers if answer.stop - 1 <= places)
        return Encoded(self.ids[: kept[-1].stop], kept) if kept else None


def template_for(folder: Path, own: Path | None = None) -> tuple[str, str]:
    """The chat template to learn with, and a sentence on where it comes from ("" for the model's own).

    A model without one gets ChatML where it has its special tokens, else markers in ordinary text.

    Raises:
        InputError: the file `own` is not there, or the model has neither a template nor a token that ends a text.
    """
    if own is not None:
        if not own.is_file():
            raise InputError(f"the chat template {own} does not exist; give a file with a Jinja template")
        return own.read_text(encoding="utf-8"), f"the chat template is {own.name}"
    if (found := template_of(folder)) is not None:
        return found, ""
    added = {token["content"] for token in read_json(folder / "tokenizer.json").get("added_tokens", [])}
    if {"<|im_start|>", "<|im_end|>"} <= added:
        return CHATML, "the model has no chat template, but the tokens of ChatML: that is used, and written beside it"
    special = special_of(folder)
    if "eos_token" not in special:
        raise InputError(
            f"{folder} has neither a chat template nor an end-of-sequence token; set eos_token in "
            "tokenizer_config.json, or give a template"
        )
    # A base that begins every text with a token of its own (Llama's `<s>`) is asked so, too.
    bos = special.get("bos_token", "")
    tokenizer = load(folder)
    begins = bool(bos) and tokenizer.encode("a").ids[:1] == [tokenizer.token_to_id(bos)]
    return ("{{ bos_token }}" if begins else "") + PLAIN, (
        "the model has no chat template: turns are marked by ordinary text (### Instruction:, ### Response:) and end "
        f"with {special['eos_token']}; this template is written beside it"
    )


class Turns:
    """Turns conversations into ids by the tokenizer of a folder and a chat template.

    Attributes:
        end: id of the token with which the template ends an answer.

    Raises:
        InputError: the template cannot be learned with: it does not mark where an answer begins, or ends it with no
            token that a model could stop at.
        TokenizerError: the folder's tokenizer cannot be read.
    """

    def __init__(self, folder: Path, template: str) -> None:
        self.folder, self.template = folder, template
        self.tokenizer, self.special = load(folder), special_of(folder)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.end = self._end()

    def _end(self) -> int:
        prompt, bare = (self._text(_PROBE[:1], ask=ask) for ask in (True, False))
        whole = self._text(_PROBE, ask=False)
        before, found, after = whole.partition(_PROBE[1]["content"])
        if not found or not before.startswith(prompt):
            raise InputError(
                f"the chat template of {self.folder} does not write an answer where it asks for one: it cannot be "
                "learned with; give another template"
            )
        if prompt == bare and before[len(prompt) :].strip():
            raise InputError(
                f"the chat template of {self.folder} ignores add_generation_prompt, so a model that is asked with it "
                "is not told to answer; give another template"
            )
        data = read_json(self.folder / "tokenizer.json")
        ends = {token["id"] for token in data.get("added_tokens", []) if token.get("special")}
        ends.update(named_ends(self.folder))
        last = next((i for i in self.ids(after) if i in ends), None)
        if last is None:
            raise InputError(
                f"the chat template of {self.folder} ends an answer with {after!r}, and none of that is a special "
                "token: the model could not learn where to stop; let the template end answers with its eos_token"
            )
        return int(last)

    def _text(self, messages: Sequence[dict[str, str]], *, ask: bool) -> str:
        return render(self.template, messages, self.special, ask=ask)

    def ids(self, text: str) -> list[int]:
        """Ids of rendered text, as serving has them: the template brings every special token there is."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Ids of a conversation that the assistant goes on with.

        Raises:
            InputError: the template refuses the conversation.
        """
        return self.ids(self._text(messages, ask=True))

    def encode(self, chats: Iterable[Chat], left_out: Counter[str]) -> Iterator[tuple[Chat, Encoded]]:
        """Yield the conversations that can be learned from; the others are counted by reason in `left_out`.

        Raises:
            CorpusError: the template changes what it said before as a conversation goes on; names the row.
        """
        stream = iter(chats)
        while batch := list(itertools.islice(stream, BATCH)):
            texts, kept = [], []
            for chat in batch:
                rendered = self._rendered(chat, left_out)
                if rendered:
                    kept.append((chat, len(rendered)))
                    texts += rendered
            every = iter(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))
            for chat, count in kept:
                ids = [encoding.ids for encoding in itertools.islice(every, count)]
                found = self._answers(chat, ids, left_out)
                if found is not None:
                    yield chat, found

    def _rendered(self, chat: Chat, left_out: Counter[str]) -> list[str]:
        """The prompt of each answer, and the whole conversation; nothing for one that is left out."""
        places = chat.answers()
        if not places or places[0] == 0 or chat.messages[places[0] - 1]["role"] == "system":
            left_out["without a question and an answer"] += 1
            return []
        if any(not chat.messages[i]["content"].strip() for i in places):
            left_out["empty answer"] += 1
            return []
        try:
            prompts = [self._text(chat.messages[:i], ask=True) for i in places]
            whole = self._text(chat.messages, ask=False)
        except InputError:
            left_out["refused by the chat template"] += 1
            return []
        for number, prompt in enumerate(prompts, 1):
            if not whole.startswith(prompt):
                raise CorpusError(
                    f"{chat.place}: the chat template writes the conversation before answer {number} differently "
                    "once that is given, so what is learned would not be what the model is asked; give another "
                    "template, or rows of one question and one answer"
                )
        return [*prompts, whole]

    def _answers(self, chat: Chat, ids: list[list[int]], left_out: Counter[str]) -> Encoded | None:
        *prompts, whole = ids
        answers = []
        for place, prompt in zip(chat.answers(), prompts, strict=True):
            start = len(prompt)
            if whole[:start] != prompt:
                left_out["prompt and answer share a token"] += 1
                return None
            if self.end not in whole[start:]:
                raise CorpusError(f"{chat.place}: the chat template ends this answer otherwise than others")
            stop = whole.index(self.end, start) + 1
            answers.append(Answer(start, stop, len(chat.messages[place]["content"].encode("utf-8"))))
        return Encoded(np.array(whole[: answers[-1].stop], dtype=np.int64), tuple(answers))


def write_template(folder: Path, template: str, end: int) -> list[str]:
    """Let a model folder name the template and the end of a turn it was trained with; returns what was changed.

    Every program that reads the folder then asks and stops as training did. Nothing is touched where it does so.
    """
    changed = []
    if template_of(folder) != template:
        atomic_write(folder / "chat_template.jinja", template)
        path = folder / "tokenizer_config.json"
        named: dict[str, Any] = read_json(path) if path.is_file() else {}
        if named.pop("chat_template", None) is not None:
            write_json(path, named)
        changed.append("chat_template.jinja")
    ends = named_ends(folder)
    if end not in ends:
        path = folder / "generation_config.json"
        config: dict[str, Any] = read_json(path) if path.is_file() else {}
        write_json(path, {**config, "eos_token_id": [*ends, end]})
        changed.append("generation_config.json")
    return changed
