"""Packed conversations: whole, apart, answers alone with labels, and a loss that is a mean over these."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chats import CHATML, sums, talk, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import ONE_THREAD, QUICK
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from langgraft.errors import CorpusError, RecipeError
from langgraft.progress import Log
from langgraft.training import conversations as module
from langgraft.training.chat_rows import Chat, ChatSource, read_chats
from langgraft.training.conversations import ANSWERS, IGNORED, Conversations, filled, pack_chats
from langgraft.training.loop import METRICS, Settings, train
from langgraft.training.loss import IGNORED as TORCHS
from langgraft.training.mixture import open_rows, packed_tokens
from langgraft.training.turns import Turns

LENGTH = 96
SETTINGS = replace(QUICK, length=LENGTH, batch_rows=4, steps=4, replay_ratio=0.0, learning_rate=3e-3)


def read(path: Path) -> list[Chat]:
    return list(read_chats([ChatSource(str(path))]))


@pytest.fixture(scope="module")
def turns(pico: Path) -> Turns:
    return Turns(pico, CHATML)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "chats.jsonl", sums(48))


@pytest.fixture(scope="module")
def packed(turns: Turns, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "chats"
    pack_chats(turns, read(rows), out, length=LENGTH)
    return out


def test_rows_hold_whole_conversations_and_label_answers_alone(packed: Path, turns: Turns, rows: Path) -> None:
    read_rows = Conversations(packed, length=LENGTH, seed=3)
    wanted = Counter[tuple[tuple[int, ...], tuple[int, ...]]]()
    for _, one in turns.encode(read(rows), Counter()):
        labels = np.where(one.learn[1:], one.ids[1:], IGNORED)
        wanted[tuple(one.ids[:-1].tolist()), tuple(labels.tolist())] += 1
    found = Counter[tuple[tuple[int, ...], tuple[int, ...]]]()
    for number in range(read_rows.rows_per_epoch):
        row = read_rows.row(number)
        starts = [*np.flatnonzero(row.positions == 0).tolist(), LENGTH]
        for start, end in itertools.pairwise(starts):
            assert row.positions[start:end].tolist() == list(range(end - start))
            found[tuple(row.ids[start:end].tolist()), tuple(row.labels[start:end].tolist())] += 1
    filling = {pair for pair in found if set(pair[1]) == {IGNORED}}
    assert all(set(ids) == {read_rows.separator} for ids, _ in filling)
    assert {pair: count for pair, count in found.items() if pair not in filling} == wanted
    assert IGNORED == TORCHS


def test_the_counts_say_what_is_there(packed: Path, rows: Path) -> None:
    counts = json.loads((packed / "packed.json").read_text())
    assert counts["documents"] == 48
    assert counts["answers"] == 48 + 32
    assert counts["answer_tokens"] == np.load(packed / ANSWERS).sum()
    assert counts["tokens"] == len(np.load(packed / "tokens.npy")) == packed_tokens(packed)
    answers = [m["content"] for chat in read(rows) for m in chat.messages if m["role"] == "assistant"]
    assert counts["answer_bytes"] == sum(len(text.encode()) for text in answers)
    assert (counts["left_out"], counts["cut"]) == ({}, 0)


def test_order_follows_from_seed_and_epoch(packed: Path) -> None:
    one, again, other = (Conversations(packed, length=LENGTH, seed=seed) for seed in (1, 1, 2))
    count = one.rows_per_epoch
    same = [np.array_equal(one.row(i).ids, again.row(i).ids) for i in reversed(range(2 * count))]
    assert all(same)
    assert any(not np.array_equal(one.row(i).ids, other.row(i).ids) for i in range(count))
    epochs = [sorted(one.row(i).ids.tobytes() for i in range(start, start + count)) for start in (0, count)]
    assert epochs[0] == epochs[1]
    assert [one.row(i).ids.tobytes() for i in range(count)] != [one.row(count + i).ids.tobytes() for i in range(count)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_rows_are_filled_with_each_conversation_once(sizes: list[int], seed: int) -> None:
    found = filled(np.array(sizes), 50, seed)
    assert sorted(number for row in found for number in row) == list(range(len(sizes)))
    used = [sum(sizes[number] for number in row) for row in found]
    assert max(used) <= 50
    # No two rows could be one: best fit leaves at most one of them half empty.
    assert sum(1 for one in used if one <= 25) <= 1
    assert found == filled(np.array(sizes), 50, seed)


def test_long_conversations_lose_turns_and_never_half_an_answer(turns: Turns, tmp_path: Path) -> None:
    long = "The quick brown fox jumps. " * 8
    every = [Chat(tuple(talk("Go?", "Yes.", "Tell me all.", long)), "a"), Chat(tuple(talk("Tell.", long)), "b")]
    counts = pack_chats(turns, [*every, Chat(tuple(talk("Go?", "No.")), "c")], tmp_path / "out", length=48)
    assert (counts.documents, counts.answers, counts.cut) == (2, 2, 1)
    assert counts.left_out == {"first answer ends after a row's end": 1}
    labels = Conversations(tmp_path / "out", length=48, seed=0).row(0).labels
    said = [turns.tokenizer.decode([i]) for i in labels[labels != IGNORED].tolist()]
    assert "fox" not in "".join(said)
    assert (labels == turns.end).sum() == 2


def test_nothing_left_is_said_with_the_reasons(turns: Turns, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no conversation is left to learn from \(2 empty answer\)"):
        pack_chats(turns, [Chat(tuple(talk("a", "")), "x")] * 2, tmp_path / "out", length=48)
    with pytest.raises(CorpusError, match=r"no conversation is left to learn from \(there are none\)"):
        pack_chats(turns, [], tmp_path / "out", length=48)
    assert not (tmp_path / "out").exists()


def test_another_length_is_refused(packed: Path) -> None:
    with pytest.raises(RecipeError, match=r"was packed for rows of 96, not 64; pack it again"):
        open_rows(packed, length=64, seed=0)


def run(pico: Path, packed: Path, out: Path, settings: Settings = SETTINGS, **compute: Any) -> list[dict[str, Any]]:
    train(
        pico, out, target=packed, replay=None, old_rows=300, settings=settings,
        compute=replace(ONE_THREAD, **compute), log=Log(out / "log.txt", quiet=True), name="sft",
    )  # fmt: skip
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


def reference(pico: Path, packed: Path) -> tuple[float, float]:
    """Loss and gradient norm of the first step by plain transformers: each conversation alone, one mean over all."""
    model = AutoModelForCausalLM.from_pretrained(pico, dtype=torch.float32)
    rows, total, count = Conversations(packed, length=LENGTH, seed=SETTINGS.seed), torch.zeros(()), 0
    for number in range(SETTINGS.batch_rows):
        row = rows.row(number)
        starts = [*np.flatnonzero(row.positions == 0).tolist(), LENGTH]
        for start, end in itertools.pairwise(starts):
            labels = torch.from_numpy(row.labels[start:end])
            if (labels == IGNORED).all():
                continue
            logits = model(input_ids=torch.from_numpy(row.ids[None, start:end])).logits[0]
            total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            count += int((labels != IGNORED).sum())
    (total / count).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return (total / count).item(), norm.item()


def test_the_loss_is_a_mean_over_the_answers_of_the_step(pico: Path, packed: Path, tmp_path: Path) -> None:
    first = run(pico, packed, tmp_path / "out")[0]
    loss, norm = reference(pico, packed)
    assert first["loss"] == pytest.approx(loss, abs=1e-6)
    assert first["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_a_mean_of_means_would_be_seen(
    pico: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: dividing by all places, as pretraining does."""
    monkeypatch.setattr(Conversations, "masked", False)
    first = run(pico, packed, tmp_path / "out")[0]
    loss, _ = reference(pico, packed)
    assert abs(first["loss"] - loss) > 1e-2


