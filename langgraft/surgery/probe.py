"""Which start is best: train each for the same few steps and compare on held-out text.

The loss before training misleads (arXiv 2608.03494): rows that look best at step 0 are often not those that learn
fastest. So starts are ranked by held-out bits per byte after a short training run, the same for all.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langgraft.base import separator_id
from langgraft.errors import CorpusError, RecipeError
from langgraft.evaluation.bpb import Scores, score
from langgraft.evaluation.stats import Interval, bootstrap_change, bootstrap_ratio
from langgraft.progress import Log
from langgraft.store import fingerprint, read_json, sha256_file, write_json
from langgraft.surgery.init import INITS, Texts
from langgraft.surgery.resize import new_token_pieces
from langgraft.surgery.shards import weight_files
from langgraft.surgery.start import LEARNED, start
from langgraft.tokenizer.files import load
from langgraft.training.loop import Compute, Settings, train
from langgraft.training.packing import pack


@dataclass(frozen=True)
class Held:
    """Documents that starts are measured on; `source` may be empty."""

    target: Sequence[str]
    source: Sequence[str] = ()

    def sides(self) -> dict[str, Sequence[str]]:
        """The sides that have documents."""
        return {name: texts for name, texts in (("target", self.target), ("source", self.source)) if texts}


def probe(
    base: Path,
    tokenizer: Path,
    inits: Sequence[str],
    out: Path,
    *,
    target_train: Texts,
    target_dev: Sequence[str],
    source_dev: Sequence[str] = (),
    steps: int = 50,
    also_at: Sequence[int] = (),
    length: int = 128,
    batch_rows: int = 2,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    pad_to_multiple_of: int = 64,
    seed: int = 0,
    compute: Compute | None = None,
    log: Log | None = None,
) -> dict[str, Any]:
    """Rank `inits` for the extended `tokenizer` by bits per byte on `target_dev` after `steps` of training.

    A step has `batch_rows` rows of `length` tokens of `target_train`, the same for all starts. Writes one JSON into
    `out` for each start (measured before training, after `also_at` and after `steps`); those that are there are not
    made again, and a start that was interrupted goes on. `options` are each method's, by name.

    Starts whose interval of the difference to the best (95%, paired bootstrap over documents) holds zero are as good
    as the best; the simplest of them (the first in INITS) is `chosen`. Returns the ranking, best first, and the
    reason as a sentence. Bits per byte at step 0 are part of it, but never used.

    Raises:
        RecipeError: no init to rank, steps below 1, or a method or option is unknown.
        CorpusError: there is no text to train on or to measure on.
        Interrupted: SIGINT or SIGTERM came; the same call goes on.
    """
    if not inits or len(set(inits)) != len(inits):
        raise RecipeError(
            f"the probe needs at least one initialisation, and each once, not {', '.join(inits) or 'none'}"
        )
    if steps < 1:
        raise RecipeError(f"the probe needs at least 1 step of training, not {steps}")
    if not target_dev:
        raise CorpusError("the probe has no held-out text in the new language; hold some out (`corpus.dev`)")
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(steps=steps, length=length, batch_rows=batch_rows, replay_ratio=0.0, seed=seed)
    job = _Job(base, tokenizer, out, settings, Held(target_dev, source_dev), compute or Compute(), log or Log())
    packed = job.packed(target_train)
    facts: dict[str, dict[str, Any]] = {}
    for init in inits:
        job.log.say(f"probe: {init}")
        own = dict((options or {}).get(init, {}))
        make = _maker(job, init, own, pad_to_multiple_of, seed, target_train)
        facts[init] = job.measure(init, own, make, packed, sorted({*also_at, steps}), facts)
    return rank(facts, steps)


def rank(facts: Mapping[str, Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """Order measured starts by target bits per byte after `steps`, and choose; see `probe` for what it returns."""
    bits = {init: np.array(own["measured"][str(steps)]["target"]["bits"]) for init, own in facts.items()}
    best = min(bits, key=lambda init: (bits[init].sum(), _simplicity(init)))
    sizes = facts[best]["measured"][str(steps)]["target"]["bytes"]
    rows = []
    for init in sorted(bits, key=lambda init: (bits[init].sum(), _simplicity(init))):
        change = bootstrap_change(bits[best], bits[init], sizes)
        rows.append(
            {
                "init": init,
                "target": _at(facts[init], steps, "target"),
                "target_start": _at(facts[init], 0, "target"),
                "source": _at(facts[init], steps, "source"),
                "source_start": _at(facts[init], 0, "source"),
                "change_to_best": change.as_dict(),
                "as_good_as_best": change.low <= 0,
                "same_rows_as": facts[init]["same_rows_as"],
                "seconds": facts[init]["seconds"],
            }
        )
    ties = sorted((row["init"] for row in rows if row["as_good_as_best"]), key=_simplicity)
    chosen = ties[0]
    reason = f"`{best}` has the fewest bits per byte after {steps} steps"
    if len(ties) > 1:
        others = ", ".join(f"`{init}`" for init in ties if init != best)
        reason += f"; {others} cannot be told from it (95% interval), and `{chosen}` is the simplest of them"
    return {"steps": steps, "documents": len(sizes), "chosen": chosen, "reason": reason, "ranking": rows}


def _simplicity(init: str) -> int:
    """Place in INITS, then those that learn; functions of the user's own come last."""
    known = [*INITS, *LEARNED]
    return known.index(init) if init in known else len(known)


