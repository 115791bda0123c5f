"""Packed rows: nothing lost, nothing doubled, nothing seen across documents, no state."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import CANTONESE, ENGLISH

from langgraft.errors import CorpusError, InputError
from langgraft.store import write_json
from langgraft.tokenizer.files import load
from langgraft.training import block_attention
from langgraft.training.loss import loss_function
from langgraft.training.packing import Packed, forget, interleave, pack

SEPARATOR = 0
documents = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=12)


def packed(docs: list[list[int]], length: int, seed: int = 0) -> Packed:
    """A Packed over token lists, without a tokenizer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "tokens.npy", np.concatenate([np.asarray(d, dtype=np.uint32) for d in docs]))
        np.save(folder / "offsets.npy", np.cumsum([0, *map(len, docs)]).astype(np.int64))
        counts = {"separator": SEPARATOR, "bytes": 1, "tokens": 1, "documents": len(docs)}
        write_json(folder / "packed.json", counts)
        return Packed(folder, length=length, seed=seed)


def split(labels: np.ndarray) -> list[list[int]]:
    """Documents of a stream of labels; each ends with the separator."""
    out: list[list[int]] = [[]]
    for label in labels.tolist():
        if label == SEPARATOR:
            out.append([])
        else:
            out[-1].append(label)
    return out


@given(documents, st.integers(2, 16), st.integers(0, 3), st.integers(0, 2))
@settings(deadline=None)
def test_every_document_is_learnt_once_per_epoch(docs: list[list[int]], length: int, seed: int, epoch: int) -> None:
    rows = packed(docs, length, seed)
    n = rows.rows_per_epoch
    labels = np.concatenate([rows.row(epoch * n + i).labels for i in range(n)])
    if rows.places < length:
        assert n == 1
        labels = labels[: rows.places]
    # The tail that fills no row of its own is the only thing left out.
    assert rows.places - len(labels) < length
    seen = split(labels)
    whole, cut = seen[:-1], seen[-1]
    left = sorted(docs)
    for document in whole:
        left.remove(document)
    assert not cut or any(document[: len(cut)] == cut for document in left)
    if rows.places % length == 0:
        assert not left


@given(documents, st.integers(2, 16), st.integers(0, 40))
@settings(deadline=None)
def test_positions_restart_and_labels_follow(docs: list[list[int]], length: int, index: int) -> None:
    row = packed(docs, length).row(index)
    assert row.ids.shape == row.labels.shape == row.positions.shape == (length,)
    assert row.positions[0] == 0
    for place in range(1, length):
        starts = row.ids[place] == SEPARATOR
        assert row.positions[place] == (0 if starts else row.positions[place - 1] + 1)
        # What one place predicts is what the next one reads, at the border of documents too.
        assert row.ids[place] == row.labels[place - 1]


@given(documents, st.integers(2, 16), st.lists(st.integers(0, 60), min_size=1, max_size=6))
@settings(deadline=None)
def test_rows_have_no_state(docs: list[list[int]], length: int, order: list[int]) -> None:
    one, other = packed(docs, length), packed(docs, length)
    first = {i: one.row(i) for i in order}
    for i in reversed(order):
        again = other.row(i)
        for name in ("ids", "labels", "positions"):
            np.testing.assert_array_equal(getattr(first[i], name), getattr(again, name))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    docs = [[i] * 3 for i in range(1, 30)]
    rows = packed(docs, 40)
    first, second = rows.row(0).ids, rows.row(rows.rows_per_epoch).ids
    assert first.tolist() != second.tolist()
    assert first.tolist() != packed(docs, 40, seed=1).row(0).ids.tolist()


def test_a_corpus_shorter_than_a_row_repeats() -> None:
    rows = packed([[5, 6]], 8)
    for index in (0, 1, 7):
        row = rows.row(index)
        assert row.ids.tolist() == [0, 5, 6, 0, 5, 6, 0, 5]
        assert row.labels.tolist() == [5, 6, 0, 5, 6, 0, 5, 6]
        assert row.positions.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@given(st.floats(0, 0.99), st.integers(0, 5000))
def test_replay_keeps_its_share_in_every_prefix(ratio: float, start: int) -> None:
    before = int(start * ratio + 1e-9)
    counts = {True: before, False: start - before}
    for index in range(start, start + 50):
        is_replay, own = interleave(index, ratio)
        assert own == counts[is_replay]
        counts[is_replay] += 1
        assert abs(counts[True] - (index + 1) * ratio) < 1


def test_ratios_of_the_recipe_are_exact() -> None:
    for ratio, period in ((0.25, 4), (0.1, 10), (0.05, 20), (0.5, 2)):
        chosen = [interleave(i, ratio)[0] for i in range(10 * period)]
        assert chosen == ([False] * (period - 1) + [True]) * 10
    assert not any(interleave(i, 0.0)[0] for i in range(100))


