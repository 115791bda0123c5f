"""Train every mode for a few steps on a real model, judge what is on disk then, and write docs/modes.md.

    python benchmarks/modes.py --base FOLDER --corpus TEXT [--language yue] [--new-tokens 2048] [--steps 3]
                               [--work runs/modes] [--threads N] [--only NAME,...] [--page docs/modes.md]

The base (SmolLM2 for the page in docs) gets new tokens learned from the text. Each mode then trains from the same
start. Every tensor of the written model is compared with the start's, bit for bit; the reloaded model's logits with
those of the model in memory after the last step, and with the adapter's on the untouched base (relative to the largest
logit, as `langgraft verify` does: a merged weight is rounded once more, and float32 has seven digits). `--work` keeps
one JSON for each mode, so a run that was stopped goes on where it was. Exits 1 when something moved that must not,
logits differ by more than 1e-5, a tied head came untied, or an adapter is too large.
"""

import argparse
import hashlib
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from langgraft.base import separator_id
from langgraft.corpus.document import Input, Report
from langgraft.corpus.readers import read
from langgraft.progress import Log
from langgraft.runs import machine
from langgraft.store import atomic_write, read_json, write_json
from langgraft.surgery.resize import resize
from langgraft.text import language
from langgraft.tokenizer.extend import extend
from langgraft.tokenizer.files import load
from langgraft.training.adapter import WEIGHTS, load_adapter
from langgraft.training.device import load_model
from langgraft.training.loop import Compute, Settings, train
from langgraft.training.modes import Lora, Phase
from langgraft.training.packing import pack

LARGEST_DIFFERENCE = 1e-5
LARGEST_ADAPTER = 1.3  # times the bytes of LoRA's matrices and the new rows
ENDS = (0, 1, -2, -1)
# name -> (phases, what of the rows moves, whether the transformer's weights may)
RUNS: dict[str, tuple[tuple[Phase, ...], Lora, str, str]] = {
    "full": ((Phase("full"),), Lora(), "all", "all"),
    "full, bottom and top two layers": ((Phase("full", layers=ENDS),), Lora(), "all", "layers"),
    "embeddings": ((Phase("embeddings"),), Lora(), "all", "none"),
    "new_rows": ((Phase("new_rows"),), Lora(), "new", "none"),
    "lora, rank 16, new rows": ((Phase("lora"),), Lora(), "new", "linear"),
    "lora, rank 16, all rows": ((Phase("lora"),), Lora(rows="all"), "all", "linear"),
    "new_rows, then lora": ((Phase("new_rows", 0.5), Phase("lora", 0.5)), Lora(), "new", "linear"),
    "new_rows, embeddings, full": (
        (Phase("new_rows", 1 / 3), Phase("embeddings", 1 / 3), Phase("full", 1 / 3)), Lora(), "all", "all",
    ),
}  # fmt: skip


def main() -> None:
    """Measure what is missing, then write the page."""
    given = arguments()
    start, first = extended(given)
    probe = torch.arange(100, 164)[None]
    facts = {}
    for name in given.only.split(";") if given.only else RUNS:
        file = given.work / f"{name.replace(', ', '-').replace(' ', '_')}.json"
        if not file.is_file():
            write_json(file, measure(name, given, start, first, probe))
        facts[name] = read_json(file)
        print(f"{name}: {facts[name]}", file=sys.stderr)
    wrong = [f"{name}: {fault}" for name, own in facts.items() for fault in faults(own)]
    atomic_write(given.page, page(facts, given, start, first, wrong))
    if wrong:
        sys.exit("; ".join(wrong))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--language", default="yue")
    parser.add_argument("--new-tokens", type=int, default=2048)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/modes"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", default="", help="names of RUNS, with ; between them")
    parser.add_argument("--page", type=Path, default=Path(__file__).parent.parent / "docs" / "modes.md")
    return parser.parse_args()


