"""How far a model's predictions are from a teacher's, over a large vocabulary, with the gradient made in the same pass.

The gradient of KL(teacher || model) by the model's logits is the difference of the two distributions, so it is there as
soon as the value is. Making it at once, chunk by chunk, saves the second computation of all logits that checkpointing
would need, and still only one chunk of logits is alive at a time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain_head(head: Any) -> bool:
    """Whether a head is a linear layer and nothing else, its weight an ordinary tensor (not sharded, not quantized)."""
    return type(head) is nn.Linear and type(head.weight) is nn.Parameter


def matched(ours: Tensor, theirs: Tensor, head: Any, teacher: Any, *, rows: int, chunk: int) -> Tensor:
    """Sum of KL(teacher || model) in nats over places; states are (places, width) of each model, heads plain ones.

    `rows` is how many token ids the teacher knows; `chunk` places are computed at a time.
    """
    total: Tensor = _Matched.apply(ours, head.weight, head.bias, theirs, teacher, rows, chunk)
    return total


class _Matched(torch.autograd.Function):
    """Value and gradients in one pass; weight and bias get theirs only where they learn."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        ours: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        theirs: Tensor,
        teacher: nn.Linear,
        rows: int,
        chunk: int,
    ) -> Tensor:
        learns = ctx.needs_input_grad
        total = ours.new_zeros((), dtype=torch.float32)
        for_states = torch.empty_like(ours) if learns[0] else None
        for_weight = torch.zeros_like(weight) if learns[1] else None
        for_bias = torch.zeros_like(bias) if bias is not None and learns[2] else None
        for start in range(0, len(ours), chunk):
            part = slice(start, start + chunk)
            wanted = F.log_softmax(teacher(theirs[part])[:, :rows].float(), dim=-1)
            found = F.log_softmax(F.linear(ours[part], weight, bias).float(), dim=-1)
            share = wanted.exp()
            total += torch.sum(share * wanted.sub_(found[:, :rows]))
            away = found.exp_()
            away[:, :rows] -= share
            away = away.to(ours.dtype)
            if for_states is not None:
                for_states[part] = away @ weight.to(ours.dtype)
            if for_weight is not None:
                for_weight.addmm_(away.t().to(weight.dtype), ours[part].to(weight.dtype))
            if for_bias is not None:
                for_bias += away.sum(0)
        ctx.gradients = (for_states, for_weight, for_bias)
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:  # type: ignore[override]
        scaled = [None if gradient is None else gradient.mul_(outer.to(gradient.dtype)) for gradient in ctx.gradients]
        ctx.gradients = None
        return (*scaled, None, None, None, None)
