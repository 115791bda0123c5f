"""Progress lines: percent, rate, time left that never runs backwards."""

from pathlib import Path

import pytest

from langgraft import progress as module
from langgraft.progress import Log, clock


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module, "time", fake)
    return fake


def test_lines_come_at_most_every_so_often(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    counter = Log().progress("reading", 100, unit="rows", every=5)
    for _ in range(10):
        time.now += 1
        counter.advance(10, "x")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "reading: 50/100 rows (50%), 10.0 rows/s, 0:05 left, x",
        "reading: 100/100 rows (100%), 10.0 rows/s, 0:00 left, x",
    ]


def test_more_than_the_total_leaves_no_negative_time(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    counter = Log().progress("replay", 16_000, unit="tokens")
    time.now = 100
    counter.advance(16_384)
    assert capsys.readouterr().err == "replay: 16,384/16,000 tokens (102%), 163.8 tokens/s, 0:00 left\n"


def test_the_rate_counts_this_process_only(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    counter = Log().progress("steps", 100, unit="steps", done=80)
    time.now = 10
    counter.advance(10)
    assert capsys.readouterr().err == "steps: 90/100 steps (90%), 1.0 steps/s, 0:10 left\n"


def test_nothing_done_and_nothing_to_do(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    Log().progress("none", 0, unit="rows").advance(0)
    assert capsys.readouterr().err == "none: 0/0 rows (0%), 0.0 rows/s, 0:00 left\n"
    time.now = 6
    Log().progress("none", 5, unit="rows", every=0).advance(0)
    assert "0:00 left" in capsys.readouterr().err


def test_the_log_file_has_the_time_of_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path / "deep" / "log.txt", quiet=True)
    log.say("one")
    log.say("two")
    lines = (tmp_path / "deep" / "log.txt").read_text().splitlines()
    assert [line[19:] for line in lines] == ["  one", "  two"]
    assert lines[0][10] == "T"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3599.5, "1:00:00"), (3675, "1:01:15")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
