"""The model in training: what learns in which phase, its optimizer, what a checkpoint holds, and what is written."""

import math
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from langgraft.errors import RecipeError, TrainingError
from langgraft.methods import resolve
from langgraft.store import staged_folder
from langgraft.training.adapter import load_adapter, merge_parts, write_adapter
from langgraft.training.average import Average
from langgraft.training.device import load_model
from langgraft.training.modes import Lora, Phase, Selected, Span, no_adapter, select
from langgraft.training.optimizers import OPTIMIZERS, Joint
from langgraft.training.parallel import Group, settle, whole_state
from langgraft.training.parts import Parts, own_average, own_optimizer_state
from langgraft.training.regions import Region, local, region, take
from langgraft.training.trainable import NewRows, OldRows, parameter_groups, row_parameters, trained_parameters


@dataclass(frozen=True)
class Rates:
    """How fast the optimizer moves what learns; old rows take `old_rows_share` of the new rows' step."""

    learning_rate: float
    new_rows_learning_rate: float
    old_rows_share: float
    weight_decay: float
    betas: tuple[float, float]
    ema_decay: float
    optimizer: str = "adamw"


class Learner:
    """A model whose phases learn one after the other; ids from `first_row` on are new."""

    optimizer: torch.optim.Optimizer | Joint
    parameters: list[nn.Parameter]
    average: Average | None = None

    parts: Parts | None = None

    def __init__(
        self,
        model: Any,
        spans: list[Span],
        lora: Lora,
        rates: Rates,
        *,
        first_row: int,
        seed: int,
        group: Group | None = None,
    ) -> None:
        self.model, self.spans, self.lora, self.rates = model, spans, lora, rates
        self.group = group or Group.alone()
        self.first_row, self.seed = first_row, seed
        self.number = -1
        self.selected = Selected("none")

    @property
    def span(self) -> Span:
        """The phase in training, with its place in the run."""
        return self.spans[self.number]

    def due(self, step: int) -> int:
        """The number of the phase that `step` belongs to."""
        return max(number for number, span in enumerate(self.spans) if span.first <= max(step, 0))

    def enter(self, number: int) -> None:
        """Begin a phase with a fresh optimizer; the phase before it ends, and LoRA is folded into the weights.

        Raises:
            RecipeError: there would be nothing to train, or layers or targets are not there.
        """
        self.end()
        settle(self.model)
        self._merge()
        self.number, rates = number, self.rates
        torch.manual_seed(self.seed * 1_000_003 + self.span.first)  # LoRA starts with random numbers
        self.selected = select(self.model, self.span.phase, self.lora)
        self.model.train()
        rows = self.selected.rows
        self.new_rows = NewRows(self.model, self.first_row) if rows == "new" else None
        self.old_rows = OldRows(self.model, self.first_row, rates.old_rows_share if rows == "all" else 1.0)
        self.parameters = trained_parameters(self.model, self.new_rows)
        if self.group.world > 1:
            self.parts = Parts(self.parameters, self.new_rows, self.group)
        if self.trained == 0:
            raise RecipeError(f"mode `{self.span.phase.mode}` trains nothing: the model has no rows for new tokens")
        groups = parameter_groups(
            self.model,
            learning_rate=rates.learning_rate,
            new_rows_learning_rate=rates.new_rows_learning_rate,
            weight_decay=rates.weight_decay,
            new_rows=self.new_rows,
        )
        if self.parts is not None:
            groups = [{**group, "params": [self.parts.of(p) for p in group["params"]]} for group in groups]
            self.parameters = self.parts.own
        make = resolve(OPTIMIZERS, rates.optimizer, what="pretrain.optimizer")
        self.optimizer = make(groups, betas=rates.betas, whole=self.parts.whole if self.parts is not None else None)
        self.average = Average(self.parameters, rates.ema_decay) if rates.ema_decay else None

    @property
    def trained(self) -> int:
        """How many numbers learn in this phase."""
        if self.parts is None:
            return sum(p.numel() for p in self.parameters)
        return sum(math.prod(place.whole) for place in self.parts.regions)

    def clip(self, limit: float) -> Tensor:
        """Take the gradients of what learns, and scale them to a norm of at most `limit`; returns the norm before."""
        if self.new_rows is not None:
            self.new_rows.take_gradients()
        if self.parts is not None:
            self.parts.take_gradients()
            return self.parts.clip(limit)
        return torch.nn.utils.clip_grad_norm_(self.parameters, limit)

    def finite(self) -> bool:
        """Whether every number that learns is one."""
        own = [p for p in self.parameters if p.numel()]
        wrong = bool(own) and not torch.nn.utils.get_total_norm(own, norm_type=torch.inf).isfinite()
        return self.group.sums(wrong)[0] == 0

    def step(self, factor: float) -> None:
        """Move the weights, at `factor` of the peak rates, and forget the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        with self.old_rows.held_back():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def as_written(self) -> AbstractContextManager[None]:
        """The weights as they would be written now: their average, where there is one."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def end(self) -> None:
        """End the phase: its average, if there is one, becomes the weights."""
        if self.average is not None:
            self.average.apply()
            self.average = None

    def _merge(self) -> None:
        if self.selected.wrapper is not None:
            if self.parts is None:
                self.selected.wrapper.merge_and_unload()
            else:
                merge_parts(self.selected.wrapper)
            self.selected = Selected("none")

    def state(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint needs: optimizer, average, and the tensors that may differ from the model's folder."""
        found: dict[str, dict[str, Any]] = {"model": self._moved(), "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            found["average"] = self.average.state_dict()
        return self.parts.sharded(found, self.optimizer) if self.parts is not None else found

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the phase that was entered.

        Raises:
            TrainingError: it holds other weights than this phase moves.
        """
        self.load_weights(state)
        self.optimizer.load_state_dict(own_optimizer_state(state["optimizer"], self.optimizer, self._places))

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take a checkpoint's weights, and their average where there is one, and nothing of the optimizer.

        Raises:
            TrainingError: it holds other weights than the phase that was entered moves.
        """
        if set(state["model"]) != set(self._moved()):
            raise TrainingError(
                f"the checkpoint holds other weights than mode `{self.span.phase.mode}` trains; give another folder"
            )
        settle(self.model)
        for name, tensor in self._moved().items():
            local(tensor).copy_(take(state["model"][name], region(tensor)))
        average = state.get("average")
        if self.average is not None and average is not None:
            self.average.load_state_dict(own_average(average, self._places([{"params": self.parameters}])))

    def _places(self, groups: list[dict[str, Any]]) -> list[Region]:
        if self.parts is not None:
            return self.parts.places(groups)
        return [region(p) for group in groups for p in group["params"]]

    def _moved(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.model.state_dict()
        past = [span.phase.mode for span in self.spans[: self.number]]
        if "full" in (*past, self.span.phase.mode) or "lora" in past:
            return state
        rows = {id(p) for p in row_parameters(self.model)}
        names = {name for name, p in self.model.named_parameters() if id(p) in rows}
        return {name: tensor for name, tensor in state.items() if name in names or ".lora_" in name}

    def write(self, out: Path, source: Path, base: str) -> int | None:
        """Write `out/model`, and `out/adapter` where one can hold what was learned; returns the adapter's bytes.

        `source` is the folder that training started from, `base` the name of what that was extended from.
        """
        if self.parts is not None:
            whole = self.whole()
            return self.group.first(lambda: self.alone(source, whole).write(out, source, base))
        folder, size = out / "adapter", None
        if no_adapter([span.phase for span in self.spans], self.lora) is None:
            write_adapter(folder, self.model, self.selected.wrapper, first_row=self.first_row, source=source, base=base)
            size = sum(file.stat().st_size for file in folder.iterdir())
        if self.lora.quantize != "none":
            self.model, self.selected = load_adapter(folder, source, merge=True), Selected("none")  # not into 4 bits
        self._merge()
        with staged_folder(out / "model") as staging:
            self.model.save_pretrained(staging)
            for file in sorted(source.iterdir()):
                # Configs and tokenizer travel unchanged; only the weights are new.
                if (
                    file.is_file()
                    and file.suffix in (".json", ".jinja", ".model", ".txt")
                    and "safetensors" not in file.name
                ):
                    shutil.copyfile(file, staging / file.name)
        return size

    def whole(self) -> dict[str, Tensor]:
        """The tensors that may differ from the model's folder, put together in the first process; {} in others."""
        settle(self.model)
        return whole_state(self._moved(), self.group)

    def alone(self, source: Path, state: dict[str, Tensor]) -> "Learner":
        """The same learner in the same phase in this process alone, with the weights of `state`."""
        found = Learner(
            load_model(source, torch.device("cpu")), self.spans, self.lora, replace(self.rates, ema_decay=0.0),
            first_row=self.first_row, seed=self.seed,
        )  # fmt: skip
        found.enter(self.number)
        found.model.load_state_dict(state, strict=False)
        return found


def describe(learner: Learner) -> str:
    """One line on the phase that begins, for people."""
    phase: Phase = learner.span.phase
    whole = sum(p.numel() for p in learner.model.parameters())
    return (
        f"phase {learner.number + 1} of {len(learner.spans)}, mode {phase.mode}, {learner.span.steps:,} steps; "
        f"{learner.trained:,} of {whole:,} parameters learn"
    )
