"""Forgetting, shown and stopped: what each kind of replay keeps of the source language while a new one is learned.

    python benchmarks/forgetting.py BASE RUN        writes the results into docs/forgetting.md, and docs/forgetting.svg

BASE is a base model's folder, RUN a folder of `langgraft run` of the demo's recipe whose corpus and surgery stages
are done. Every arm trains the same steps at the same rates and is watched with the same bounds, `on_breach = "stop"`;
self-written replay is learned from as the recipe does it, by matching the base's predictions. Two more arms are there
to compare: self-written replay as plain text, and no replay without bounds, which shows what the stop spares. Exits 1
unless the stop fires without replay, and neither with real nor with self-written replay. Arms that are finished are
kept in the work folder, and one that was interrupted goes on where it was; `--only` runs some arms now and others
later.
"""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from langgraft.base import separator_id
from langgraft.corpus.prepare import read_split
from langgraft.evaluation.charts import Line, Panel, curve_chart
from langgraft.evaluation.retention import Bounds, Gauge, Held
from langgraft.progress import Log
from langgraft.runs import MARKER, machine
from langgraft.store import atomic_write, read_json, write_json
from langgraft.text import language
from langgraft.tokenizer.files import load
from langgraft.training.loop import Compute, Settings, train
from langgraft.training.packing import pack
from langgraft.training.replay import generate_replay
from langgraft.training.retention import Retention

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "forgetting.md", DOCS / "forgetting.svg"
BEGIN, END = "<!-- results: written by benchmarks/forgetting.py -->", "<!-- end of results -->"
BOUNDS = Bounds(source_bits_per_byte=0.02, in_context=0.2)  # what the report calls forgetting; the recipe's rates
EVERY, RATIO = 10, 0.25
SETTINGS = Settings(
    steps=60, length=128, batch_rows=8, learning_rate=2e-4, new_rows_learning_rate=1e-3, old_rows_learning_rate=2e-4
)


@dataclass(frozen=True)
class Arm:
    """One training: its replay text, its loss on it, and whether the bounds hold."""

    replay: str | None = None
    teacher: bool = False
    bounds: bool = True


ARMS = {
    "no replay": Arm(),
    "25% real text": Arm("corpus"),
    "25% self-written": Arm("self", teacher=True),
    "25% self-written, as text": Arm("self"),
    "no replay, not stopped": Arm(bounds=False),
}
COMPARED = {"25% self-written, as text", "no replay, not stopped"}


def slug(name: str) -> str:
    """An arm's name as a folder's name."""
    return name.replace(",", "").replace("%", "").replace(" ", "-")


