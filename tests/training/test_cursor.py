"""The rows of a run that changed its share of replay: none is left out, none is read twice on the way to the model."""

from hypothesis import given
from hypothesis import strategies as st

from langgraft.training.cursor import Cursor, Segment

RATIOS = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.55, 0.9])


@given(st.integers(1, 7), RATIOS, st.lists(st.tuples(st.integers(0, 12), RATIOS), max_size=4))
def test_rows_follow_one_another_however_often_a_run_is_turned_back(
    batch: int, ratio: float, turns: list[tuple[int, float]]
) -> None:
    cursor, at = Cursor([Segment(0, ratio)], batch), 12
    for step, new in turns:
        cursor = Cursor(cursor.turned_back(min(step, at), new), batch)
    rows = [row for step in range(20) for row in cursor.rows(step)]
    for side, expected in zip((False, True), cursor.read(20), strict=True):
        read = [own for is_replay, own in rows if is_replay == side]
        assert read == list(range(expected))


def test_each_segment_has_its_share_of_replay() -> None:
    cursor = Cursor(Cursor([Segment(0, 0.25)], 4).turned_back(5, 0.5), 4)
    shares = [sum(is_replay for is_replay, _ in cursor.rows(step)) for step in range(8)]
    assert shares == [1, 1, 1, 1, 1, 2, 2, 2]
    assert cursor.read(5) == (15, 5)
    assert cursor.read(8) == (21, 11)


def test_what_came_after_the_step_turned_back_to_is_forgotten() -> None:
    cursor = Cursor([Segment(0, 0.25)], 4)
    cursor = Cursor(cursor.turned_back(8, 0.5), 4)
    assert Cursor(cursor.turned_back(4, 0.75), 4).segments == [Segment(0, 0.25), Segment(4, 0.75, 12, 4)]
