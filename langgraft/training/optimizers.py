"""What moves the weights: AdamW, Muon for the transformer's matrices, or AdamW with its state in 8 bits.

An optimizer is a function `f(groups, *, betas, whole) -> Optimizer | Joint` and a row in OPTIMIZERS. `groups` are those
of `trainable.parameter_groups`: each names its `part` (matrices, rest, rows) and its `peak` rate. `whole` puts a tensor
laid out as one of the parameters together where several processes have parts of it (None where this one has all).

Rows of tokens learn by plain AdamW everywhere: holding old rows back (trainable.OldRows) counts on a step that does not
depend on the size of the gradient, and rare tokens suffer most from a coarse state (Dettmers et al. 2022, arXiv
2110.02861, section 2.3).
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from langgraft.errors import RecipeError
from langgraft.methods import suggest

OPTIMIZERS: dict[str, str] = {
    "adamw": "langgraft.training.optimizers:adamw",
    "muon": "langgraft.training.optimizers:muon",
    "adamw_8bit": "langgraft.training.optimizers:adamw_8bit",
}
EPS = 1e-8
SCALE = "match_rms_adamw"  # of Muon's steps
Whole = Callable[[nn.Parameter, Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]
"""(parameter, own part of a tensor) -> the whole tensor, and what takes the own part of such a one."""


class Joint:
    """Several optimizers, each with its own parameters, that take one step together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; changing a group's `lr` changes it in its part."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """One step of every part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def named(self) -> dict[str, torch.optim.Optimizer]:
        """The parts by the names that their states have."""
        return {str(number): part for number, part in enumerate(self.parts)}

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts, by name."""
        return {"parts": {name: part.state_dict() for name, part in self.named().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        for name, part in self.named().items():
            part.load_state_dict(state["parts"][name])


def check_optimizer(name: str, device: torch.device) -> None:
    """Say before training what cannot run here.

    Raises:
        RecipeError: no such optimizer, or it needs another device, torch or package.
    """
    if name not in OPTIMIZERS:
        raise RecipeError(f"pretrain.optimizer `{name}` is unknown; {suggest(name, OPTIMIZERS)}")
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        raise RecipeError(f'pretrain.optimizer = "muon" needs torch 2.9 or newer, and this is {torch.__version__}')
    if name == "adamw_8bit":
        if device.type not in ("cuda", "cpu"):
            raise RecipeError(f'pretrain.optimizer = "adamw_8bit" runs on CUDA and CPU, not on {device.type}')
        if importlib.util.find_spec("bitsandbytes") is None:
            raise RecipeError(
                'pretrain.optimizer = "adamw_8bit" needs the package bitsandbytes, which is not installed; '
                "run pip install 'langgraft[qlora]'"
            )


def adamw(
    groups: list[dict[str, Any]],
    *,
    betas: tuple[float, float],
    whole: Whole | None = None,  # noqa: ARG001
) -> torch.optim.Optimizer:
    """AdamW in one fused pass, where the device has it. Source: Loshchilov and Hutter 2019 (arXiv 1711.05101)."""
    fused = groups[0]["params"][0].device.type != "mps"
    return torch.optim.AdamW(groups, betas=betas, eps=EPS, fused=fused)


def muon(
    groups: list[dict[str, Any]], *, betas: tuple[float, float], whole: Whole | None = None
) -> torch.optim.Optimizer | Joint:
    """Muon for the transformer's matrices, AdamW for all else; one momentum in place of two moments.

    Steps are scaled to the size of AdamW's (0.2 times the root of the longer side), so that AdamW's rates and decay
    hold. Sources: Jordan et al. 2024 (kellerjordan.github.io/posts/muon), which leaves embedding, head and norms to
    AdamW; Liu et al. 2025 (Moonlight, arXiv 2502.16982) for the scale.
    """
    matrices = [group for group in groups if group["part"] == "matrices"]
    flat = [{**group, "params": [p for p in group["params"] if p.dim() == 2]} for group in matrices]
    deep = [{**group, "params": [p for p in group["params"] if p.dim() != 2]} for group in matrices]  # experts
    flat, rest = _filled(flat), _filled([*deep, *(group for group in groups if group["part"] != "matrices")])
    if not flat:
        return adamw(rest, betas=betas)
    make = torch.optim.Muon if whole is None else shared_muon(whole)
    own: torch.optim.Optimizer = make(flat, adjust_lr_fn=SCALE)
    return Joint([own, *([adamw(rest, betas=betas)] if rest else [])])


def adamw_8bit(
    groups: list[dict[str, Any]],
    *,
    betas: tuple[float, float],
    whole: Whole | None = None,  # noqa: ARG001
) -> torch.optim.Optimizer | Joint:
    """AdamW with both moments of the transformer's matrices in 8 bits, by bitsandbytes; plain AdamW for all else.

    A quarter of AdamW's memory for their state. Matrices under 4,096 numbers keep 32 bits, as bitsandbytes has it.
    Source: Dettmers et al. 2022 (arXiv 2110.02861).
    """
    from bitsandbytes.optim import AdamW8bit

    matrices = [group for group in groups if group["part"] == "matrices"]
    rest = [group for group in groups if group["part"] != "matrices"]
    if not matrices:
        return adamw(rest, betas=betas)
    own: torch.optim.Optimizer = AdamW8bit(matrices, betas=betas, eps=EPS)
    return Joint([own, *([adamw(rest, betas=betas)] if rest else [])])


def _filled(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


def shared_muon(whole: Whole) -> type[torch.optim.Muon]:
    """Muon for several processes with parts of the matrices each; momentum stays in parts.

    Every matrix is put together for one of them, which orthogonalises its share of the matrices while the others do
    theirs, and sends them back. Source: Jordan et al. 2024, as above, for the sharing.
    """

    class Shared(torch.optim.Muon):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
            jobs = [(group, own) for group in self.param_groups for own in group["params"] if own.grad is not None]
            here, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
            mine: dict[int, Tensor] = {}
            ways = []
            for number, (group, own) in enumerate(jobs):
                buffer = self.state[own].setdefault("momentum_buffer", torch.zeros_like(own.grad))
                buffer.lerp_(own.grad, 1 - group["momentum"])
                update, part = whole(own, own.grad.lerp(buffer, group["momentum"]))
                ways.append((part, update.shape))
                if number % count == here:
                    mine[number] = update
            for number, update in mine.items():
                mine[number] = _orthogonal(update, jobs[number][0]["lr"])
            for number, ((group, own), (part, shape)) in enumerate(zip(jobs, ways, strict=True)):
                found = mine.pop(number) if number in mine else own.new_empty(shape)
                torch.distributed.broadcast(found, src=number % count)
                own.mul_(1 - group["lr"] * group["weight_decay"]).add_(part(found))

    return Shared


def _orthogonal(update: Tensor, rate: float) -> Tensor:
    """The step that torch's Muon makes of a matrix's update alone."""
    step = nn.Parameter(torch.zeros_like(update, memory_format=torch.contiguous_format))
    step.grad = update
    torch.optim.Muon([step], lr=rate, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn=SCALE).step()
    return step.detach()
