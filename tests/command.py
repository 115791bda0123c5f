"""Run `langgraft` as people do: in this process where speed matters, in one of its own where that is the point."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from langgraft.store import sha256_file

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The one line that starts with `langgraft:`; fails on a traceback."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("langgraft: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("langgraft: ")


def langgraft(*arguments: object) -> Done:
    """The command line in this process."""
    from langgraft.cli import main

    out, err = io.StringIO(), io.StringIO()
    argv = ["langgraft", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "path", list(sys.path)),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def process(*arguments: object, cwd: Path | None = None, script: str | Path = "langgraft.cli") -> Done:
    """The command line, or a script, in a process of its own; a signal N ends it with code -N."""
    command = [sys.executable, *(["-m", script] if isinstance(script, str) else [str(script)])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Finished:
    """A recipe and the folder of runs that holds its finished run."""

    recipe: Path
    runs: Path

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.runs / "pico"

    def stage(self, name: str) -> Path:
        """The folder of a stage (of the only one, or of the newest)."""
        return max(self.run.glob(f"{name}-*"), key=lambda path: path.stat().st_mtime_ns)

    def weights(self) -> str:
        """sha256 of the trained weights."""
        return sha256_file(self.stage("pretrain") / "model" / "model.safetensors")

    def copy(self, runs: Path, *, without: tuple[str, ...] = ()) -> "Finished":
        """A copy of the run that a test may change, with some stages missing."""
        shutil.copytree(self.run, runs / "pico", copy_function=shutil.copy2)
        for name in without:
            shutil.rmtree(Finished(self.recipe, runs).stage(name))
        return Finished(self.recipe, runs)

    def again(self, *arguments: object) -> Done:
        """`langgraft run` on it, in this process."""
        return langgraft("run", self.recipe, "--runs", self.runs, *arguments)


def leftovers(folder: Path) -> list[Path]:
    """Everything below `folder` under a temporary name."""
    return list(folder.rglob(".tmp-*"))
