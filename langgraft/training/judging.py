"""Measuring a model while it trains, without a trace in what is learned.

A model that several processes share is put together for it in the first one, from the folder it started from and the
weights that moved: there it is a plain model, which any measure can read, generate with or save. The others wait.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from langgraft.training.device import autocast
from langgraft.training.kernels import as_it_stands
from langgraft.training.learner import Learner

T = TypeVar("T")


def judged(
    learner: Learner, function: Callable[[Any], T] | None, source: Path, device: torch.device, dtype: torch.dtype
) -> T:
    """Call `function` with the model as it would be written now, in eval mode; every process gets its result.

    Args:
        learner: the model in training, which started from the folder `source`.
        function: leaves the model as it is; what it returns can be pickled. Only the first process needs one.
        device: where the model is measured.
        dtype: the format of its matrix products.
    """
    lent = [device] if device.type == "cuda" else []
    measure = cast(Callable[[Any], T], function)
    with torch.random.fork_rng(lent), learner.as_written():
        if learner.group.world == 1:
            return _in_eval(learner.model, measure, device, dtype)
        whole = learner.whole()

        def alone() -> T:
            model = learner.alone(source, whole).model.to(device)
            whole.clear()  # the model has copies
            return _in_eval(model, measure, device, dtype)

        return learner.group.first(alone)


def _in_eval(model: Any, function: Callable[[Any], T], device: torch.device, dtype: torch.dtype) -> T:
    was_training = model.training
    with autocast(device, dtype), as_it_stands():
        try:
            return function(model.eval())
        finally:
            model.train(was_training)
