"""Held-out answers measured: bits equal plain transformers', ends and languages are judged, faults are seen."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from chats import CHATML, sums, talk, with_template
from transformers import AutoModelForCausalLM

from langgraft.corpus.langid import Identifier
from langgraft.evaluation.tuned import _batches, _right_language, answer_nats, compare_answers
from langgraft.training.chat_rows import Chat, conversation
from langgraft.training.turns import Turns

CHATS = [Chat(conversation(row, str(i)), str(i)) for i, row in enumerate(sums(7))]


@pytest.fixture(scope="module")
def folder(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("answers") / "model"
    shutil.copytree(pico, copy)
    return with_template(copy, CHATML)


def test_nats_are_those_of_each_conversation_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [one for _, one in Turns(folder, CHATML).encode(CHATS, Counter())]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    alone = []
    for one in encoded:
        ids = torch.from_numpy(one.ids)
        with torch.no_grad():
            logs = model(input_ids=ids[None, :-1]).logits[0].log_softmax(dim=-1)
        picked = logs[torch.arange(len(ids) - 1), ids[1:]]
        alone.append(-picked[torch.from_numpy(one.learn)[1:]].sum().item())
    found = answer_nats(folder, encoded, device="cpu", threads=1)
    assert found.tolist() == pytest.approx(alone, rel=1e-5)
    monkeypatch.setattr("langgraft.evaluation.tuned.BATCH_TOKENS", 1)
    monkeypatch.setattr("langgraft.evaluation.tuned.CHUNK", 3)
    assert answer_nats(folder, encoded, device="cpu", threads=1).tolist() == pytest.approx(alone, rel=1e-5)


def test_every_conversation_is_in_one_batch() -> None:
    sizes = [5, 900, 1, 1300, 700, 3000]
    found = _batches(sizes)
    assert sorted(place for batch in found for place in batch) == list(range(6))
    assert all(len(batch) == 1 or max(sizes[i] for i in batch) * len(batch) <= 2048 for batch in found)


def test_a_model_that_learned_to_end_is_told_from_one_that_did_not(folder: Path, tmp_path: Path) -> None:
    """The model after gives the end of a turn whatever is asked; the one before is as it was."""
    ending = Path(shutil.copytree(folder, tmp_path / "ending"))
    model = AutoModelForCausalLM.from_pretrained(ending, dtype=torch.float32)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        model.model.norm.weight.zero_()
        torch.nn.init.zeros_(embedding[0])
    model.config.tie_word_embeddings = False
    model.lm_head = torch.nn.Linear(embedding.shape[1], embedding.shape[0], bias=False)
    model.save_pretrained(ending)
    # Norm zero makes all logits equal, and the first of equals is id 0: a template that ends so is always ended.
    odd = with_template(ending, CHATML.replace("<|im_end|>", "<|endoftext|>"))
    found = compare_answers(
        folder, odd, CHATS, languages=("en", "yue"), generated=3, max_new_tokens=6, device="cpu", threads=1,
        resamples=100,
    )  # fmt: skip
    assert found["conversations"] == 7
    assert found["ends"]["models"]["before"]["mean"] == 0
    assert found["ends"]["models"]["after"]["mean"] == 1
    assert found["right_language"]["models"]["after"]["mean"] == 0  # nothing was said
    assert [sample["after"] for sample in found["samples"]] == ["", "", ""]
    assert found["samples"][0]["question"] == CHATS[0].messages[-2]["content"]
    assert found["samples"][0]["wanted"] == CHATS[0].messages[-1]["content"]
    assert found["loss"]["after"] == pytest.approx(torch.log(torch.tensor(float(len(embedding)))).item(), rel=1e-4)


def test_nothing_held_out_measures_nothing(folder: Path) -> None:
    assert compare_answers(folder, folder, []) == {}
    assert compare_answers(folder, folder, [Chat(tuple(talk("a", "b")), "x")], length=2) == {}


def test_the_language_is_that_of_the_reference() -> None:
    judges = [Identifier("yue"), Identifier("en")]
    wanted = ["佢話聽日會落雨，所以唔去行山喇。", "It will rain tomorrow, so nobody goes out.", "1234"]
    texts = {"before": ["He said it rains tomorrow and stays in."] * 3, "after": ["我哋今日唔去喇。", "", "x"]}
    found = _right_language(texts, wanted, judges)
    assert found == {"before": [0.0, 1.0], "after": [1.0, 0.0]}
