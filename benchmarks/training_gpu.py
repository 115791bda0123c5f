"""Training on a GPU, beside Hugging Face's Trainer: MFU and memory, and docs/benchmarks-training-gpu.md written.

    python benchmarks/training_gpu.py [--models smollm2,tinyllama] [--lengths 2048,4096] [--rounds 2]
                                      [--work runs/training-gpu] [--page docs/benchmarks-training-gpu.md]

SmolLM2-135M with 2,048 more tokens and a TinyLlama of 1.1B with 65,536, both with random weights (speed does not depend
on them), in bfloat16 on packed documents of random tokens. Each is measured with and without torch.compile, by our
loop and by Trainer on the same rows, and by Trainer with liger-kernel where that is installed. Every measurement is a
process of its own, and the sides take turns. `--device cpu --models pico --lengths 64` tries the script without a GPU.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import training

from langgraft.store import atomic_write, write_json

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-training-gpu.md"
BATCH = 16_384  # tokens of a step
WARM, STEPS = 6, 20  # the first compile; kernels and memory settle
DOCUMENT = 600  # tokens, about
MODELS: dict[str, dict[str, Any]] = {
    "smollm2": {
        "vocab_size": 51_200, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "tinyllama": {
        "vocab_size": 65_536, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
        "num_attention_heads": 32, "num_key_value_heads": 4, "tie_word_embeddings": False,
    },
    "pico": {
        "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip
TITLES = {"smollm2": "SmolLM2-135M, 51,200 rows", "tinyllama": "TinyLlama-1.1B, 65,536 rows", "pico": "pico"}


def main() -> None:
    """Measure what is missing, then write the page."""
    given = arguments()
    jobs = {}
    for model in given.models.split(","):
        for length in map(int, given.lengths.split(",")):
            for compiled in (False, True):
                name = f"{model}-{length}-{'compiled' if compiled else 'plain'}"
                jobs[name] = {**prepared(given, model, length), "compile": compiled}
    sides = ["ours", "packed", *(["liger"] if importlib.util.find_spec("liger_kernel") else [])]
    found = training.measured(given, jobs, [[side] for side in sides], Path(training.__file__))
    atomic_write(given.page, page(given, jobs, found))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="smollm2,tinyllama", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--lengths", default="2048,4096")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--work", type=Path, default=Path("runs/training-gpu"))
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args()


def prepared(given: argparse.Namespace, model: str, length: int) -> dict[str, Any]:
    """A model with random weights and packed documents of random tokens; made once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = given.work / model
    config = LlamaConfig(**MODELS[model], max_position_embeddings=8192)
    if not (folder / "model" / "config.json").is_file():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
        random_documents(folder / "packed", config.vocab_size)
    return {
        "model": str(folder / "model"), "packed": str(folder / "packed"), "length": length,
        "rows": max(BATCH // length, 1) if given.device != "cpu" else 4, "threads": 1, "liger": False,
        "warm": WARM, "steps": STEPS,
        "old_rows": config.vocab_size - 256, "device": given.device,
        "dtype": "float32" if given.device == "cpu" else "bfloat16",
    }  # fmt: skip


def random_documents(folder: Path, rows: int) -> None:
    """A packed folder of 4 million random tokens in documents of many lengths."""
    random = np.random.default_rng(0)
    sizes = np.maximum(random.lognormal(np.log(DOCUMENT), 1.0, 5000).astype(np.int64), 8)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    folder.mkdir(parents=True)
    np.save(folder / "tokens.npy", random.integers(0, rows, offsets[-1], dtype=np.int32))
    np.save(folder / "offsets.npy", offsets)
    tokens = int(offsets[-1])
    write_json(folder / "packed.json", {"documents": len(sizes), "tokens": tokens, "bytes": 4 * tokens, "separator": 0})


def page(given: argparse.Namespace, jobs: dict[str, Any], found: dict[str, Any]) -> str:
    """The page."""
    import torch

    from langgraft.runs import machine

    device = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    first = next(iter(jobs.values()))
    lines = [
        "# Training on a GPU compared",
        "",
        "Written by `python benchmarks/training_gpu.py`; nothing is typed by hand. Figures are medians of "
        f"{given.rounds} rounds; each measurement is a process of its own, the sides take turns.",
        "",
        f"{device}, {first['dtype']}, packed documents of random tokens, random weights. MFU is tokens/s times 6N, "
        "divided by what the same GPU was measured to multiply; attention is not counted.",
        "",
        "| model | row | compiled | side | tokens/s | MFU | against Trainer | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    labels = {"ours": "langgraft", "packed": "Trainer", "liger": "Trainer, liger"}
    for name, sides in found.items():
        model, length, compiled = name.split("-")
        per_flop = training.middle(sides["ours"], "flops") / training.middle(sides["ours"], "rate")
        peer = training.middle(sides["packed"], "tokens_per_second")
        for side, own in sides.items():
            speed = training.middle(own, "tokens_per_second")
            lines.append(
                f"| {TITLES[model]} | {length} | {'yes' if compiled == 'compiled' else 'no'} | {labels[side]} "
                f"| {speed:,.0f} | {speed * per_flop:.1%} | {speed / peer:.2f}x "
                f"| {training.middle(own, 'peak_memory') / 1e9:.1f} GB |"
            )
    versions = ", ".join(f"{package} {number}" for package, number in machine()["versions"].items())
    return "\n".join([*lines, "", f"{versions}; {time.strftime('%Y-%m-%d')}.", ""])


if __name__ == "__main__":
    sys.exit(main())
