"""A crew under torchrun: the first process calls to two stages, and fails in a third if it is told to.

`torchrun … crew_child.py OUT [fail]`: every process writes the stages it took part in to `OUT/RANK.json`.
"""

import json
import sys
from contextlib import closing
from pathlib import Path

import torch

from langgraft.processes import rank
from langgraft.training.parallel import called, crew


def work(stage: str) -> None:
    """A stage: all meet in it, unless it fails for all."""
    taken.append(stage)
    if stage == "fails":
        raise ValueError(stage)
    torch.distributed.barrier()


taken: list[str] = []
try:
    if rank() == 0:
        with crew("cpu") as others:
            for name in ("pretrain", "align", *sys.argv[2:]):
                with others.together(name):
                    work(name)
    else:
        with closing(called("cpu")) as stages:
            for name in stages:
                work(name)
except ValueError:
    taken.append("gone")
Path(sys.argv[1], f"{rank()}.json").write_text(json.dumps(taken))