def test_accumulation_equals_one_big_batch(pico: Path, packed: Path, tmp_path: Path) -> None:
    """Rows have different numbers of answer tokens; how they are cut into micro-batches changes nothing."""
    rows = Conversations(packed, length=LENGTH, seed=SETTINGS.seed)
    assert len({int((rows.row(i).labels != IGNORED).sum()) for i in range(4)}) > 1
    big, small = (run(pico, packed, tmp_path / str(n), micro_rows=n) for n in (4, 1))
    for one, other in zip(big, small, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-5)
    weights = [load_file(tmp_path / str(n) / "model" / "model.safetensors") for n in (4, 1)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-5, rtol=0)


def test_the_log_has_the_stages_name(pico: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(pico, packed, out, replace(SETTINGS, steps=1, weight_decay=0.0))
    assert "pretrain" not in (out / "log.txt").read_text()


def test_two_processes_learn_what_one_does(pico: Path, packed: Path, replay: Path, tmp_path: Path) -> None:
    """The count of answers is that of the whole step, in every process; data parallel and tensor parallel."""
    from test_parallel import Runs, losses, result

    from langgraft.training.parallel import Layout

    runs = Runs(tmp_path, {"tied": pico}, packed, replay)
    asked = replace(SETTINGS, steps=2)
    alone = losses(runs.alone("alone", "tied", asked))
    names = {"data": Layout(), "tensor": Layout(2)}
    runs.together(2, [runs.job(name, "tied", asked, layout) for name, layout in names.items()])
    for name in names:
        assert result(tmp_path / name, name) == "done"
        assert losses(tmp_path / name) == pytest.approx(alone, abs=1e-5)


def test_chats_go_to_disk_in_batches(turns: Turns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any size of batch gives the same bytes."""
    every = [Chat(tuple(talk(f"{i}?", f"{i}!")), str(i)) for i in range(9)]
    pack_chats(turns, every, tmp_path / "one", length=48)
    monkeypatch.setattr("langgraft.training.turns.BATCH", 2)
    pack_chats(turns, every, tmp_path / "two", length=48)
    for name in ("tokens.npy", ANSWERS, "offsets.npy", "packed.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert module.is_packed_chat(tmp_path / "one")
