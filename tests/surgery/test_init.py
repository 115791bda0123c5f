"""How new rows start: each method against its definition."""

import pytest
import torch

from langgraft.surgery.init import INITS, mean, normal, subword_mean, zeros

OLD = torch.arange(12.0).reshape(4, 3)
PIECES = [[0, 1], [3], [1, 1, 2]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("method", [subword_mean, mean, normal, zeros])
def test_one_row_per_new_token_and_old_rows_untouched(method: object) -> None:
    before = OLD.clone()
    rows = method(OLD, PIECES, generator=seeded())  # type: ignore[operator]
    assert rows.shape == (3, 3)
    assert torch.equal(before, OLD)


def test_subword_mean_is_the_mean_of_the_pieces() -> None:
    rows = subword_mean(OLD, PIECES, generator=seeded())
    assert torch.equal(rows[0], (OLD[0] + OLD[1]) / 2)
    assert torch.equal(rows[1], OLD[3])
    torch.testing.assert_close(rows[2], (2 * OLD[1] + OLD[2]) / 3)


def test_mean_is_the_same_for_all() -> None:
    rows = mean(OLD, PIECES, generator=seeded())
    assert all(torch.equal(row, OLD.mean(0)) for row in rows)


def test_normal_depends_on_seed_and_std_and_rows_differ() -> None:
    rows = normal(OLD, PIECES, generator=seeded())
    assert torch.equal(rows, normal(OLD, PIECES, generator=seeded()))
    assert not torch.equal(rows, normal(OLD, PIECES, generator=seeded(1)))
    assert not torch.equal(rows[0], rows[1])  # noise of shape (1, width) would give every row the same
    many = normal(torch.zeros(1, 64), [[0]] * 500, generator=seeded(), std=0.3)
    assert many.std().item() == pytest.approx(0.3, rel=0.05)


def test_zeros_are_zero() -> None:
    assert not zeros(OLD, PIECES, generator=seeded()).any()


def test_the_table_names_exactly_these() -> None:
    assert set(INITS) == {"subword_mean", "mean", "normal", "zeros"}