def test_pack_counts_and_is_read_back(pico: Path, tmp_path: Path) -> None:
    counts = pack(load(pico), ["", *CANTONESE], tmp_path / "p", separator=7)
    assert counts["documents"] == len(CANTONESE)
    assert counts["bytes"] == sum(len(t.encode()) for t in CANTONESE)
    rows = Packed(tmp_path / "p", length=16, seed=0)
    assert rows.separator == 7
    assert rows.places == counts["tokens"] + counts["documents"]
    assert rows.bytes_per_place == counts["bytes"] / rows.places
    again = pack(load(pico), CANTONESE, tmp_path / "q", separator=7)
    assert again == counts
    assert (tmp_path / "p/tokens.npy").read_bytes() == (tmp_path / "q/tokens.npy").read_bytes()
    forget(tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_an_error(pico: Path, tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(CorpusError, match="no text to train on"):
        pack(load(pico), texts, tmp_path / "p", separator=0)
    assert not (tmp_path / "p").exists()


def test_more_texts_than_one_batch(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pack(load(pico), ENGLISH, tmp_path / "p", separator=0)
    monkeypatch.setattr("langgraft.corpus.tokens.BATCH_DOCUMENTS", 2)
    assert pack(load(pico), ENGLISH, tmp_path / "q", separator=0) == whole
    assert (tmp_path / "p/tokens.npy").read_bytes() == (tmp_path / "q/tokens.npy").read_bytes()


def test_tokens_are_written_as_numpy_writes_them(pico: Path, tmp_path: Path) -> None:
    pack(load(pico), ENGLISH, tmp_path / "p", separator=0)
    tokens = np.load(tmp_path / "p/tokens.npy")
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == [i for text in ENGLISH for i in load(pico).encode(text, add_special_tokens=False).ids]
    np.save(tmp_path / "again.npy", tokens)
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "p/tokens.npy").read_bytes()


def test_a_damaged_packed_folder_says_so(target: Path, tmp_path: Path) -> None:
    for name in ("tokens.npy", "offsets.npy"):
        (tmp_path / name).write_bytes((target / name).read_bytes())
    with pytest.raises(InputError, match=r"packed\.json does not exist"):
        Packed(tmp_path, length=8, seed=0)


def alone(model: Any, tokens: list[int]) -> float:
    """Loss of one document by itself, in nats: separator first, separator predicted last."""
    ids = torch.tensor([[SEPARATOR, *tokens, SEPARATOR]])
    with torch.no_grad():
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return float(F.cross_entropy(logits[0], ids[0, 1:], reduction="sum"))


def family(name: str) -> Any:
    """A tiny model of another architecture."""
    import transformers

    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    rest: dict[str, Any] = {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 256}
    if name == "GPT2":
        common, rest = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}, {}
    if name in ("Qwen3", "Gemma2"):
        rest["head_dim"] = 8
    config = getattr(transformers, f"{name}Config")(**common, **rest, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return getattr(transformers, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(config).eval()


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma2", "GPT2", "Mistral"])
def test_documents_in_a_row_do_not_see_one_another(name: str) -> None:
    docs = [[3, 4, 5, 6, 7], [9, 8, 7], [11] * 6, [20, 21], [33, 30, 31, 32, 35, 36, 37]]
    rows = packed(docs, sum(len(d) + 1 for d in docs))
    model = family(name)
    with torch.no_grad():
        for parameter in model.parameters():  # far from zero, so that attention matters
            parameter.mul_(3.0)
    row = rows.row(0)
    tensors = [torch.from_numpy(a)[None] for a in (row.ids, row.positions, row.labels)]
    with torch.no_grad():
        together = float(loss_function(model)(*tensors))
    assert together == pytest.approx(sum(alone(model, d) for d in docs), abs=1e-3, rel=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "blocks"])
@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma2", "GPT2", "Mistral"])
def test_logits_behind_another_document_are_those_alone(
    name: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leak of the first document into the second shows in its logits; an attention mask would let it through."""
    model = family(name)
    if attention != "eager" and not model._supports_sdpa:
        pytest.skip(f"{name} has no sdpa in transformers")
    monkeypatch.setattr(block_attention, "BLOCK", 4)
    model.set_attn_implementation(block_attention.register() if attention == "blocks" else attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    first, second = torch.tensor([[3, 4, 5, 6, 7, 50, 51]]), torch.tensor([[33, 30, 31, 32, 35, 36, 37]])
    ids = torch.cat([first, second], dim=1)
    positions = torch.cat([torch.arange(first.shape[1]), torch.arange(second.shape[1])])[None]
    with torch.no_grad():
        alone = model(input_ids=second, use_cache=False).logits[0]
        packed = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False).logits[0]
        leaking = model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False)
    behind = slice(first.shape[1], None)
    assert (packed[behind] - alone).abs().max() < 1e-5 * alone.abs().max().clamp(min=1.0)
    assert (leaking.logits[0, behind] - alone).abs().max() > 1e-3


def test_isolation_on_the_pico_model(pico: Path, target: Path) -> None:
    from langgraft.training.device import load_model

    model = load_model(pico, torch.device("cpu"))
    rows = Packed(target, length=10, seed=0)
    rows = Packed(target, length=rows.places, seed=0)
    row = rows.row(0)
    with torch.no_grad():
        together = float(
            loss_function(model)(*(torch.from_numpy(a)[None] for a in (row.ids, row.positions, row.labels)))
        )
    each = [alone(model, ids.tolist()) for ids in np.split(rows.tokens.astype(np.int64), rows.offsets[1:-1])]
    assert together == pytest.approx(sum(each), abs=1e-4, rel=1e-6)
