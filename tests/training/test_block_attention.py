"""Attention in blocks is torch's attention under a mask: values, gradients, and what is left out."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from langgraft.training import block_attention as module
from langgraft.training.block_attention import BLOCK, NAME, attend, block_attention, register, spans
from langgraft.training.device import load_model

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=12)


def mask_of(rows: list[list[int]], length: int, window: int = 10_000) -> Tensor:
    """(rows, 1, length, length): who sees whom, documents of these lengths one after the other, the last one cut."""
    masks = []
    for sizes in rows:
        documents = torch.cat([torch.full((size,), i) for i, size in enumerate([*sizes, length])])[:length]
        places = torch.arange(length)
        apart = places[:, None] - places
        masks.append((documents[:, None] == documents) & (apart >= 0) & (apart < window))
    return torch.stack(masks)[:, None]


def inputs(batch: int, length: int, heads: int, shared: int, width: int) -> list[Tensor]:
    """Query, key and value as a model's projections give them: heads beside one another, then turned."""
    torch.manual_seed(0)
    return [
        torch.randn(batch, length, count, width).transpose(1, 2).requires_grad_() for count in (heads, shared, shared)
    ]


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(LENGTHS, min_size=1, max_size=3),
    length=st.integers(BLOCK + 1, 150),
    shared=st.sampled_from([1, 4]),
    window=st.sampled_from([20, 10_000]),
)
def test_values_and_gradients_are_those_of_sdpa(rows: list[list[int]], length: int, shared: int, window: int) -> None:
    mask = mask_of(rows, length, window)
    outer = torch.randn(len(rows), length, 4, 8)
    found = []
    for blocks in (True, False):
        query, key, value = inputs(len(rows), length, 4, shared, 8)
        if blocks:
            out = block_attention(query, key, value, mask, 0.3)[0]
        else:
            out = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True).transpose(1, 2)
        found.append([out, *torch.autograd.grad(out, (query, key, value), outer)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_block_reads_what_its_queries_see_and_no_more() -> None:
    mask = mask_of([[70, 60, 50], [100, 64]], 200)
    assert list(spans(mask)) == [(0, 64, 0, 64), (64, 128, 0, 128), (128, 192, 70, 192), (192, 200, 164, 200)]
    assert list(spans(mask_of([[200]], 130, window=10))) == [(0, 64, 0, 64), (64, 128, 55, 128), (128, 130, 119, 130)]


def test_places_that_see_nothing_are_as_in_sdpa() -> None:
    """Padding before a short text: its queries see no key."""
    mask = mask_of([[200]], 150)
    mask[..., :90, :], mask[..., :90] = False, False
    query, key, value = (tensor.detach() for tensor in inputs(1, 150, 4, 2, 8))
    expected = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(block_attention(query, key, value, mask, 0.3)[0], expected, equal_nan=True)


def test_the_operator_is_one_that_compiled_code_may_call() -> None:
    query, key, value = inputs(2, 80, 4, 2, 8)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(block_attention, (query, key, value, mask_of([[30], [70]], 80), 0.3), test_utils=checks)


@pytest.mark.parametrize(
    "change",
    [
        {"attention_mask": None, "is_causal": True},
        {"attention_mask": torch.zeros(1, 1, 80, 80)},
        {"dropout": 0.1},
        {"length": BLOCK},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_what_is_no_packed_row_of_some_length_is_left_to_transformers(
    change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "block_attention", never)
    length, dtype = change.pop("length", 80), change.pop("dtype", torch.float32)
    assert isinstance(length, int)
    assert isinstance(dtype, torch.dtype)
    query, key, value = (tensor.detach().to(dtype) for tensor in inputs(1, length, 4, 2, 8))
    own = torch.nn.Module()
    own.num_key_value_groups, own.is_causal = 2, True
    given = {"attention_mask": mask_of([[30]], length), **change}
    out, weights = attend(own, query, key, value, **given)  # type: ignore[arg-type]
    assert out.shape == (1, length, 4, 8)
    assert weights is None


def test_the_name_is_not_written_into_a_model(pico: Path, tmp_path: Path) -> None:
    model = load_model(pico, torch.device("cpu"))
    model.set_attn_implementation(register())
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text(encoding="utf-8")