def extended(given: argparse.Namespace) -> tuple[Path, int]:
    """The base with new rows, and the first new id; made once, with the packed text beside it."""
    tokenizer, start = given.work / "tokenizer", given.work / "start"
    if not (given.work / "first.json").is_file():
        shutil.rmtree(given.work, ignore_errors=True)
        documents = read([Input(given.corpus)], given.language, Report())
        texts = [document.text for document, _ in zip(documents, range(given.documents), strict=False)]
        extend(given.base, texts, tokenizer, language=language(given.language), new_tokens=given.new_tokens)
        resized = resize(given.base, tokenizer, start)
        pack(load(start), texts[:200], given.work / "packed", separator=separator_id(given.base))
        write_json(given.work / "first.json", resized.old_tokens)
    return start, read_json(given.work / "first.json")


def measure(name: str, given: argparse.Namespace, start: Path, first: int, probe: torch.Tensor) -> dict[str, Any]:
    """Train one mode, and judge what it wrote."""
    phases, lora, rows, body = RUNS[name]
    out = given.work / "run"
    shutil.rmtree(out, ignore_errors=True)
    steps = given.steps if len(phases) != 2 else 2 * (given.steps // 2 + 1)
    seen: dict[str, Any] = {}

    def look(step: int, model: Any) -> None:
        if step == steps:
            seen["logits"], seen["trained"] = logits(model, probe), trained(model, rows, first)
            model.train()

    train(
        start, out, target=given.work / "packed", replay=None, old_rows=first, base=str(given.base),
        settings=Settings(steps=steps, length=64, batch_rows=2, replay_ratio=0.0, phases=phases, lora=lora),
        compute=Compute(device="cpu", threads=given.threads, checkpoint_every=10**9), log=Log(quiet=True),
        after_step=look,
    )  # fmt: skip
    model = load_model(out / "model", torch.device("cpu"))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    found = {
        "steps": steps,
        "trained": seen["trained"],
        "tied": tied,
        "largest_logit": float(seen["logits"].abs().max()),
        "reloaded": float((logits(model, probe) - seen["logits"]).abs().max()),
        **compared(start, out / "model", first, rows, body),
    }
    del model
    if (out / "adapter").is_dir():
        loaded = load_adapter(out / "adapter", given.base)
        found["on_the_base"] = float((logits(loaded, probe) - seen["logits"]).abs().max())
        found["adapter"] = adapter_bytes(out / "adapter")
    shutil.rmtree(out)
    return found


@torch.no_grad()
def logits(model: Any, probe: torch.Tensor) -> torch.Tensor:
    """Logits of the probe's tokens, on the CPU."""
    return model.eval()(input_ids=probe, use_cache=False).logits.float()


def trained(model: Any, rows: str, first: int) -> int:
    """How many numbers learn in the last phase; of token matrices, as many as may move."""
    matrices = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    own = [p[first:] if rows == "new" and id(p) in matrices else p for p in model.parameters() if p.requires_grad]
    return sum(p.numel() for p in own)


def compared(start: Path, model: Path, first: int, rows: str, body: str) -> dict[str, Any]:
    """Every tensor of both folders: how many moved, and one hash of all that must not move, before and after."""
    moved = fixed = 0
    wrong: list[str] = []
    hashes = (hashlib.sha256(), hashlib.sha256())
    with safe_open(start / "model.safetensors", "pt") as a, safe_open(model / "model.safetensors", "pt") as b:
        names = sorted(a.keys())
        if names != sorted(b.keys()):
            wrong.append("other tensors are in the file")
        size = len(a.get_tensor("model.embed_tokens.weight"))
        for name in names:
            old, new = a.get_tensor(name).float(), b.get_tensor(name).float()
            same = torch.equal(old, new)
            moved += not same
            token_rows = len(old) == size
            if not token_rows and same == may_move(name, body):
                wrong.append(f"{name} {'stayed' if same else 'moved'}")
            still = first if token_rows and rows == "new" else len(old) if same and not token_rows else 0
            if token_rows and torch.equal(old[first:], new[first:]):
                wrong.append(f"new rows of {name} stayed")
            fixed += old[:still].numel()
            for total, tensor in zip(hashes, (old, new), strict=True):
                total.update(tensor[:still].contiguous().numpy().tobytes())
    digests = [total.hexdigest() for total in hashes]
    return {"tensors": len(names), "moved": moved, "fixed": fixed, "sha256": digests, "wrong": wrong}


def may_move(name: str, body: str) -> bool:
    """Whether a weight of the transformer is one that the mode trains (SmolLM2's and Llama's names)."""
    if body == "layers":
        layer = name.removeprefix("model.layers.").split(".")[0]
        return layer in ("0", "1", "28", "29") or not layer.isdecimal()
    return body == "all" or (body == "linear" and name.endswith("_proj.weight"))


def adapter_bytes(folder: Path) -> dict[str, int]:
    """Bytes of the folder, and of LoRA's matrices and the new rows in float32."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    needed = {kind: 4 * sum(a * b for n, (a, b) in shapes.items() if (".lora_" in n) == (kind == "lora"))
              for kind in ("lora", "rows")}  # fmt: skip
    return {**needed, "folder": sum(path.stat().st_size for path in folder.iterdir())}


def faults(own: dict[str, Any]) -> list[str]:
    """What is wrong with what a mode wrote."""
    found = list(own["wrong"])
    if own["sha256"][0] != own["sha256"][1]:
        found.append("something moved that must not")
    if not own["tied"]:
        found.append("the head came untied")
    if max(own["reloaded"], own.get("on_the_base", 0.0)) > LARGEST_DIFFERENCE * own["largest_logit"]:
        found.append("logits differ after reloading")
    size = own.get("adapter")
    if size and size["lora"] and size["folder"] > LARGEST_ADAPTER * (size["lora"] + size["rows"]):
        found.append("the adapter is too large")
    return found


def apart(own: dict[str, Any], place: str) -> str:
    """`2.1e-06 (5.0e-05)`; nothing for a mode without an adapter."""
    return f"{own[place] / own['largest_logit']:.1e} ({own[place]:.1e})" if place in own else ""


def page(facts: dict[str, Any], given: argparse.Namespace, start: Path, first: int, wrong: list[str]) -> str:
    """The page."""
    where = machine()
    with safe_open(start / "model.safetensors", "pt") as file:
        rows, width = file.get_slice("model.embed_tokens.weight").get_shape()
        whole = sum(torch.Size(file.get_slice(n).get_shape()).numel() for n in file.keys())  # noqa: SIM118
    lines = [
        "# Modes compared",
        "",
        "Written by `python benchmarks/modes.py`; nothing is typed by hand. What modes do: [training](training.md).",
        "",
        f"The base has {whole - (rows - first) * width:,} numbers; {rows - first:,} rows of {width} are new "
        f"({given.new_tokens:,} new tokens for `{given.language}`, and padding). Steps of 128 tokens, from the same "
        "start. Every tensor on disk is compared with the start's, bit for bit.",
        "",
        "| mode | numbers that learn | tensors that moved | numbers that must not move | bit-equal | tied "
        "| model reloaded: logits apart | adapter on the base: logits apart |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, own in facts.items():
        equal = "yes" if own["sha256"][0] == own["sha256"][1] and not own["wrong"] else "**no**"
        away, base = (apart(own, place) for place in ("reloaded", "on_the_base"))
        lines.append(
            f"| {name} | {own['trained']:,} | {own['moved']} of {own['tensors']} | {own['fixed']:,} | {equal} "
            f"| {'yes' if own['tied'] else '**no**'} | {away} | {base} |"
        )
    lines += [
        "",
        "Numbers that learn are those of the last phase. The last two columns compare with the model in memory after "
        "the last step: the largest difference of a logit, as a share of the largest logit (bound: "
        f"{LARGEST_DIFFERENCE:g}) and, in brackets, as it is.",
        "",
        "| adapter | LoRA, bytes | new rows, bytes | folder with tokenizer, bytes | times LoRA + rows |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, size in ((name, own["adapter"]) for name, own in facts.items() if "adapter" in own):
        ratio = size["folder"] / (size["lora"] + size["rows"])
        lines.append(f"| {name} | {size['lora']:,} | {size['rows']:,} | {size['folder']:,} | {ratio:.2f} |")
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    lines += ["", f"Bound for adapters with LoRA: {LARGEST_ADAPTER}. " + ("; ".join(wrong) or "All bounds are kept.")]
    lines += ["", f"Machine: {where['cores']} cores ({where['cpu']}), {where['memory_gb']:.0f} GB; {versions}; "
              f"{time.strftime('%Y-%m-%d')}.", ""]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