def _at(own: Mapping[str, Any], step: int, side: str) -> dict[str, float] | None:
    found = own["measured"][str(step)].get(side)
    return None if found is None else interval(found).as_dict()


def interval(measured: Mapping[str, Any]) -> Interval:
    """Bits per byte of one measurement, with its 95% interval."""
    return bootstrap_ratio(measured["bits"], measured["bytes"])


def _maker(
    job: "_Job", init: str, own: dict[str, Any], multiple: int, seed: int, texts: Texts
) -> Callable[[Path], object]:
    def make(model: Path) -> object:
        return start(
            job.base, job.tokenizer, model, init=init, options=own, texts=texts, compute=job.compute, log=job.log,
            checkpoints=model.parent / "checkpoints", pad_to_multiple_of=multiple, seed=seed,
        )  # fmt: skip

    return make


@dataclass(frozen=True)
class _Job:
    """What is the same for every start."""

    base: Path
    tokenizer: Path
    out: Path
    settings: Settings
    held: Held
    compute: Compute
    log: Log

    def packed(self, texts: Texts) -> Path:
        """The training text as packed rows; made once."""
        folder = self.out / "packed"
        if not (folder / "packed.json").is_file():
            pack(load(self.tokenizer), texts(), folder, separator=separator_id(self.base))
        return folder

    def asked(self, init: str, options: dict[str, Any]) -> str:
        """Stands for everything that a measurement depends on, apart from the folders' content."""
        held = [list(texts) for texts in self.held.sides().values()]
        return fingerprint([init, options, asdict(self.settings), held, sha256_file(self.tokenizer / "tokenizer.json")])

    def measure(
        self,
        init: str,
        options: dict[str, Any],
        make: Callable[[Path], object],
        packed: Path,
        points: Sequence[int],
        others: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Make one start, measure, train, measure; or read what an earlier call found."""
        file = self.out / f"{init.replace(':', '.')}.json"
        work = self.out / f"work-{file.stem}"
        facts: dict[str, Any] = read_json(file) if file.is_file() else {}
        asked = self.asked(init, options)
        if facts.get("asked") != asked:
            shutil.rmtree(work, ignore_errors=True)
            facts = {"init": init, "options": options, "asked": asked, "measured": {}, "seconds": {}}
        if all(str(step) in facts["measured"] for step in (0, *points)):
            return facts
        model = work / "start"
        if not model.is_dir():
            started = time.perf_counter()
            make(model)
            facts["seconds"]["surgery"] = round(time.perf_counter() - started, 1)
        facts["rows"] = fingerprint([sha256_file(path) for path in weight_files(model)])
        same = next((name for name, other in others.items() if other["rows"] == facts["rows"]), None)
        facts["same_rows_as"] = same
        if same is not None and all(str(step) in others[same]["measured"] for step in points):
            facts["measured"] = others[same]["measured"]  # the same model would only be trained again
            facts["seconds"]["training"] = others[same]["seconds"]["training"]
        else:
            self._train(facts, model, work / "run", packed, points, file)
        write_json(file, facts)
        shutil.rmtree(work)
        return facts

    def _train(
        self, facts: dict[str, Any], model: Path, run: Path, packed: Path, points: Sequence[int], file: Path
    ) -> None:
        measured = facts["measured"]

        def look(step: int, loaded: Any = None) -> None:
            if step not in (0, *points) or str(step) in measured:
                return
            measured[str(step)] = {
                side: _as_lists(self._score(model, texts, loaded, f"probe: {side} at step {step}"))
                for side, texts in self.held.sides().items()
            }
            write_json(file, facts)

        look(0)
        _, first = new_token_pieces(self.base, self.tokenizer)
        summary = train(
            model, run, target=packed, replay=None, old_rows=first, settings=self.settings, compute=self.compute,
            log=self.log, after_step=look,
        )  # fmt: skip
        facts["seconds"]["training"] = summary["seconds"]

    def _score(self, model: Path, texts: Sequence[str], loaded: Any, what: str) -> Scores:
        length = min(512, self.settings.length * 2)
        return score(
            model, texts, length=length, stride=length // 2, device=self.compute.device, threads=self.compute.threads,
            model=loaded, log=self.log, what=what,
        )  # fmt: skip


def _as_lists(scores: Scores) -> dict[str, list[float]]:
    return {
        "bits": [round(float(b), 6) for b in scores.bits],
        "bytes": [int(n) for n in scores.bytes],
        "tokens": [int(n) for n in scores.tokens],
    }
