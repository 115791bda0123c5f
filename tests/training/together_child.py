"""Train under torchrun: `torchrun … together_child.py JOBS.json`.

The file holds a list of jobs, done one after the other by the same processes: the arguments of loop.train as JSON;
`stop` and `crash` say where it is to be stopped. Each process writes how it ended, and the rows that it took.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from drift import drift
from loop_child import settings_of
from pico import CANTONESE, ENGLISH

from langgraft.evaluation.retention import Gauge, Held
from langgraft.processes import rank
from langgraft.progress import Log
from langgraft.text import language
from langgraft.training import loop
from langgraft.training.loop import Compute, train
from langgraft.training.parallel import Layout, leave
from langgraft.training.retention import Retention


def retention_of(job: dict[str, Any]) -> Retention | None:
    """The watch that a job asks for; only the first process can measure."""
    asked = dict(job.get("retention") or {})
    if not asked:
        return None
    kind, bound, once = asked.pop("measure"), asked.pop("bound", 1e9), asked.pop("once", False)
    start, out = Path(job["model"]), Path(job["out"])

    def make() -> Any:
        return drift(start, bound, only_first=out if once else None) if kind == "drift" else gauge(start)

    return Retention(make() if rank() == 0 else None, **asked)


def gauge(model: Path) -> Gauge:
    """What the recipe measures, on a little text."""
    sides = {"target": Held(language("yue"), CANTONESE), "source": Held(language("en"), ENGLISH, ["The quick"])}
    return Gauge(model, model, **sides, first_new=380, items=8, window=64, max_new_tokens=4, device="cpu", threads=1)


def kill(*_: Any) -> None:
    """End as after a power failure."""
    os.kill(os.getpid(), signal.SIGKILL)


def plan_crash(where: str) -> None:
    """`part 4`: the second process dies while its part of checkpoint 4 is written."""
    if where.startswith("part") and rank() == 1:
        real, step = torch.save, f"step-{int(where.split()[1]):06d}"

        def half(value: Any, file: Any) -> None:
            real(value, file)
            if step in file.name:
                file.truncate(file.tell() // 2)
                file.flush()
                kill()

        torch.save = half


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
    plan_crash(job.get("crash", ""))
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
            retention=retention_of(job),
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
