"""Which rows a step reads, when the share of replay changes on the way: a pure function of the segments of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langgraft.training.packing import interleave


@dataclass(frozen=True)
class Segment:
    """From step `first` on, `ratio` of the rows are replay; each side goes on at the row given."""

    first: int
    ratio: float
    target_row: int = 0
    replay_row: int = 0


class Cursor:
    """The rows of each step, `batch_rows` of them; a run that was never turned back has one segment."""

    def __init__(self, segments: Sequence[Segment], batch_rows: int) -> None:
        self.segments, self.batch_rows = list(segments), batch_rows

    def segment(self, step: int) -> Segment:
        """The segment that `step` reads from (steps count from 0)."""
        return [segment for segment in self.segments if segment.first <= step][-1]

    def rows(self, step: int) -> Iterator[tuple[bool, int]]:
        """For each row of a step, whether it is replay, and its index on its side."""
        segment = self.segment(step)
        before = (step - segment.first) * self.batch_rows
        for index in range(before, before + self.batch_rows):
            is_replay, own = interleave(index, segment.ratio)
            yield is_replay, own + (segment.replay_row if is_replay else segment.target_row)

    def read(self, step: int) -> tuple[int, int]:
        """Rows of target and of replay read before `step`."""
        segment = self.segment(max(step - 1, 0))
        rows = (step - segment.first) * self.batch_rows
        replayed = int(rows * segment.ratio + 1e-9)
        return segment.target_row + rows - replayed, segment.replay_row + replayed

    def turned_back(self, step: int, ratio: float) -> list[Segment]:
        """The segments of a run that goes on from `step` with another ratio; no row is left out."""
        target, replay = self.read(step)
        return [*(segment for segment in self.segments if segment.first < step), Segment(step, ratio, target, replay)]
