"""The same trainings in one process and, under torchrun, in several."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quick import ONE_THREAD

from langgraft.progress import Log
from langgraft.store import read_json, sha256_file, write_json
from langgraft.training.loop import METRICS, Compute, Settings, train
from langgraft.training.parallel import Layout

CHILD = Path(__file__).with_name("together_child.py")
OLD = 300


class Runs:
    """Trainings in one process, and under torchrun, of the same data."""

    def __init__(self, folder: Path, models: dict[str, Path], target: Path, replay: Path) -> None:
        self.folder, self.models, self.target, self.replay = folder, models, target, replay

    def alone(
        self, name: str, model: str, settings: Settings, teacher: str | None = None, compute: Compute = ONE_THREAD,
        **options: Any,
    ) -> Path:  # fmt: skip
        """One process."""
        out = self.folder / name
        out.mkdir(exist_ok=True)
        train(
            self.models[model], out, target=self.target, replay=self.replay, old_rows=OLD, settings=settings,
            teacher=self.models[teacher] if teacher else None, compute=compute, log=Log(out / "log.txt", quiet=True),
            **options,
        )  # fmt: skip
        return out

    def job(self, name: str, model: str, settings: Settings, layout: Layout, **options: Any) -> dict[str, Any]:
        """One training for `together`; jobs of the same `out` go on where the one before stopped."""
        out = self.folder / options.pop("out", name)
        out.mkdir(exist_ok=True)
        how = {**asdict(ONE_THREAD), **options.pop("compute", {})}
        compute = {key: value for key, value in how.items() if key != "layout"}
        paths = {"model": self.models[model], "out": out, "target": self.target, "replay": self.replay}
        return {
            **{key: str(path) for key, path in paths.items()}, "name": name, "old_rows": OLD, "compute": compute,
            "settings": asdict(settings), "layout": asdict(layout), **options,
        }  # fmt: skip

    def together(self, processes: int, jobs: list[dict[str, Any]], *, killed: bool = False) -> None:
        """Do jobs under torchrun; the last one is `killed`, or all end by themselves."""
        write_json(self.folder / "jobs.json", jobs)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        path = os.pathsep.join([str(CHILD.parent), str(CHILD.parents[1]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [*command, str(CHILD), str(self.folder / "jobs.json")],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == killed, done.stderr[-4000:]


def result(out: Path, name: str, rank: int = 0) -> str:
    """How a job ended in a process: done, or its error."""
    return str(read_json(out / f"result-{name}-{rank}.json")["result"])


def losses(out: Path) -> list[float]:
    """The loss of every step."""
    return [json.loads(line)["loss"] for line in (out / METRICS).read_text().splitlines()]


def rows_taken(out: Path, name: str, ranks: range) -> Counter[tuple[int, bool, int]]:
    """How often each row was taken, by all processes together."""
    return Counter(tuple(row) for rank in ranks for row in read_json(out / f"result-{name}-{rank}.json")["rows"])


def weights(out: Path) -> str:
    """sha256 of the trained weights."""
    return sha256_file(out / "model" / "model.safetensors")
