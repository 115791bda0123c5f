"""Learning-rate schedules: bounds, warm-up, and where they end."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.errors import RecipeError
from langgraft.methods import resolve
from langgraft.training.schedule import SCHEDULES

NAMES = st.sampled_from(sorted(SCHEDULES))


@given(NAMES, st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.9))
def test_factors_lie_between_minimum_and_one(
    name: str, steps: int, warmup: float, decay: float, minimum: float
) -> None:
    schedule = resolve(SCHEDULES, name, what="schedule")
    first = max(round(warmup * steps), 1)
    factors = [schedule(s, steps, warmup=first, decay=decay, minimum=minimum) for s in range(steps)]
    assert all(0 < f <= 1 or (f == 0 and minimum == 0) for f in factors)
    assert all(f >= minimum - 1e-12 for f in factors[first:])
    assert factors[:first] == [pytest.approx((s + 1) / first) for s in range(first)]
    after = factors[first - 1 :]
    assert all(b <= a + 1e-12 for a, b in pairwise(after))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("minimum", [0.0, 0.1])
def test_the_last_step_is_near_the_minimum(name: str, minimum: float) -> None:
    schedule = resolve(SCHEDULES, name, what="schedule")
    factors = [schedule(s, 1000, warmup=50, decay=0.4, minimum=minimum) for s in range(1000)]
    assert factors[50] == pytest.approx(1.0, abs=1e-4)
    assert minimum <= factors[-1] < minimum + 0.01


def test_wsd_is_flat_until_its_decay() -> None:
    schedule = resolve(SCHEDULES, "wsd", what="schedule")
    factors = [schedule(s, 100, warmup=10, decay=0.4, minimum=0.0) for s in range(100)]
    assert set(factors[10:60]) == {1.0}
    assert factors[60] < 1.0


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(RecipeError, match="schedule `cosin` is unknown; did you mean `cosine`"):
        resolve(SCHEDULES, "cosin", what="schedule")
