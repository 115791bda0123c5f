"""Cross entropy over a large vocabulary without holding all logits at once."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from langgraft.training.divergence import matched, plain_head
from langgraft.training.kernels import flat_rows
from langgraft.training.packing import IGNORED

_Head = Callable[[Tensor], Tensor]
LOGITS = 2**28  # bytes of the logits in float32 that are alive at once
FEWEST, MOST = 64, 1024  # places of a chunk


def places_at_once(rows: int, *, copies: int = 1) -> int:
    """How many places' logits over `rows` ids are made at a time, a power of two; each `copies` times.

    The head's matrix is read anew for every chunk, so the more the faster.
    """
    fitting = LOGITS // (4 * rows * copies)
    return min(max(1 << max(fitting.bit_length() - 1, 0), FEWEST), MOST)


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None, *, z_loss: float = 0.0
) -> Tensor:
    """Sum of next-token losses in nats; `hidden` is (n, width), `weight` (rows, width), `labels` (n,).

    Uses torch's fused chunked loss where this torch has it and there is no `z_loss` (see `cross_entropy`), else
    recomputes each chunk's logits in backward.
    """
    if z_loss == 0.0 and hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=places_at_once(len(weight)), chunking_method=None)
        return F.linear_cross_entropy(hidden, weight, labels, linear_bias=bias, reduction="sum", options=options)
    return recomputed_cross_entropy(hidden, weight, labels, bias, z_loss=z_loss)


def recomputed_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None, *, z_loss: float = 0.0
) -> Tensor:
    """The same sum with plain operations: one chunk of logits alive at a time."""

    def part(rows: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(F.linear(rows, weight, bias).float(), targets, z_loss=z_loss)

    total, size = hidden.new_zeros((), dtype=torch.float32), places_at_once(len(weight))
    for rows, targets in zip(hidden.split(size), labels.split(size), strict=True):
        total = total + checkpoint(part, rows, targets, use_reentrant=False)
    return total


def cross_entropy(logits: Tensor, labels: Tensor, *, z_loss: float = 0.0) -> Tensor:
    """Sum of losses of float32 `logits` (n, rows). `z_loss` times the squared log of the softmax's sum joins the
    gradient, and holds logits near zero; the value stays the cross entropy, so that figures can be compared.

    Source: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), with 1e-4.
    """
    loss = F.cross_entropy(logits, labels, reduction="sum")
    if z_loss == 0.0:
        return loss
    z = z_loss * logits.logsumexp(dim=-1).square()[labels != IGNORED].sum()
    return loss + z - z.detach()


def logits_are_plain(model: Any) -> bool:
    """Whether the model's logits are its head applied to its decoder's output, and nothing else.

    Looks inside one forward pass and asks for the same bits: soft-capping hardly moves the small logits of a
    young model, so a tolerance would overlook it.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    seen: list[Tensor] = []
    hooks = [
        decoder.register_forward_hook(lambda _m, _i, output: seen.append(output.last_hidden_state)),
        head.register_forward_hook(lambda _m, inputs, output: seen.extend((inputs[0], output))),
    ]
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.arange(8, device=head.weight.device)[None], use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) != 3:
        return False
    return torch.equal(seen[0], seen[1]) and torch.equal(seen[2].float(), logits.float())


def loss_function(model: Any, *, z_loss: float = 0.0) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return `f(ids, positions, labels) -> summed loss in nats`; all three have shape (rows, length).

    Hidden states go straight into the chunked loss when the model's logits are nothing but its head applied
    to them. Models that do more (soft-capping, scaling: found by comparing, not by name) pay for full logits.
    """
    body, head = body_and_head(model)

    def from_states(ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        states, weight, bias = body(ids, positions), head.weight, head.bias  # type: ignore[attr-defined]
        return chunked_cross_entropy(states, weight, labels.flatten(), bias, z_loss=z_loss)

    def from_logits(ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(body(ids, positions).float(), labels.flatten(), z_loss=z_loss)

    return from_states if hasattr(head, "weight") else from_logits


def divergence_function(model: Any, teacher: Any, *, rows: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `f(ids, positions) -> summed KL(teacher || model) in nats`; both have shape (rows, length).

    `rows` is how many token ids the teacher knows; probability that the model gives to any other id counts
    against it. One chunk of logits of either model is alive at a time.

    Source: learning without forgetting, Li and Hoiem 2016 (arXiv 1606.09282).
    """
    student_body, student_head = body_and_head(model)
    teacher_body, teacher_head = body_and_head(teacher)
    in_one_pass = plain_head(student_head) and plain_head(teacher_head)

    def divergence(ids: Tensor, positions: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = teacher_body(ids, positions)
        ours = student_body(ids, positions)
        if in_one_pass:
            chunk = places_at_once(len(student_head.weight), copies=3)  # the model's, the teacher's, what it wants
            return matched(ours, theirs, student_head, teacher_head, rows=rows, chunk=chunk)
        return chunked_divergence(ours, student_head, theirs, teacher_head, rows)

    return divergence


def chunked_divergence(ours: Tensor, head: _Head, theirs: Tensor, teacher_head: _Head, rows: int) -> Tensor:
    """Summed KL(teacher || model) over the first `rows` ids, from states of both, (places, width)."""

    def part(chunk: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = F.log_softmax(teacher_head(target)[:, :rows].float(), dim=-1)
        found = F.log_softmax(head(chunk).float(), dim=-1)[:, :rows]
        return F.kl_div(found, wanted, reduction="sum", log_target=True)

    total, size = ours.new_zeros((), dtype=torch.float32), places_at_once(rows, copies=3)
    for chunk, target in zip(ours.split(size), theirs.split(size), strict=True):
        total = total + checkpoint(part, chunk, target, use_reentrant=False)
    return total


def body_and_head(model: Any) -> tuple[Callable[[Tensor, Tensor], Tensor], Any]:
    """A model as `(ids, positions) -> states` of shape (places, width), and `states -> logits`.

    A model whose logits are more than its head gives full logits as its states.
    """
    if logits_are_plain(model):
        decoder, head = model.get_decoder(), model.get_output_embeddings()

        def states(ids: Tensor, positions: Tensor) -> Tensor:
            if flat_rows(model):
                ids, positions = ids.view(1, -1), positions.view(1, -1)
            # No attention mask: transformers isolates packed documents through restarting position ids only then.
            out = decoder(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False)
            return out.last_hidden_state.flatten(0, 1)

        return states, head

    def logits(ids: Tensor, positions: Tensor) -> Tensor:
        if flat_rows(model):
            ids, positions = ids.view(1, -1), positions.view(1, -1)
        out = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False)
        return out.logits.flatten(0, 1)

    return logits, lambda values: values
