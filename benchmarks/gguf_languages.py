"""Extended models as GGUF files, proven in a real llama.cpp and in the server: docs/gguf.md.

    python benchmarks/gguf_languages.py --base FOLDER --text yue=PATH --text ja=PATH --text hi=PATH --text th=PATH
                                        [--new-tokens 1000] [--work FOLDER] [--kept FILE]

`--base` is SmolLM2 as a hub folder. It learns Cantonese and Japanese, which need no repair of its pattern; Hindi and
Thai are learned on a pico model with the Qwen2 pattern, and Hindi on one with a Llama-2-like SentencePiece tokenizer
(tokenizers of the tests: the real algorithms and pipelines, and random weights). Hindi and Thai on SmolLM2 itself get
the table of llama.cpp's nearest pre-tokenizers. No training: tokens, rows and files are what is judged here.
PATH is a JSONL file of {"text"}, compressed or not. With --kept, finished rows are kept there and not measured again.
"""

import argparse
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unicodedata
import urllib.request
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent.parent
PAGE = HERE / "docs" / "gguf.md"
sys.path[:0] = [str(HERE / "tests"), str(HERE / "tests" / "tokenizer"), str(HERE / "tests" / "exporting")]
QUANTS = ("f16", "q8_0", "q4_k_m")
SERVED = "q4_k_m"
NEAREST = (
    "## Hindi and Thai on SmolLM2, its own pattern repaired",
    "",
    "No pre-tokenizer of llama.cpp splits that way. Share of lines with other ids, by kind of text:",
    "",
)
CHARACTERS = 3_000_000
NORMAL = 2000  # lines in NFC


def texts_of(path: Path) -> list[str]:
    """The documents of a file, up to three million characters."""
    found, size = [], 0
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            found.append(json.loads(line)["text"])
            size += len(found[-1])
            if size > CHARACTERS:
                break
    return found


def extended(base: Path, code: str, texts: list[str], out: Path, new_tokens: int) -> Path:
    """`base` with new tokens and rows for a language."""
    from langgraft.surgery.extend import extend_model
    from langgraft.text import language
    from langgraft.tokenizer.extend import extend

    tokenizer = out / "tokenizer"
    tokenizer.mkdir(parents=True)
    extend(base, texts, tokenizer, language=language(code), new_tokens=new_tokens)
    extend_model(base, tokenizer, out / "model", models=False)
    return out / "model"


