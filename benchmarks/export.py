"""Time and peak memory of an export to GGUF: docs/benchmarks-export.md.

    python benchmarks/export.py --base FOLDER [--work FOLDER] [--kept FILE]

`--base` is SmolLM2 as a hub folder. A model with the configuration of TinyLlama-1.1B is made from random weights, in
shards of 16-bit tensors, to see whether the files are streamed. Every export runs in a process of its own; its time is
CPU time and its memory the largest resident size (getrusage), libraries included. The largest tensor counts as it lies
in the folder. Needs 5 GB of disk, and no GPU. With --kept, finished lines are kept there and not measured again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent.parent
PAGE = HERE / "docs" / "benchmarks-export.md"
CHILD = """
import json, resource, sys, time
start = time.monotonic()
from pathlib import Path
from langgraft.exporting.formats import export_gguf
export_gguf(Path(sys.argv[1]), Path(sys.argv[2]), quant=(sys.argv[3],), name="m")
used = resource.getrusage(resource.RUSAGE_SELF)
cpu, wall = used.ru_utime + used.ru_stime, time.monotonic() - start
print(json.dumps({"cpu": cpu, "wall": wall, "peak": used.ru_maxrss * 1024}))
"""
TINYLLAMA = {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip
MAKE = """
import json, sys
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from pathlib import Path
import torch
from families import llama2
from safetensors.torch import save_file
from transformers import LlamaConfig
folder, sizes = Path(sys.argv[1]), json.loads(sys.argv[4])
llama2(folder, model_file=False)
document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
size = 1 + max(*document["model"]["vocab"].values(), *(token["id"] for token in document["added_tokens"]))
document["model"]["vocab"] |= {token["content"]: token["id"] for token in document["added_tokens"]}
document["model"]["vocab"] |= {f"filler{i}": i for i in range(size, sizes["vocab_size"])}
(folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
config = LlamaConfig(**sizes, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, torch_dtype="bfloat16")
config.architectures = ["LlamaForCausalLM"]
config.save_pretrained(folder)
h, f, v = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
kv = h // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
layer = {"self_attn.q_proj": (h, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h),
         "self_attn.o_proj": (h, h), "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h), "mlp.down_proj": (h, f),
         "input_layernorm": (h,), "post_attention_layernorm": (h,)}
shards = [{"model.embed_tokens.weight": (v, h)}, {"lm_head.weight": (v, h), "model.norm.weight": (h,)}]
shards += [{f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
           for i in range(sizes["num_hidden_layers"])]
places = {}
for number, names in enumerate(shards):
    file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
    tensors = {name: (torch.randn(shape) * 0.02).bfloat16() for name, shape in names.items()}
    save_file(tensors, folder / file, metadata={"format": "pt"})
    places |= dict.fromkeys(names, file)
(folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
"""


def largest(folder: Path) -> int:
    """Bytes of the largest tensor in a folder, from the headers of its files."""
    sizes = []
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        sizes += [entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()]
    return max(sizes)


def row(title: str, folder: Path, quant: str, scratch: Path) -> str:
    """Export in a fresh process; one line of the table."""
    line = [sys.executable, "-c", CHILD, str(folder), str(scratch), quant]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    file = scratch / f"m-{quant}.gguf"
    size = file.stat().st_size
    file.unlink()
    tensor = largest(folder)
    bound = 1.3 * tensor + 500e6
    verdict = "yes" if found["peak"] <= bound else "**no**"
    cells = (
        f"{title} | {quant} | {size / 1e6:,.0f} MB | {found['cpu']:.1f} s | {found['wall']:.1f} s "
        f"| {tensor / 1e6:.0f} MB | {found['peak'] / 1e6:.0f} MB | {bound / 1e6:.0f} MB | {verdict}"
    )
    print(cells, flush=True)
    return f"| {cells} |"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="folder for the files; a temporary one by default")
    parser.add_argument("--kept", type=Path, help="JSON file of lines that are done")
    options = parser.parse_args()
    kept = options.kept
    done: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.is_file() else {}
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        tiny = Path(scratch) / "tinyllama"
        tests = [str(HERE / "tests"), str(HERE / "tests" / "tokenizer")]
        subprocess.run([sys.executable, "-c", MAKE, str(tiny), *tests, json.dumps(TINYLLAMA)], check=True)
        cases = (("SmolLM2-135M", options.base), ("TinyLlama-1.1B, random", tiny))
        for title, folder in cases:
            for quant in ("f16", "q8_0"):
                name = f"{title}, {quant}"
                done[name] = done.get(name) or row(title, folder, quant, Path(scratch))
                if kept:
                    kept.write_text(json.dumps(done, indent=1), encoding="utf-8")
    packages = ", ".join(f"{name} {version(name)}" for name in ("gguf", "torch", "numpy"))
    page = [
        "# Export to GGUF: time and memory",
        "",
        "Written by `benchmarks/export.py`. A line is one process, libraries included; tensors are read, changed and "
        f"written a block of rows at a time. {platform.machine()}, {os.cpu_count()} cores; {packages}; "
        f"{date.today()}.",
        "",
        "| model | format | file | CPU time | wall | largest tensor | peak memory | 1.3 x tensor + 500 MB | kept |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(done[f"{title}, {quant}"] for title, _ in cases for quant in ("f16", "q8_0")),
    ]
    PAGE.write_text("\n".join(page) + "\n", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
