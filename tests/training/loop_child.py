"""Train in a process of its own, which the tests kill: `loop_child.py '{"model": ..., "crash": ...}'`.

`crash`: "step N" kills this process with SIGKILL when step N is done; "write N" kills it while checkpoint N is
being written; "rename N" when it is written but not yet in place; "model" while the final model is being written.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from langgraft.progress import Log
from langgraft.training import checkpoint, learner, loop
from langgraft.training.loop import Compute, Settings, train
from langgraft.training.modes import Lora, Phase


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def plan_crash(kind: str, number: int) -> None:
    """Arrange the crash by wrapping the function it happens in."""
    if kind == "step":
        record = loop._Run._record

        def recording(run: Any, metrics: dict[str, Any]) -> None:
            record(run, metrics)
            if metrics["step"] == number:
                kill()

        loop._Run._record = recording  # type: ignore[method-assign]
    if kind in ("write", "rename"):
        real, save = torch.save, checkpoint.save
        writing = [0]

        def saving(folder: Path, step: int, *args: Any, **options: Any) -> Any:
            writing[0] = step
            return save(folder, step, *args, **options)

        def half(value: Any, file: Any) -> None:
            real(value, file)
            if writing[0] == number:
                file.truncate(file.tell() // 2)
                file.flush()
                kill()

        def renaming(path: Path, target: Path) -> Any:
            if f"step-{number:06d}" in path.name:
                kill()
            return rename(path, target)

        rename = Path.rename
        checkpoint.save = saving
        if kind == "write":
            torch.save = half
        else:
            Path.rename = renaming  # type: ignore[method-assign, assignment]
    if kind == "model":
        learner.shutil.copyfile = kill  # type: ignore[attr-defined]


def settings_of(values: dict[str, Any]) -> Settings:
    """Settings from their JSON."""
    phases = tuple(Phase(**{**phase, "layers": tuple(phase["layers"])}) for phase in values["phases"])
    lora = Lora(**{**values["lora"], "targets": tuple(values["lora"]["targets"])})
    return Settings(**{**values, "betas": tuple(values["betas"]), "phases": phases, "lora": lora})


def main() -> None:
    job = json.loads(sys.argv[1])
    if job["crash"]:
        kind, _, number = job["crash"].partition(" ")
        plan_crash(kind, int(number or 0))
    summary = train(
        Path(job["model"]),
        Path(job["out"]),
        target=Path(job["target"]),
        replay=Path(job["replay"]),
        old_rows=job["old_rows"],
        settings=settings_of(job["settings"]),
        compute=Compute(**job["compute"]),
        log=Log(quiet=True),
    )
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
