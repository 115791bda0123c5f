"""What the rows of embedding and head tell: dead ones, ones that never moved, ones that belong to other tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from langgraft.doctor.subject import Subject
from langgraft.errors import TokenizerError
from langgraft.evaluation.cautions import Finding
from langgraft.surgery.matrices import find_matrices
from langgraft.surgery.resize import new_token_pieces
from langgraft.surgery.shards import FLOATS, read_headers, read_rows
from langgraft.tokenizer.files import all_ids, read_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

UNMOVED = 0.05  # share of new rows: rare tokens may never have been met
SAMPLE = 512  # new rows that are compared with the means of all
# A row's own mean must be the nearest for this share of rows; else others are named if they are this close (cosine)
# and this much closer. Measured: own first for 100% of a SmolLM2's rows and 70% of a pico model's; random rows 0.13
# and 0.37 close.
OWN_FIRST, CLOSE, CLOSER = 0.5, 0.5, 0.15


def _matrices(folder: Path) -> Iterator[tuple[str, "Tensor"]]:
    """Each matrix with a row per token, in float32, once."""
    headers, found = read_headers(folder), find_matrices(folder)
    for name, kind in found.kinds.items():
        if kind != "head_bias" and name not in found.copies and headers[name].dtype in FLOATS:
            yield name, read_rows(headers[name]).float()


def dead(subject: Subject) -> Iterator[Finding]:
    """Rows of tokens that are zero, not finite, or the same for many tokens that the base did not have."""
    assert subject.model is not None
    ids = all_ids(read_tokenizer(subject.model))
    old = all_ids(read_tokenizer(subject.base)) if subject.base else {}
    fresh = sorted(i for token, i in ids.items() if token not in old) if subject.base else []
    for name, matrix in _matrices(subject.model):
        inside = [i for i in ids.values() if i < len(matrix)]
        rows = matrix[sorted(inside)]
        zero, endless = int((rows == 0).all(dim=1).sum()), int((~rows.isfinite().all(dim=1)).sum())
        fix = "start the new rows again: langgraft surgery --init subword_mean, then train"
        if zero:
            problem = "rows of tokens are zero: their logit is always 0, and probability leaks to them"
            yield Finding("dead-rows", problem, f"{subject.model}, {name}", f"{zero:,} of {len(inside):,} rows", fix)
        if endless:
            problem = "rows of tokens are not finite"
            yield Finding("dead-rows", problem, f"{subject.model}, {name}", f"{endless:,} of {len(inside):,} rows", fix)
        new = matrix[[i for i in fresh if i < len(matrix)]]
        if len(new) > 1 and not zero:
            distinct = len(new.unique(dim=0))
            if distinct <= len(new) / 2:
                problem = "many new tokens share one row, so the model cannot tell them apart"
                figure = f"{distinct:,} different rows for {len(new):,} new tokens"
                yield Finding("dead-rows", problem, f"{subject.model}, {name}", figure, fix)


def untrained(subject: Subject) -> Iterator[Finding]:
    """New rows that are bit for bit what surgery wrote."""
    assert subject.model is not None
    assert subject.surgery is not None
    if subject.model == subject.surgery or subject.base is None:
        return
    first = min(_fresh(subject.base, subject.model), default=None)
    if first is None:
        return
    count = len(_fresh(subject.base, subject.model))
    before = dict(_matrices(subject.surgery))
    for name, after in _matrices(subject.model):
        if name not in before or before[name].shape != after.shape:
            continue
        still = int((before[name][first : first + count] == after[first : first + count]).all(dim=1).sum())
        if still > UNMOVED * count:
            fix = (
                "train the embedding too (mode full, new-rows or lora with rows), with new_rows_learning_rate above 0, "
                "on text that holds the new tokens"
            )
            problem = "new rows were never trained"
            yield Finding("untrained-rows", problem, f"{subject.model}, {name}", f"{still:,} of {count:,} rows", fix)


def _fresh(base: Path, model: Path) -> list[int]:
    old = all_ids(read_tokenizer(base))
    return sorted(i for token, i in all_ids(read_tokenizer(model)).items() if token not in old)


def shifted(subject: Subject) -> Iterator[Finding]:
    """New rows against the mean of the base tokens that spell each token: an own row is nearest to its own mean.

    Works for rows that started from what the tokens are made of, however well trained; rows that started at
    random are near no mean, and are not judged.
    """
    import torch

    assert subject.model is not None
    assert subject.base is not None
    try:
        pieces, first = new_token_pieces(subject.base, subject.model)
    except TokenizerError:
        return  # `special-ids` says what is wrong
    name, matrix = next(_matrices(subject.model))
    spelled = [number for number, ids in enumerate(pieces) if len(ids) > 1 and first + number < len(matrix)]
    if len(spelled) < 8:
        return
    means = torch.stack([matrix[pieces[number]].mean(dim=0) for number in spelled])
    chosen = torch.linspace(0, len(spelled) - 1, min(SAMPLE, len(spelled))).round().long()
    rows = matrix[[first + number for number in spelled]]
    # What all of them share says nothing about which row is whose.
    rows, means = (rows - rows.mean(dim=0))[chosen], means - means.mean(dim=0)
    likeness = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(means, dim=1).T
    own = likeness[torch.arange(len(chosen)), chosen]
    best, at = likeness.max(dim=1)
    right = float((own >= best - 1e-4).float().mean())
    if right >= OWN_FIRST or float(best.mean()) < CLOSE or float((best - own).mean()) < CLOSER:
        return
    steps = [spelled[int(to)] - spelled[int(of)] for of, to in zip(chosen, at, strict=True)]
    common = max(set(steps), key=steps.count)
    by = f", shifted by {common:+d}" if steps.count(common) > len(steps) / 2 else ""
    problem = f"new rows belong to other tokens{by}: they are like the pieces of others, not of their own"
    figure = f"{right:.0%} of {len(chosen)} rows are nearest to their own token"
    fix = "give the weights the tokenizer they were trained with; make the tokenizer and the surgery again together"
    yield Finding("shifted-ids", problem, f"{subject.model}, {name}", figure, fix)
