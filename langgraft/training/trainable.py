"""How fast parameters learn: body, new rows, old rows. Which ones learn at all is a mode's choice (modes.py).

Embedding and head rows of new tokens want a high rate, old rows a low one (see TRAPS 16 in the design notes:
one rate for both is the usual recipe and the usual forgetting). Adam's step does not depend on the size of
the gradient, so a low rate for old rows cannot be had by scaling their gradient: the whole matrix steps at
the new rows' rate, and old rows are then moved back to the wanted fraction of their step.

Where old rows must not move at all, the optimizer gets the new rows alone, as parameters that share the matrix's
memory: neither a gradient, nor weight decay, nor Adam's state can then reach an old row.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from langgraft.training.regions import Region, gradient, local, region


def token_matrices(model: Any) -> list[nn.Parameter]:
    """Embedding and head weights, once each (one parameter when tied)."""
    found = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not found[0]:
        found.append(head.weight)
    return found


def row_parameters(model: Any) -> list[nn.Parameter]:
    """All that has one row per token: `token_matrices`, and the head's bias where it has one."""
    bias = getattr(model.get_output_embeddings(), "bias", None)
    return [*token_matrices(model), *([bias] if bias is not None else [])]


class NewRows:
    """The rows from `first` on of all `row_parameters`, as parameters `parts` that share the matrices' memory.

    Of a sharded matrix, those of them that this process holds; `regions` say where they lie among the new rows.
    """

    def __init__(self, model: Any, first: int) -> None:
        self.whole = row_parameters(model)
        places = [region(matrix) for matrix in self.whole]
        self.skipped = [min(max(first - place.offset[0], 0), place.sizes[0]) for place in places]
        self.parts = [nn.Parameter(local(p)[skip:]) for p, skip in zip(self.whole, self.skipped, strict=True)]
        self.regions = [
            Region(
                (place.whole[0] - first, *place.whole[1:]),
                (max(place.offset[0] - first, 0), *place.offset[1:]),
                tuple(part.shape),
            )
            for place, part in zip(places, self.parts, strict=True)
        ]

    def take_gradients(self) -> None:
        """Hand the new rows' part of each gradient to the parts; the gradients of old rows go nowhere."""
        for matrix, part, skip in zip(self.whole, self.parts, self.skipped, strict=True):
            found = gradient(matrix)
            part.grad = None if found is None else found[skip:]
            matrix.grad = None


def trained_parameters(model: Any, new_rows: NewRows | None = None) -> list[nn.Parameter]:
    """What the optimizer moves, in the model's order; of `new_rows`, the parts in place of the matrices."""
    parts: dict[int, nn.Parameter] = {}
    if new_rows is not None:
        parts = {id(whole): part for whole, part in zip(new_rows.whole, new_rows.parts, strict=True)}
    return [parts.get(id(p), p) for p in model.parameters() if p.requires_grad]


def parameter_groups(
    model: Any,
    *,
    learning_rate: float,
    new_rows_learning_rate: float,
    weight_decay: float,
    new_rows: NewRows | None = None,
) -> list[dict[str, Any]]:
    """Groups of what requires gradients, for an optimizer; no decay on embeddings, norms, biases.

    Each has its `peak` rate and names its `part`: matrices, rest (of the transformer), rows. Embeddings of positions
    (GPT-2) are part of the rest. With `new_rows`, only those rows of the token matrices.
    """
    rows = new_rows.parts if new_rows is not None else [p for p in token_matrices(model) if p.requires_grad]
    own = {id(p) for p in rows}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    body = [p for p in trained_parameters(model, new_rows) if id(p) not in own]
    matrices = [p for p in body if p.dim() >= 2 and id(p) not in tables]
    rest = [p for p in body if p.dim() < 2 or id(p) in tables]
    groups = [
        {"part": "matrices", "params": matrices, "peak": learning_rate, "weight_decay": weight_decay},
        {"part": "rest", "params": rest, "peak": learning_rate, "weight_decay": 0.0},
        {"part": "rows", "params": rows, "peak": new_rows_learning_rate, "weight_decay": 0.0},
    ]
    return [{**group, "lr": group["peak"]} for group in groups if group["params"]]


class OldRows:
    """Holds back the first `count` rows of every token matrix to `factor` of their step."""

    def __init__(self, model: Any, count: int, factor: float) -> None:
        self.factor = factor
        self.old: list[Tensor] = []
        if factor < 1.0:
            matrices = token_matrices(model)
            here = [max(count - region(matrix).offset[0], 0) for matrix in matrices]
            self.old = [local(matrix)[:rows] for matrix, rows in zip(matrices, here, strict=True)]
        self.before = [torch.empty_like(old) for old in self.old]

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Wrap the optimizer's step. With factor 0 old rows stay bit-identical."""
        for kept, old in zip(self.before, self.old, strict=True):
            kept.copy_(old)
        yield
        for kept, old in zip(self.before, self.old, strict=True):
            old.copy_(kept if self.factor == 0.0 else torch.lerp(kept, old, self.factor))
