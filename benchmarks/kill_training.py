"""Kill training with SIGKILL at many moments and compare what it ends with: every run must write the same bits.

    python benchmarks/kill_training.py [--kills 50] [--seed 0] [--background]

Trains a model of two layers for eight steps. One run is left alone; it counts what it does to the disk: opening,
writing, flushing, renaming and removing files. Four of five other runs are killed at one of these, spread evenly from
the first to the last; a write is killed when half of it is done. The rest are killed at random times, several times
each. All are started again until they end. Exit 0 when every model.safetensors has the sha256 of the run that was left
alone, 1 when not. Needs os.fork.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from langgraft.progress import Log
from langgraft.store import sha256_file
from langgraft.tokenizer.files import load
from langgraft.training.loop import Compute, Settings, train
from langgraft.training.packing import pack

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from pico import ENGLISH, pico_model, sentences

SETTINGS = Settings(steps=8, length=32, batch_rows=3, learning_rate=1e-2, new_rows_learning_rate=2e-2, ema_decay=0.9)
OLD_ROWS = 300
TRIES = 20  # starts after which a run should have ended


class Disk:
    """Counts what this process does to the disk, and dies at number `at`."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.count = at, 0

    def reached(self, half: Callable[[], Any] = lambda: None) -> None:
        """One more; when it is the one, do `half` of it and die."""
        if self.count == self.at:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def watch(self) -> None:
        """Put the counter into everything that langgraft changes files with."""
        places = [(os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree")]
        for place, name in places:
            setattr(place, name, self._counted(getattr(place, name)))
        opened: Any = Path.open
        weights: Any = transformers.modeling_utils.safe_save_file

        def opening(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            file = opened(path, mode, *args, **options)
            return file if mode in ("r", "rb") else _Watched(file, self)

        def saving(tensors: Any, path: Any, *args: Any, **options: Any) -> None:
            weights(tensors, path, *args, **options)
            self.reached(lambda: os.truncate(path, os.path.getsize(path) // 2))

        Path.open = opening  # type: ignore[method-assign]
        transformers.modeling_utils.safe_save_file = saving

    def _counted(self, function: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            self.reached()
            return function(*args, **options)

        return counted


class _Watched:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, data: Any) -> int:
        def half() -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.disk.reached(half)
        return int(self.file.write(data))

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def start(work: Path, out: Path, compute: Compute, disk: Disk) -> int:
    """Train in a child process; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        disk.watch()
        train(
            work / "model",
            out,
            target=work / "target",
            replay=work / "replay",
            old_rows=OLD_ROWS,
            settings=SETTINGS,
            compute=compute,
            log=Log(quiet=True),
        )
        (out / "count").write_text(str(disk.count))
        os._exit(0)
    except BaseException as error:
        print(f"the run failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(3)


def ended(child: int) -> bool:
    """Wait for a child; whether it ended by itself rather than by SIGKILL."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"a run ended with exit code {code}")
    return code == 0


def finish(work: Path, out: Path, compute: Compute) -> str:
    """Start a run until it ends; returns the hash of its model."""
    for _ in range(TRIES):
        if ended(start(work, out, compute, Disk())):
            return sha256_file(out / "model" / "model.safetensors")
    sys.exit(f"a run did not end in {TRIES} starts")


def killed_in_writes(work: Path, compute: Compute, moments: list[int]) -> list[str]:
    """One run for each moment, killed there once; the hashes."""
    found = []
    for number in moments:
        out = work / f"at-{number}"
        out.mkdir()
        if ended(start(work, out, compute, Disk(number))):
            sys.exit(f"a run was to die at {number}, and did not")
        found.append(finish(work, out, compute))
        shutil.rmtree(out)
    return found


def killed_at_random(work: Path, compute: Compute, kills: int, seconds: float, rng: random.Random) -> list[str]:
    """Runs killed at random times, up to five times each, until there were so many kills; the hashes."""
    found = []
    while kills > 0:
        out = work / f"random-{kills}"
        out.mkdir()
        for _ in range(min(5, kills)):
            child = start(work, out, compute, Disk())
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            if ended(child):
                break
            kills -= 1
        found.append(finish(work, out, compute))
        shutil.rmtree(out)
    return found


def main() -> None:
    """Count, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--background", action="store_true", help="checkpoints are written in a thread")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    compute = Compute("cpu", "float32", 1, micro_rows=2, checkpoint_every=2, async_checkpoints=options.background)
    with tempfile.TemporaryDirectory(prefix="langgraft-kill-") as folder:
        work = Path(folder)
        pico_model(work / "model")
        for name, texts in (("target", sentences(60)), ("replay", ENGLISH)):
            pack(load(work / "model"), texts, work / name, separator=0)
        alone = work / "alone"
        alone.mkdir()
        began = time.monotonic()
        expected = finish(work, alone, compute)
        seconds, writes = time.monotonic() - began, int((alone / "count").read_text())
        injected = -(-options.kills * 4 // 5)
        moments = [round(i * (writes - 1) / max(injected - 1, 1)) for i in range(injected)]
        hashes = killed_in_writes(work, compute, moments)
        hashes += killed_at_random(work, compute, options.kills - injected, seconds, random.Random(options.seed))
    wrong = sum(found != expected for found in hashes)
    print(f"{options.kills} kills, {injected} of them inside {writes} changes to the disk: {len(hashes)} runs")
    print(f"{expected}  alone\n{'same in every run' if not wrong else f'DIFFERENT in {wrong} runs'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
