"""Kill a run with SIGKILL at five moments, start it again each time, and compare the result with an unbroken run.

    python benchmarks/kill_and_resume.py recipes/cantonese-smollm2.toml runs/cantonese-smollm2

The second argument is the folder of the unbroken run. Exit 0 when the exported model.safetensors have the same
sha256, 1 when not.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from langgraft.store import sha256_file

RUNS = Path("runs-killed")


def half_done(run: Path, stage: str) -> list[Path]:
    """Folders of a stage that are not finished."""
    return [folder for folder in run.glob(f"{stage}-*") if not (folder / "stage.json").exists()]


def steps(run: Path) -> int:
    """Steps recorded so far."""
    files = [folder / "metrics.jsonl" for folder in half_done(run, "pretrain")]
    return sum(len(file.read_text().splitlines()) for file in files if file.is_file())


def after(seconds: float, condition: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """True once `condition` has held for `seconds`."""
    since: list[float] = []

    def holds(run: Path) -> bool:
        if not condition(run):
            since.clear()
            return False
        since.append(time.monotonic())
        return since[-1] - since[0] >= seconds

    return holds


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "in corpus": after(4, lambda run: bool(half_done(run, "corpus"))),
    "in tokenizer": after(6, lambda run: bool(half_done(run, "tokenizer"))),
    "in pretrain, early": lambda run: steps(run) >= 3,
    "in pretrain, while a checkpoint is written": lambda run: any(run.glob("pretrain-*/checkpoints/.tmp-*")),
    "in export": after(3, lambda run: bool(half_done(run, "export"))),
}


def main() -> None:
    """Kill five times, finish, compare."""
    recipe, reference = sys.argv[1], Path(sys.argv[2])
    run = RUNS / reference.name
    command = [sys.executable, "-m", "langgraft.cli", "run", recipe, "--runs", str(RUNS)]
    for moment, reached in MOMENTS.items():
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while not reached(run):
            if process.poll() is not None:
                sys.exit(f"the run ended (exit {process.returncode}) before it could be killed {moment}")
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed {moment}, step {steps(run)}", flush=True)
    code = subprocess.run(command, check=False).returncode
    ours, theirs = (sha256_file(next(folder.glob("export-*/hf/model.safetensors"))) for folder in (run, reference))
    print(f"exit {code}\n{ours}  after five kills\n{theirs}  unbroken\n{'same' if ours == theirs else 'DIFFERENT'}")
    sys.exit(0 if ours == theirs and code == 0 else 1)


if __name__ == "__main__":
    main()
