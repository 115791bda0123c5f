"""Attention on a CPU that leaves out what packed documents hide from each other.

Rows hold many short documents one after the other, and a token sees its own alone: of a row's matrix of who sees whom,
only a band along the diagonal counts. torch computes all of it under a mask. Here the queries go in blocks, and a block
reads the keys from the first to the last that any of its queries sees. The sums are those of torch's own kernel for
CPUs, which also reads the keys that several heads share in place; the rest of transformers' call stays as it is.

An operator of torch's library, so that compiled layers call it as it stands: the blocks depend on the batch.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 64  # queries; what torch's kernel takes at a time
NAME = "langgraft_blocks"


@torch.library.custom_op("langgraft::block_attention", mutates_args=(), device_types="cpu")
def block_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention under `mask`, and the logarithms of its sums, (batch, heads, length).

    `query` is (batch, heads, length, width), `key` and `value` have as many heads or a divisor of them, `mask` is
    (batch, 1, length, length) and true where a query sees a key. The result is (batch, length, heads, width).
    """
    batch, heads, length, width = query.shape
    found = query.new_empty(batch, length, heads, width)
    sums = query.new_empty(batch, length, heads).transpose(1, 2)
    bias = _bias(mask, query)
    for start, end, first, last in spans(mask):
        part, part_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query[:, :, start:end], key[:, :, first:last], value[:, :, first:last], 0.0, False,
            attn_mask=bias[:, :, start:end, first:last], scale=scale,
        )  # fmt: skip
        found[:, start:end] = part.transpose(1, 2)
        sums[:, :, start:end] = part_sums
    return found, sums


@torch.library.custom_op("langgraft::block_attention_backward", mutates_args=(), device_types="cpu")
def _backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, found: Tensor, sums: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    bias, gradient, found = _bias(mask, query), gradient.transpose(1, 2), found.transpose(1, 2)
    for start, end, first, last in spans(mask):
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient[:, :, start:end], query[:, :, start:end], key[:, :, first:last], value[:, :, first:last],
            found[:, :, start:end], sums[:, :, start:end], 0.0, False,
            attn_mask=bias[:, :, start:end, first:last], scale=scale,
        )  # fmt: skip
        of_query[:, :, start:end] = parts[0]
        of_key[:, :, first:last] += parts[1]
        of_value[:, :, first:last] += parts[2]
    return of_query, of_key, of_value


def spans(mask: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Blocks of queries as `(start, end, first key, end of keys)`: what no query of a block sees lies outside."""
    seen = mask.flatten(0, 1).any(0)
    for start in range(0, len(seen), BLOCK):
        block = seen[start : start + BLOCK].any(0).nonzero().flatten().tolist() or [start]  # padding sees nothing
        yield start, min(start + BLOCK, len(seen)), block[0], block[-1] + 1


def _bias(mask: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=like.dtype).masked_fill_(~mask, -torch.inf)


@block_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    batch, heads, length, width = query.shape
    return query.new_empty(batch, length, heads, width), query.new_empty(batch, length, heads).transpose(1, 2)


@_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, found: Tensor, sums: Tensor, scale: float  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_backward(gradient, *ctx.saved_tensors, ctx.scale), None, None


block_attention.register_autograd(_gradients, setup_context=_keep)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; where it is not about packed rows of some length, its own sdpa answers."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    length, plain = query.shape[2], dropout == 0.0 and more.get("position_bias") is None and more.get("softcap") is None
    if (
        attention_mask is not None
        and attention_mask.dtype is torch.bool
        and attention_mask.shape[-2:] == (length, length)
        and key.shape[2] == length > BLOCK
        and query.dtype is torch.float32
        and query.shape[-1] == value.shape[-1]
        and plain
    ):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return block_attention(query, key, value, attention_mask, scale)[0], None
    found: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **more
    )
    return found


def register() -> str:
    """Make transformers know this attention, and return its name there."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
