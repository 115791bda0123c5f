"""How new embedding rows start. Each method gets one matrix (input embedding or head) and fills new rows.

A method is `f(old, pieces, *, generator, ...) -> new` with `old` of shape (old rows, width) in float32,
`pieces` the base ids of each new token (one list per new token, in id order), `generator` a seeded
`torch.Generator`, and `new` of shape (len(pieces), width). Its keyword-only arguments after `generator` are
its options in the recipe.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

INITS: dict[str, str] = {
    "subword_mean": "langgraft.surgery.init:subword_mean",
    "mean": "langgraft.surgery.init:mean",
    "normal": "langgraft.surgery.init:normal",
    "zeros": "langgraft.surgery.init:zeros",
}


def subword_mean(old: Tensor, pieces: Sequence[Sequence[int]], *, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Mean of the rows of the base tokens that the new token replaces.

    Source: average of subwords, Koto et al. 2021 (IndoBERTweet, arXiv 2109.04607).
    """
    if not pieces:
        return old[:0]
    # A base without tokens for some bytes may spell a token with nothing at all.
    return torch.stack([old[list(ids)].mean(dim=0) if ids else old.mean(dim=0) for ids in pieces])


def mean(old: Tensor, pieces: Sequence[Sequence[int]], *, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Mean of all old rows (Hewitt 2021: bounds how much probability leaks to new tokens)."""
    return old.mean(dim=0, keepdim=True).repeat(len(pieces), 1)


def normal(old: Tensor, pieces: Sequence[Sequence[int]], *, generator: torch.Generator, std: float = 0.02) -> Tensor:
    """Gaussian rows with standard deviation `std`: what `resize_token_embeddings` did for years; leaks probability."""
    return torch.randn(len(pieces), old.shape[1], generator=generator) * std


def zeros(old: Tensor, pieces: Sequence[Sequence[int]], *, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """Zero rows, for comparison: every new token starts with logit 0, which leaks probability."""
    return torch.zeros(len(pieces), old.shape[1])
