"""The loss of a sharded model: the head's rows stay where they are, and processes exchange one number per place.

Source: Shoeybi et al. 2019 (Megatron-LM, arXiv 1909.08053), section 3, for the cross entropy over a cut vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torch.utils.checkpoint import checkpoint

from langgraft.training.kernels import flat_rows
from langgraft.training.loss import (
    body_and_head,
    chunked_cross_entropy,
    chunked_divergence,
    cross_entropy,
    logits_are_plain,
)
from langgraft.training.packing import IGNORED
from langgraft.training.parallel import through
from langgraft.training.regions import region

CHUNK = 256  # places; the same in every process, though their parts of the vocabulary may differ in size


class _CutCrossEntropy(torch.autograd.Function):
    """Losses (n,) and squared log-sums (n,) of logits (n, own rows), whose rows from `first` on are this process's."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, first: int, group: Any) -> tuple[Tensor, Tensor]:
        counted = labels != IGNORED
        highest = logits.max(dim=-1).values
        distributed.all_reduce(highest, op=distributed.ReduceOp.MAX, group=group)
        powers = (logits - highest[:, None]).exp_()
        total = powers.sum(dim=-1)
        inside = counted & (labels >= first) & (labels < first + logits.shape[1])
        place = torch.where(inside, labels - first, 0)
        wanted = torch.where(inside, logits.gather(1, place[:, None])[:, 0], 0.0)
        both = torch.stack([total, wanted])
        distributed.all_reduce(both, group=group)
        log_sum = both[0].log() + highest
        ctx.save_for_backward(powers.div_(both[0][:, None]), place, inside, counted, log_sum)
        return (log_sum - both[1]) * counted, log_sum.square() * counted

    @staticmethod
    def backward(ctx: Any, losses: Tensor, squares: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        share, place, inside, counted, log_sum = ctx.saved_tensors
        pulled = (losses + 2 * squares * log_sum) * counted
        found = share * pulled[:, None]
        found.scatter_add_(1, place[:, None], -(losses * inside)[:, None])
        return found, None, None, None


class _SumOfGradients(torch.autograd.Function):
    """The same states in every process of `group`; each finds a part of their gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, found: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        found = found.contiguous()
        distributed.all_reduce(found, group=ctx.group)
        return found, None


def cut_cross_entropy(
    states: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, first: int, group: Any, *, z_loss: float = 0.0
) -> Tensor:
    """Sum of next-token losses in nats, where each process of `group` has some rows of the head.

    Args:
        states: (n, width), the same in all of them.
        weight: (own rows, width), and `bias` (own rows,), from row `first` on.
        labels: (n,), ids of the whole vocabulary.
        z_loss: as `loss.cross_entropy` has it.

    One chunk of this process's logits is alive at a time.
    """

    def part(rows: Tensor, targets: Tensor) -> Tensor:
        losses, squares = _CutCrossEntropy.apply(F.linear(rows, weight, bias).float(), targets, first, group)  # type: ignore[no-untyped-call]
        z = z_loss * squares.sum()
        return losses.sum() + (z - z.detach() if z_loss else 0.0)  # type: ignore[no-any-return]

    states = _SumOfGradients.apply(states, group)  # type: ignore[no-untyped-call]
    total = states.new_zeros((), dtype=torch.float32)
    for rows, targets in zip(states.split(CHUNK), labels.split(CHUNK), strict=True):
        total = total + checkpoint(part, rows, targets, use_reentrant=False)
    return total


def sharded_loss(model: Any, *, z_loss: float = 0.0) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """As `loss.loss_function`, for a model from `parallel.load_sharded`; every process calls it as often."""
    plain = logits_are_plain(model)
    head = model.get_output_embeddings()

    def on_states(states: Tensor, labels: Tensor) -> Tensor:
        weight, bias = head.weight, head.bias
        if not hasattr(weight, "to_local"):
            return chunked_cross_entropy(states, weight, labels, bias, z_loss=z_loss)
        own, own_bias = _own_head(weight, bias)
        start = region(weight).offset[0]
        return cut_cross_entropy(states, own, labels, own_bias, start, weight.device_mesh.get_group(), z_loss=z_loss)

    def inside(ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        return through(head, on_states, _states(model, ids, positions), labels)

    def loss(ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        if flat_rows(model):
            ids, positions = ids.view(1, -1), positions.view(1, -1)
        if plain:
            return through(model, inside, ids, positions, labels.flatten())
        out = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False)
        return cross_entropy(out.logits.flatten(0, 1).float(), labels.flatten(), z_loss=z_loss)

    return loss


def sharded_divergence(model: Any, teacher: Any, *, rows: int) -> Callable[[Tensor, Tensor], Tensor]:
    """As `loss.divergence_function`, for a model from `parallel.load_sharded`; each process has all of the teacher."""
    plain = logits_are_plain(model)
    teacher_body, teacher_head = body_and_head(teacher)
    head = model.get_output_embeddings()

    def on_states(ours: Tensor, theirs: Tensor) -> Tensor:
        weight, bias = head.weight, head.bias
        if not hasattr(weight, "to_local"):
            return chunked_divergence(ours, lambda x: F.linear(x, weight, bias), theirs, teacher_head, rows)
        own, own_bias = _own_head(weight, bias)
        mesh, size = weight.device_mesh, weight.shape[0]

        def whole(states: Tensor) -> Tensor:
            return _Together.apply(F.linear(states, own, own_bias), size, mesh.get_group())  # type: ignore[no-any-return, no-untyped-call]

        ours = _SumOfGradients.apply(ours, mesh.get_group())  # type: ignore[no-untyped-call]
        return chunked_divergence(ours, whole, theirs, teacher_head, rows)

    def inside(ids: Tensor, positions: Tensor, theirs: Tensor) -> Tensor:
        return through(head, on_states, _states(model, ids, positions), theirs)

    def divergence(ids: Tensor, positions: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = teacher_body(ids, positions)
        if flat_rows(model):
            ids, positions = ids.view(1, -1), positions.view(1, -1)
        if plain:
            return through(model, inside, ids, positions, theirs)
        out = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False)
        return chunked_divergence(out.logits.flatten(0, 1), lambda logits: logits, theirs, teacher_head, rows)

    return divergence


class _Together(torch.autograd.Function):
    """Logits (n, rows) from the equal parts (n, own rows) of each process of `group`, which then all do the same."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: int, group: Any) -> Tensor:
        count, here = distributed.get_world_size(group), distributed.get_rank(group)
        parts = [torch.empty_like(own) for _ in range(count)]
        distributed.all_gather(parts, own.contiguous(), group=group)
        ctx.own = slice(here * own.shape[1], (here + 1) * own.shape[1])
        return torch.cat(parts, dim=1)[:, :rows]

    @staticmethod
    def backward(ctx: Any, found: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return found[:, ctx.own], None, None


def _own_head(weight: Any, bias: Any) -> tuple[Tensor, Tensor | None]:
    return weight.to_local(), None if bias is None else bias.to_local()


def _states(model: Any, ids: Tensor, positions: Tensor) -> Tensor:
    out = model.get_decoder()(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False)
    return out.last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]
