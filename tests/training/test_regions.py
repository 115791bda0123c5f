"""Parts of tensors: any region is read back from any cut."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langgraft.errors import TrainingError
from langgraft.training.regions import Region, Stored, take

WHOLE = torch.arange(35, dtype=torch.float32).view(7, 5)


def cut(rows: list[int], columns: list[int]) -> Stored:
    """WHOLE, cut before these rows and columns."""
    stored = Stored(WHOLE.shape)
    marks = [sorted({0, *rows, 7}), sorted({0, *columns, 5})]
    for (a, b), (c, d) in itertools.product(*(itertools.pairwise(mark) for mark in marks)):
        stored.pieces.append(((a, c), WHOLE[a:b, c:d].clone()))
    return stored


spans = [st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted) for size in (7, 5)]


@given(st.lists(st.integers(1, 6)), st.lists(st.integers(1, 4)), *spans)
def test_any_region_of_any_cut(rows: list[int], columns: list[int], high: list[int], wide: list[int]) -> None:
    (a, b), (c, d) = high, wide
    wanted = Region((7, 5), (a, c), (b - a, d - c))
    stored = cut(rows, columns)
    assert torch.equal(stored.read(wanted), WHOLE[a:b, c:d])
    assert torch.equal(take(stored, wanted), take(WHOLE, wanted))


def test_a_part_that_is_missing_is_told() -> None:
    stored = cut([3], [2])
    del stored.pieces[2]
    assert torch.equal(stored.read(Region((7, 5), (0, 0), (3, 5))), WHOLE[:3])
    with pytest.raises(TrainingError, match=r"a checkpoint lacks a part of a tensor of shape \(7, 5\); use the one"):
        stored.read(Region((7, 5), (0, 0), (7, 5)))
    with pytest.raises(TrainingError, match="lacks a part"):
        Stored((7, 5)).read(Region((7, 5), (0, 0), (7, 5)))


def test_a_count_of_steps_is_not_cut() -> None:
    assert take(torch.tensor(3.0), Region((7, 5), (3, 0), (4, 5))) == 3.0