def pico(kind: str, tokenizer: str, out: Path) -> Path:
    """A model of random weights, wide enough for k-quants, with one of the tests' tokenizers."""
    import torch
    import transformers
    from families import FAMILIES

    out.mkdir(parents=True)
    FAMILIES[tokenizer](out)
    rows = json.loads((out / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    tokens = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    document = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    eos = next(t["id"] for t in document["added_tokens"] if t["content"] == tokens["eos_token"])
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=rows, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=False,
        bos_token_id=1 if tokenizer == "llama2" else None, eos_token_id=eos, pad_token_id=eos,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    model.save_pretrained(out)
    return out


def answers(gguf: Path) -> str:
    """What `langgraft serve` gives for a few tokens, over HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "langgraft", "serve", f"m={gguf}", "--port", str(port), "--threads", "1"]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    body = json.dumps({"model": "m", "prompt": "The dog", "max_tokens": 4, "temperature": 0}).encode()
    address = f"http://127.0.0.1:{port}/v1/completions"
    try:
        for _ in range(300):
            time.sleep(1)
            try:
                ask = urllib.request.Request(address, body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(ask, timeout=120) as answer:
                    tokens = json.load(answer)["usage"]["completion_tokens"]
                    return f"{tokens} tokens"
            except (ConnectionError, urllib.error.URLError):
                if server.poll() is not None:
                    return "the server ended"
        return "no answer"
    finally:
        server.terminate()
        server.wait()


def mixed_lines() -> list[str]:
    """The built-in lines up to the `NORMAL`th in NFC; those few on the way that are not come along."""
    from langgraft.exporting.parity_lines import parity_lines

    lines: list[str] = []
    while sum(unicodedata.normalize("NFC", line) == line for line in lines) < NORMAL:
        lines = parity_lines(len(lines) + 1 if lines else NORMAL)
    return lines


def proven(title: str, model: Path, out: Path) -> list[str]:
    """Rows of the table for one model, each format proven and served."""
    from langgraft.exporting.formats import export_gguf
    from langgraft.exporting.prove import prove_all

    summary = export_gguf(model, out, quant=QUANTS, name="m")
    result = prove_all(model, summary, mixed_lines())
    lines, warned = [], {text.split()[0] for text in result["warnings"]}
    for row, facts in zip(result["table"], summary["files"].values(), strict=True):
        passed = all(gate["passed"] for gate in result["gates"] if f"({row['name']})" in gate["name"])
        served = answers(Path(facts["path"])) if passed and row["name"] == SERVED else "" if passed else "failed"
        differ = f"{row['mismatches']:,} of {NORMAL:,}; {row['only_normalisation']} of {row['lines'] - NORMAL}"
        lines.append(
            f"| {title} | {row['name']} | `{facts['pre']}` | {row['bytes'] / 1e6:.1f} MB | {differ} | {row['kl']:.1e} "
            f"| {row['top1']:.1%} | {row['answers_changed']} of {row['answers']} | "
            f"{'yes' if row['name'] in warned else 'no'} | {served} |"
        )
        print(lines[-1], flush=True)
    return lines


def nearest(base: Path, code: str, texts: list[str], out: Path, new_tokens: int) -> list[str]:
    """The table of pre-tokenizers for a repaired pattern that llama.cpp lacks, and what the export says."""
    from langgraft.errors import ModelError
    from langgraft.exporting.pre_rates import choose_pre, measure_pre
    from langgraft.text import language
    from langgraft.tokenizer.extend import extend

    out.mkdir(parents=True)
    extend(base, texts, out, language=language(code), new_tokens=new_tokens)
    rates = measure_pre(out)
    kinds = list(rates[0].kinds)
    lines = [f"| {code}: `pre` | all | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * (len(kinds) + 1)]
    for found in rates[:4]:
        shares = [f"{wrong / count:.1%}" for wrong, count in found.kinds.values()]
        lines.append(f"| `{found.pre}` | {found.rate:.1%} | " + " | ".join(shares) + " |")
    try:
        choose_pre(out)
        lines += ["", "exported without being asked"]
    except ModelError as error:
        accepted = choose_pre(out, accept_mismatch=rates[0].rate + 0.001)[0]
        lines += ["", f"Without `--accept-mismatch`: refused ({re.split('[.;:] ', str(error))[0]}). "
                  f"With {rates[0].rate + 0.001:.3f}: `{accepted}`."]  # fmt: skip
    return [*lines, ""]


def main() -> None:
    """Build, export, prove, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--text", action="append", default=[], help="CODE=PATH")
    parser.add_argument("--new-tokens", type=int, default=1000)
    parser.add_argument("--kept", type=Path, help="JSON file of rows that are done")
    parser.add_argument("--work", type=Path, help="folder for the models; a temporary one by default")
    options = parser.parse_args()
    texts = {code: texts_of(Path(path)) for code, _, path in (pair.partition("=") for pair in options.text)}
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        table, near = _measure(options.base, texts, options.new_tokens, Path(scratch), options.kept)
    PAGE.write_text("\n".join(_page(table, near, options.new_tokens)), encoding="utf-8")
    print(f"wrote {PAGE}")


def _measure(
    base: Path, texts: dict[str, list[str]], count: int, root: Path, kept: Path | None
) -> tuple[list[str], list[str]]:
    done: dict[str, list[str]] = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.is_file() else {}

    def keep(title: str, lines: list[str]) -> list[str]:
        done[title] = lines
        if kept:
            kept.write_text(json.dumps(done, ensure_ascii=False, indent=1), encoding="utf-8")
        return lines

    cases: list[tuple[str, Path, str]] = []
    if {"hi", "th"} & set(texts):
        qwen, llama = pico("Qwen2", "qwen2", root / "qwen2"), pico("Llama", "llama2", root / "llama2")
        cases += [(f"pico, Qwen2 pattern, {code}", qwen, code) for code in ("hi", "th") if code in texts]
        cases += [(f"pico, Llama-2 SentencePiece, {code}", llama, code) for code in ("hi",) if code in texts]
    cases += [(f"SmolLM2, {code}", base, code) for code in ("yue", "ja") if code in texts]
    table: list[str] = []
    for i, (title, start, code) in enumerate(cases):
        if title not in done:
            model = extended(start, code, texts[code], root / str(i), count)
            keep(title, proven(title, model, root / str(i) / "gguf"))
        table += done[title]
    near: list[str] = []
    for code in ("hi", "th"):
        if code in texts:
            title = f"nearest, {code}"
            near += done.get(title) or keep(title, nearest(base, code, texts[code], root / f"near-{code}", count))
    return table, near


def _page(table: list[str], near: list[str], count: int) -> list[str]:
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("gguf", "llama-cpp-python", "transformers", "tokenizers")
    )
    return [
        "# GGUF files of extended models",
        "",
        f"Written by `benchmarks/gguf_languages.py` ({count:,} new tokens asked for, no training): every file runs in "
        "llama.cpp against the hub folder it was made from, on 2,000 lines of `parity_lines` (languages, code, "
        f"emoji, odd spacing), and on the few between them that are not in NFC, which Qwen2's tokenizer normalises and "
        f"llama.cpp does not; its q4_k_m answers in `langgraft serve`. {versions}; {os.cpu_count()} cores; "
        f"{date.today()}.",
        "",
        "Answers: ten short greedy ones. Pico models have random weights, whose likeliest tokens hang on last bits.",
        "",
        "| model | format | `pre` | size | lines that differ; of those not in NFC | mean KL, nats "
        "| same first choice | answers changed "
        "| warned | served |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
        *table,
        "",
        *(NEAREST if near else ()),
        *near,
    ]


if __name__ == "__main__":
    main()
