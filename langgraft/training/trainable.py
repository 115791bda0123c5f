"""Which parameters learn, and how fast: body, new rows, old rows.

Embedding and head rows of new tokens want a high rate, old rows a low one (see TRAPS 16 in the design notes:
one rate for both is the usual recipe and the usual forgetting). Adam's step does not depend on the size of
the gradient, so a low rate for old rows cannot be had by scaling their gradient: the whole matrix steps at
the new rows' rate, and old rows are then moved back to the wanted fraction of their step.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def token_matrices(model: Any) -> list[nn.Parameter]:
    """Embedding and head weights, once each (one parameter when tied)."""
    found = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not found[0]:
        found.append(head.weight)
    return found


def parameter_groups(
    model: Any, *, learning_rate: float, new_rows_learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for AdamW, each with its `peak` rate; no decay on embeddings, norms and biases.

    Embeddings of positions (GPT-2) are body, without decay.
    """
    rows = {id(p) for p in token_matrices(model)}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    body = [p for p in model.parameters() if id(p) not in rows]
    matrices = [p for p in body if p.dim() >= 2 and id(p) not in tables]
    rest = [p for p in body if p.dim() < 2 or id(p) in tables]
    groups = [
        {"params": matrices, "peak": learning_rate, "weight_decay": weight_decay},
        {"params": rest, "peak": learning_rate, "weight_decay": 0.0},
        {"params": token_matrices(model), "peak": new_rows_learning_rate, "weight_decay": 0.0},
    ]
    return [{**group, "lr": group["peak"]} for group in groups if group["params"]]


class OldRows:
    """Holds back the first `count` rows of every token matrix to `factor` of their step."""

    def __init__(self, model: Any, count: int, factor: float) -> None:
        self.matrices = token_matrices(model)
        self.count, self.factor = count, factor
        self.before: list[Tensor] = []
        if factor < 1.0:
            self.before = [torch.empty_like(matrix[:count]) for matrix in self.matrices]

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Wrap the optimizer's step. With factor 0 old rows stay bit-identical."""
        for kept, matrix in zip(self.before, self.matrices, strict=False):
            kept.copy_(matrix.detach()[: self.count])
        yield
        with torch.no_grad():
            for kept, matrix in zip(self.before, self.matrices, strict=False):
                old = matrix[: self.count]
                old.copy_(kept if self.factor == 0.0 else torch.lerp(kept, old, self.factor))