class Bench:
    """What every arm needs: the extended base, packed text, and the gauge."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.log, self.work = asked, Log(), asked.work
        self.base, self.corpus = asked.base, next(asked.run.glob("corpus-*")) / "text"
        surgery = next(asked.run.glob("surgery-*"))
        self.start = surgery / "model"
        self.old_rows: int = read_json(surgery / MARKER)["summary"]["old_tokens"]
        self.gauge: Gauge | None = None

    def texts(self, side: str, split: str) -> list[str]:
        """A split of a side."""
        return [document.text for document in read_split(self.corpus, side, split)]

    def measured_by(self) -> Gauge:
        """The gauge, made (and the base measured) when first asked for; development text only."""
        if self.gauge is None:
            target, source = self.texts("target", "dev"), self.texts("source", "dev")
            self.gauge = Gauge(
                self.start, self.base, target=Held(language(self.asked.language), target[:100]),
                source=Held(language(self.asked.source_language), source[: self.asked.source_documents]),
                first_new=self.old_rows, window=256, max_new_tokens=16, device="cpu", threads=self.asked.threads,
            )  # fmt: skip
        return self.gauge

    def packed(self, name: str, reader: Path, texts: Iterable[str]) -> Path:
        """Tokenised text in the work folder, made once."""
        folder: Path = self.work / "packed" / name
        if not folder.is_dir():
            pack(load(reader), texts, folder, separator=separator_id(reader))
        return folder

    def replay(self, arm: Arm) -> Path | None:
        """The packed replay of an arm. The real text is what is not measured on: the train and the test split."""
        if arm.replay is None:
            return None
        if arm.replay == "corpus":
            return self.packed("corpus", self.start, [*self.texts("source", "train"), *self.texts("source", "test")])
        tokens = int(SETTINGS.steps * SETTINGS.batch_rows * SETTINGS.length * RATIO)
        written = generate_replay(
            self.base, self.work / "replay", tokens=tokens, threads=self.asked.threads, log=self.log,
            language=self.asked.source_language,
        )  # fmt: skip
        lines = written.read_text(encoding="utf-8").split("\n")
        texts = [json.loads(line)["text"] for line in lines if line]
        # A teacher knows only the base's ids.
        return self.packed(*(("self-base", self.base) if arm.teacher else ("self", self.start)), texts)

    def measure(self, name: str) -> None:
        """Train an arm unless that is done; keep its summary and records, and nothing else."""
        arm, folder = ARMS[name], self.work / slug(name)
        if (folder / "summary.json").is_file():
            return
        gauge = self.measured_by()
        gauge.bounds = BOUNDS if arm.bounds else Bounds()
        self.log.say(f"== {name}")
        summary = train(
            self.start, folder, target=self.packed("target", self.start, self.texts("target", "train")),
            replay=self.replay(arm), old_rows=self.old_rows, teacher=self.base if arm.teacher else None,
            settings=replace(SETTINGS, replay_ratio=RATIO if arm.replay else 0.0),
            compute=Compute(device="cpu", threads=self.asked.threads, checkpoint_every=EVERY, keep_checkpoints=1),
            retention=Retention(gauge, every=EVERY), log=self.log,
        )  # fmt: skip
        for heavy in ("model", "checkpoints"):
            shutil.rmtree(folder / heavy)
        write_json(folder / "summary.json", summary)

    def results(self) -> dict[str, dict[str, Any]]:
        """Summary and records of each arm that is done."""
        found = {}
        for name in ARMS:
            folder = self.work / slug(name)
            if (folder / "summary.json").is_file():
                lines = (folder / "retention.jsonl").read_text(encoding="utf-8").split("\n")
                found[name] = {
                    "summary": read_json(folder / "summary.json"),
                    "records": [json.loads(line) for line in lines if line],
                }
        return found


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row an arm: where it was stopped, and the last measurement with its intervals."""
    lines = [
        "| replay | stopped | last measured, step | target bits per byte | source bits per byte | in-context recall |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        last, stopped = result["records"][-1], result["summary"]["retention"]["stopped"]
        change, recall = last["details"]["change"], last["details"]["in_context_change"]
        lines.append(
            f"| {name} | {'at step ' + str(stopped['at']) if stopped else 'no'} | {last['step']} | "
            + " | ".join(
                f"{value:.3f}, {c['mean']:+.1%} ({c['low']:+.1%} to {c['high']:+.1%})"
                for value, c in (
                    (last["values"]["target_bits_per_byte"], change["target"]),
                    (last["values"]["source_bits_per_byte"], change["source"]),
                )
            )
            + f" | {last['values']['in_context']:.0%}, {recall['mean']:+.0%} "
            f"({recall['low']:+.0%} to {recall['high']:+.0%}) |"
        )
    return "\n".join(lines)


def why(results: dict[str, dict[str, Any]]) -> str:
    """The sentences of the arms that were stopped."""
    stopped = {name: result["summary"]["retention"]["stopped"] for name, result in results.items()}
    return "\n".join(
        textwrap.fill(
            f'- "{name}" was stopped at step {found["at"]}: {found["why"]}. Its result is the checkpoint of step '
            f"{found['result_step']}.",
            width=120, subsequent_indent="  ",
        )
        for name, found in stopped.items()
        if found
    )  # fmt: skip


STYLE = """<style>
svg { background: #fff; font-family: system-ui, sans-serif; font-size: 13px; }
text { fill: #222; } .tick, .axis { fill: #555; font-size: 11.5px; } .name { fill: #444; font-size: 12px; }
.grid { stroke: #e3e3e3; } polyline { fill: none; stroke-width: 2.2; } line.arm0, line.arm1, line.arm2, line.arm3,
line.arm4 { stroke-width: 2.2; } .bound { stroke: #999; stroke-width: 1.2; stroke-dasharray: 3 3; }
.arm0 { stroke: #c2371f; } .arm1 { stroke: #1f6fc2; } .arm2 { stroke: #2c8a4b; } .arm3 { stroke: #8a4bb0; }
.arm4 { stroke: #d99a8e; stroke-dasharray: 5 4; } .dot { stroke: #fff; stroke-width: 1; }
.dot.arm0 { fill: #c2371f; } .dot.arm1 { fill: #1f6fc2; } .dot.arm2 { fill: #2c8a4b; } .dot.arm3 { fill: #8a4bb0; }
.dot.arm4 { fill: #d99a8e; }
</style>"""


def picture(results: dict[str, dict[str, Any]]) -> str:
    """What is lost against what is gained, as an SVG file that stands alone."""
    gains = [-100 * row["values"]["target_change"] for result in results.values() for row in result["records"]]
    kinds = {name: f"arm{number}" for number, name in enumerate(ARMS)}
    panels = []
    for title, value, bound in (
        ("Source bits per byte, % above the base", "source_change", 100 * (BOUNDS.source_bits_per_byte or 0)),
        ("In-context recall, % (chance is 12.5)", "in_context", None),
    ):
        lines = tuple(
            Line(
                name, kinds[name],
                tuple((-100 * row["values"]["target_change"], 100 * row["values"][value]) for row in result["records"]),
                marked=True,
            )
            for name, result in reversed(results.items())
        )  # fmt: skip
        edge = () if bound is None else (Line("", "bound", ((min(gains), bound), (max(gains), bound))),)
        panels.append(Panel(title, 210, (*lines, *edge)))
    drawn = curve_chart(
        "forgetting", "What is lost against what is gained",
        "Source bits per byte and in-context recall of each arm, against the drop of target bits per byte.", panels,
        width=1000, axis="target bits per byte, % below the base",
    )  # fmt: skip
    head, _, rest = str(drawn).partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{STYLE}{rest}\n'


def conditions(bench: Bench) -> str:
    """What was measured, on what."""
    info, asked = machine(), bench.asked
    return textwrap.fill(
        f"{asked.name} with 2,048 new tokens for `{asked.language}`, {SETTINGS.steps} steps of "
        f"{SETTINGS.batch_rows * SETTINGS.length} tokens, rates {SETTINGS.learning_rate:g} (transformer and old rows) "
        f"and {SETTINGS.new_rows_learning_rate:g} (new rows). Measured every {EVERY} steps on development text: "
        f"{asked.source_documents} source and 100 target documents, 48 in-context items. Bounds: source bits per byte "
        f"+{BOUNDS.source_bits_per_byte:.0%}, in-context recall -{BOUNDS.in_context:.0%}; a bound is broken when the "
        f"whole 95% interval lies beyond it. {asked.threads} threads, {info['cpu']}, torch "
        f"{info['versions']['torch']}; {date.today().isoformat()}.",
        width=120,
    )


def main() -> int:
    """Run what is asked for and not there yet; write page and picture and judge when the arms that count are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--language", default="yue")
    parser.add_argument("--source-language", default="en")
    parser.add_argument("--name", default="SmolLM2-135M-Instruct", help="What the page calls the base.")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-forgetting"))
    parser.add_argument("--only", action="append", choices=ARMS, help="Run this arm; may be repeated.")
    # Half as many are too few to tell a rise of 3% from one of 2%.
    parser.add_argument("--source-documents", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    bench = Bench(asked)
    for name in asked.only or ARMS:
        bench.measure(name)
    results = bench.results()
    missing = set(ARMS) - set(results)
    if missing - COMPARED:
        print(f"to do: {', '.join(sorted(missing))}")
        return 0
    atomic_write(PICTURE, picture(results))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    found = f"{BEGIN}\n{conditions(bench)}\n\n{table(results)}\n\n{why(results)}\n{END}"
    atomic_write(PAGE, f"{before}{found}{after}")
    fired = {name for name, result in results.items() if result["summary"]["retention"]["stopped"]}
    print(f"stopped: {', '.join(sorted(fired)) or 'none'}")
    return 0 if fired - COMPARED == {"no replay"} else 1


if __name__ == "__main__":
    sys.exit(main())
