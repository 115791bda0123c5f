"""Cross entropy over a large vocabulary without holding all logits at once."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 256  # positions; 256 x 150k logits in float32 are 154 MB


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Sum of next-token losses in nats; `hidden` is (n, width), `weight` (rows, width), `labels` (n,).

    Uses torch's fused chunked loss where this torch has it, else recomputes each chunk's logits in backward.
    """
    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK, chunking_method=None)
        return F.linear_cross_entropy(
            hidden, weight, labels, linear_bias=bias, reduction="sum", options=options
        )
    return recomputed_cross_entropy(hidden, weight, labels, bias)


def recomputed_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The same sum with plain operations: one chunk of logits alive at a time."""

    def part(rows: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(rows, weight, bias).float(), targets, reduction="sum")

    total = hidden.new_zeros((), dtype=torch.float32)
    for rows, targets in zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True):
        total = total + checkpoint(part, rows, targets, use_reentrant=False)
    return total


def loss_function(model: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return `f(ids, positions, labels) -> summed loss in nats`; all three have shape (rows, length).

    Hidden states go straight into the chunked loss when the model's logits are nothing but its head applied
    to them. Models that do more (soft-capping, scaling: found by comparing, not by name) pay for full logits.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    device = head.weight.device
    probe = torch.arange(8, device=device).unsqueeze(0)
    with torch.no_grad():
        hidden = decoder(input_ids=probe, use_cache=False).last_hidden_state
        plain = torch.allclose(
            head(hidden), model(input_ids=probe, use_cache=False).logits, atol=1e-3, rtol=1e-3
        )

    def from_hidden(ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        # No attention mask: transformers isolates packed documents through restarting position ids only then.
        states = decoder(
            input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False
        ).last_hidden_state
        return chunked_cross_entropy(states.flatten(0, 1), head.weight, labels.flatten(), head.bias)

    def from_logits(ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        logits = model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")

    return from_hidden if plain else from_logits
