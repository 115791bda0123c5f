"""Train under torchrun: `torchrun … together_child.py JOBS.json`.

The file holds a list of jobs, done one after the other by the same processes: `train` takes the arguments of
loop.train as JSON; `rows` names a file for the rows that each process took.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from loop_child import settings_of

from langgraft.processes import rank
from langgraft.progress import Log
from langgraft.training import loop
from langgraft.training.loop import Compute, train
from langgraft.training.parallel import Layout, leave


def one(job: dict[str, Any]) -> None:
    """One training; a signal to the second process alone after step `stop`, if asked."""
    taken: list[list[Any]] = []
    real = loop._Run._row

    def row(run: Any, is_replay: bool, index: int) -> Any:
        taken.append([run.step, is_replay, index])
        return real(run, is_replay, index)

    def after(step: int, _: Any) -> None:
        if step == job.get("stop") and rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    loop._Run._row = row  # type: ignore[method-assign]
    out = Path(job["out"])
    compute = Compute(**{**job["compute"], "layout": Layout(**job["layout"])})
    try:
        train(
            Path(job["model"]),
            out,
            target=Path(job["target"]),
            replay=Path(job["replay"]),
            teacher=Path(job["teacher"]) if job.get("teacher") else None,
            old_rows=job["old_rows"],
            settings=settings_of(job["settings"]),
            compute=compute,
            log=Log(out / "log.txt", quiet=True),
            after_step=after,
        )
        result = "done"
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    finally:
        loop._Run._row = real  # type: ignore[method-assign]
    (out / f"result-{job['name']}-{rank()}.json").write_text(json.dumps({"result": result, "rows": taken}))


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text()):
        one(each)
    leave()
