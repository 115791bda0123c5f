"""What the optimizer of one process moves when several share a model: its own part of every parameter.

Every part shares memory with the parameter, and optimizers whose step looks at each number alone (AdamW) give the
numbers that one process would get. Norms and checkpoints count what several processes hold once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from langgraft.training.optimizers import Joint
from langgraft.training.parallel import Group
from langgraft.training.regions import Region, Shard, equal_parts, gradient, local, region, take
from langgraft.training.trainable import NewRows


class Parts:
    """This process's parts of `parameters`, in their order; those of `new_rows` are parts already."""

    def __init__(self, parameters: list[nn.Parameter], new_rows: NewRows | None, group: Group) -> None:
        self.group, self.wholes = group, parameters
        self.own = [nn.Parameter(local(p)) if hasattr(p, "to_local") else p for p in parameters]
        rows = {} if new_rows is None else {id(p): r for p, r in zip(new_rows.parts, new_rows.regions, strict=True)}
        self.regions = [rows.get(id(p)) or region(p) for p in parameters]
        # What FSDP does not know (LoRA, put in after the model was cut) has each process's own gradient.
        self.unknown = [
            (own, place)
            for own, p, place in zip(self.own, parameters, self.regions, strict=True)
            if id(p) not in rows and _without_fsdp(p)
        ]
        places = group.gathered([(r.offset, r.sizes) for r in self.regions])
        below = places[: group.rank]
        self.counted = [all(other[i] != place for other in below) for i, place in enumerate(places[group.rank])]

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """The part of one of the parameters."""
        return next(own for own, whole in zip(self.own, self.wholes, strict=True) if whole is parameter)

    def whole(self, own: nn.Parameter, part: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A tensor, laid out as the parameter of `own`, from its parts; and what takes the own part of such a one."""
        number = next(n for n, known in enumerate(self.own) if known is own)
        like: Any = self.wholes[number]
        if not hasattr(like, "to_local"):
            return part, lambda tensor: tensor
        cut = DTensor.from_local(
            part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        return cut.full_tensor(), lambda tensor: take(tensor, self.regions[number])

    def take_gradients(self) -> None:
        """Hand each parameter's gradient to its part."""
        for own, whole in zip(self.own, self.wholes, strict=True):
            if own is not whole:
                own.grad, whole.grad = gradient(whole), None
        if self.group.data_parallel > 1:
            for own, place in self.unknown:
                if own.grad is not None:
                    own.grad.copy_(self._mean(own.grad, place))

    def _mean(self, own: Tensor, place: Region) -> Tensor:
        """The mean over data-parallel processes of a gradient, or of a part that tensor parallelism made of it."""
        whole = own.new_zeros(place.whole)
        here = tuple(slice(a, a + n) for a, n in zip(place.offset, place.sizes, strict=True))
        whole[here] = own
        torch.distributed.all_reduce(whole)
        # Of a part, each data-parallel process has one; of the whole, every process.
        return whole[here] / (self.group.data_parallel if place.partial else self.group.world)

    def clip(self, limit: float) -> Tensor:
        """As `torch.nn.utils.clip_grad_norm_`, over the parts of all processes."""
        own = [p.grad for p, counted in zip(self.own, self.counted, strict=True) if counted and p.grad is not None]
        squares = sum(float(torch.linalg.vector_norm(found.double()) ** 2) for found in own if found.numel())
        norm = self.group.sums(squares)[0] ** 0.5
        share = limit / (norm + 1e-6)
        if share < 1.0:
            torch._foreach_mul_([p.grad for p in self.own if p.grad is not None], share)
        return torch.tensor(norm)

    def sharded(self, state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
        """A learner's state with every tensor that is a part as a `Shard`."""
        found = dict(state)
        found["model"] = {
            name: Shard(region(tensor), local(tensor)) if hasattr(tensor, "to_local") else tensor
            for name, tensor in state["model"].items()
        }
        found["optimizer"] = self._slots(state["optimizer"], optimizer)
        if "average" in state:
            average = state["average"]
            own = {str(i): _shard(average[str(i)], place) for i, place in enumerate(self.regions)}
            found["average"] = {**average, **own}
        return found

    def _slots(self, state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
        if isinstance(optimizer, Joint):
            parts = optimizer.named()
            return {"parts": {name: self._slots(state["parts"][name], part) for name, part in parts.items()}}
        slots = {
            index: {name: _shard(value, place) for name, value in values.items()}
            for (index, values), place in _with_regions(state, self.places(optimizer.param_groups))
        }
        return {**state, "state": slots}

    def places(self, groups: list[dict[str, Any]]) -> list[Region]:
        """Where the parameters of an optimizer's groups lie, in their order."""
        known = {id(own): place for own, place in zip(self.own, self.regions, strict=True)}
        return [known[id(p)] for group in groups for p in group["params"]]


def _without_fsdp(parameter: Any) -> bool:
    """Whether no mesh of data-parallel processes holds a parameter."""
    return not hasattr(parameter, "to_local") or parameter.device_mesh.mesh_dim_names == ("tp",)


def _with_regions(state: dict[str, Any], places: list[Region]) -> list[tuple[tuple[int, dict[str, Any]], Region]]:
    return [((index, values), places[index]) for index, values in state["state"].items()]


def _shard(value: Any, place: Region) -> Any:
    return Shard(place, value) if isinstance(value, Tensor) and equal_parts(value, place.sizes) else value


def own_optimizer_state(
    state: dict[str, Any], optimizer: Any, places: Callable[[list[dict[str, Any]]], list[Region]]
) -> dict[str, Any]:
    """From a checkpoint, what this process's optimizer goes on with; `places` tells where groups' parameters lie."""
    if isinstance(optimizer, Joint):
        return {
            "parts": {
                name: own_optimizer_state(state["parts"][name], part, places)
                for name, part in optimizer.named().items()
            }
        }
    slots: dict[int, dict[str, Any]] = {}
    for (index, values), place in _with_regions(state, places(optimizer.param_groups)):
        slots[index] = {
            name: take(value, place) if hasattr(value, "shape") and equal_parts(value, place.whole) else value
            for name, value in values.items()
        }
    return {**state, "state": slots}


def own_average(state: dict[str, Any], places: list[Region]) -> dict[str, Any]:
    """As `own_optimizer_state`, for the moving average of the weights."""
    return {**state, **{str(i): take(state[str(i)], place) for i, place in enumerate(places)}}
