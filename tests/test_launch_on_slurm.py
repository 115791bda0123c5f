"""The pico recipe on a real Slurm of two nodes: requeued and warned in the middle of training, with the same result."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Finished, langgraft, process
from pico import pico_recipe, pico_writer
from slurm_cluster import Cluster, cluster, until, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """A cluster."""
    with cluster() as started:
        yield started


def test_a_requeued_run_ends_with_the_same_bits(
    slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**slurm.environment, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    recipe = pico_recipe(tmp_path / "recipe", pico_writer(tmp_path / "base"), steps=400)
    here, there = Finished(recipe, tmp_path / "here"), Finished(recipe, tmp_path / "there")
    plain = threading.Thread(target=process, args=("run", recipe, "--runs", here.runs, "--until", "pretrain"))
    plain.start()
    done = langgraft("launch", recipe, "--on", "slurm", "--runs", there.runs, "--json")
    assert done.code == 0, done.err
    jobs = {row["stage"]: row["job"] for row in json.loads(done.out)["scripts"]}

    def logged() -> str:
        texts = [path.read_text() for path in sorted(there.run.glob("*/launch/slurm-*.txt"))]
        return "\n".join(["", *texts, slurm.logs()])[-6000:]

    def checkpoints() -> int:
        newest = max((path.name for path in there.run.glob("pretrain-*/checkpoints/*[0-9]")), default="0")
        return int(re.sub(r"\D", "", newest))

    until(lambda: checkpoints() > 0, 90, logged)
    slurm.run("scontrol", "requeue", jobs["pretrain"])
    first = checkpoints()
    until(lambda: checkpoints() > first + 4, 60, logged)
    until(lambda: not slurm.states(), 90, logged)
    plain.join()
    print(logged())
    assert here.weights() == there.weights()
