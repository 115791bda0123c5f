"""Status from files alone: what is done, who runs it, and what a killed process leaves."""

import os
from pathlib import Path

import pytest
from command import Finished

from langgraft.errors import BusyError, InputError
from langgraft.status import report_of, statuses
from langgraft.store import lock


def test_done_stages_and_the_last_line(finished: Finished) -> None:
    (one,) = statuses(finished.runs)
    assert (one["name"], one["running"], one["report"]) == ("pico", False, True)
    assert one["last"].endswith("report.html")
    assert statuses(finished.run) == [one]


def test_a_running_process_is_named(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    with lock(copy.run, what="pico"):
        (one,) = statuses(tmp_path)
    assert one["running"] is True
    assert f"running (process {os.getpid()} on" in one["text"]


def test_parts_that_run_side_by_side_are_running(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    with lock(copy.run, what="pico, part 1/2", shared=True):
        (one,) = statuses(tmp_path)
        with pytest.raises(BusyError, match="part 1/2"), lock(copy.run, what="pico"):
            pass
    assert (one["running"], "pico, part 1/2" in one["text"]) == (True, True)
    assert statuses(tmp_path)[0]["running"] is False


def test_what_a_killed_process_left_in_the_lock_is_not_running(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    (copy.run / ".lock").write_text("process 4194000 on nowhere (pico)")
    (one,) = statuses(tmp_path)
    assert one["running"] is False
    assert "4194000" not in one["text"]


def test_a_run_that_only_began(tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "log.txt").write_text("")
    (tmp_path / "not-a-run").mkdir()
    (one,) = statuses(tmp_path)
    assert one["text"] == "done: nothing yet"


def test_folders_without_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        statuses(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        statuses(tmp_path / "no")
    with pytest.raises(InputError, match="has no report yet"):
        report_of(tmp_path)
