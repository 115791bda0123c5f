"""A real Slurm of two nodes on this machine: munge, the controller and two slurmd, in a folder of their own."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
CONFIGURATION = """\
ClusterName=langgraft
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
KillWait=2
MpiDefault=none
NodeName=n1,n2 NodeHostname=localhost Port=[{ports[1]}-{ports[2]}] CPUs=1 RealMemory=500
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no cluster can be started here, or ""."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"{missing[0]} is not installed: `make slurm` installs it"
    return "" if os.geteuid() == 0 else "the daemons of Slurm and munge are started as root"


@dataclass(frozen=True)
class Cluster:
    """A running cluster; its commands find it by `environment`."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """One of Slurm's commands; its output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """State of every job that waits or runs, by its number."""
        return dict(line.split() for line in self.run("squeue", "--noheader", "--format=%i %T").splitlines())

    def logs(self) -> str:
        """The ends of the daemons' logs, for messages."""
        texts = [(path.name, path.read_text(errors="replace")) for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(f"--- {name}\n{text[-4000:]}" for name, text in texts)


def until(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Wait for a condition; fails with what is then known once the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what()}"
        time.sleep(0.1)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Two nodes, n1 and n2, that answer; everything ends with the block."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"}
    # Not pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    here = Cluster(folder, {**environment, "SLURM_CONF": str(folder / "slurm.conf")})
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _configure(folder)
        for command in _commands(folder):
            daemons.append(_start(command, here))
            if command[0] == "munged":
                until((folder / "munge.sock").exists, 10, here.logs)
        idle = ("sinfo", "--noheader", "--format=%D %t")
        until(lambda: _quiet(here, *idle).split() == ["2", "idle"], 20, here.logs)
        yield here
    finally:
        _end(here, daemons)
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> None:
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, ports=_ports()))


def _ports() -> list[int]:
    """One free port, and two free ones in a row."""
    while True:
        with contextlib.ExitStack() as stack:
            found = [stack.enter_context(socket.socket()) for _ in range(3)]
            try:
                for one, port in zip(found, (0, 0, None), strict=True):
                    one.bind(("", found[1].getsockname()[1] + 1 if port is None else port))
            except (OSError, OverflowError):
                continue
            return [one.getsockname()[1] for one in found]


def _commands(folder: Path) -> Iterator[list[str]]:
    files = {name: f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}
    files["socket"] = f"--socket={folder}/munge.sock"
    yield ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", *files.values()]
    yield ["slurmctld", "-D", "-c"]
    yield from (["slurmd", "-D", "-N", node] for node in ("n1", "n2"))


def _start(command: list[str], here: Cluster) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, env=here.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _quiet(here: Cluster, *command: str) -> str:
    """Output of a command that may fail, as while the controller starts."""
    try:
        done = subprocess.run(command, env=here.environment, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


def _end(here: Cluster, daemons: "list[subprocess.Popen[bytes]]") -> None:
    """Cancel what is left, and stop the daemons, the last started first."""
    if len(daemons) > 1:
        _quiet(here, "scancel", "--user=root")
        end = time.monotonic() + 15
        while _quiet(here, "squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.2)
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
