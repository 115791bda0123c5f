"""Bits per byte of a real model: equal to lm-evaluation-harness's, and as fast as reading the text can be.

    python benchmarks/bits.py MODEL TEXT... [--kilobytes 1000] [--threads 0] [--parts 20] [--equal 20] [--speed CODE...]

TEXT is `CODE=PATH`, one for each language. *Equality*: our bits per byte of the first documents of every language, and
the harness's of the same (needs `pip install 'langgraft[lm-eval]'`; left out otherwise). *Speed*: CPU seconds of
`score` on so many kilobytes of all languages together (or of those of `--speed`), against those of the bare forward
passes over the same windows, in batches without padding, that keep nothing of the logits. Both alternate part by part
of the text, so that what else the machine does falls on both alike. Writes the table into docs/evaluation.md.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import json
import os

from langgraft.corpus.document import Input, Report
from langgraft.corpus.readers import read
from langgraft.evaluation.bpb import score
from langgraft.evaluation.likelihood import batches, windows
from langgraft.evaluation.torch_scorer import BATCH_TOKENS, TorchScorer
from langgraft.runs import machine

PAGE = Path(__file__).parent.parent / "docs" / "evaluation.md"
BEGIN, END = "<!-- bits: written by benchmarks/bits.py -->", "<!-- end of bits -->"
ROLLING = """
task: bits_{code}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {code}.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


def texts_of(code: str, path: str, most: int) -> list[str]:
    """Documents of a file, `most` bytes of them together."""
    found: list[str] = []
    size = 0
    for document in read([Input(path)], code, Report()):
        if size >= most:
            break
        found.append(document.text)
        size += len(document.text.encode())
    return found


def equality(folder: Path, texts: dict[str, list[str]], threads: int) -> list[str]:
    """A line for each language: ours, the harness's, and the difference."""
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    try:
        from langgraft.evaluation.tasks import run_tasks

        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            for code, of in texts.items():
                rows = (json.dumps({"text": text}) + "\n" for text in of)
                (place / f"{code}.jsonl").write_text("".join(rows), encoding="utf-8")
                (place / f"bits_{code}.yaml").write_text(ROLLING.format(code=code), encoding="utf-8")
            names = [f"bits_{code}" for code in texts]
            theirs = run_tasks(folder, names, task_folder=place, window=512, threads=threads, batch_size=4)
    except ImportError as error:
        return [f"lm-evaluation-harness is not installed ({error})"]
    lines = [
        "| language | documents | langgraft | lm-evaluation-harness | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code, of in texts.items():
        ours = score(folder, of, length=512, stride=512, threads=threads).bits_per_byte
        other = theirs[f"bits_{code}"]["metrics"]["bits_per_byte"]["value"]
        lines.append(f"| {code} | {len(of)} | {ours:.6f} | {other:.6f} | {abs(ours - other):.1e} |")
    return lines


def bare(scorer: TorchScorer, texts: list[str]) -> float:
    """CPU seconds of forward passes over as many tokens in the same batches, each row as long as they are on average.

    That is what a batch costs whose rows need no padding; nothing is done with the logits.
    """
    import torch

    encoded = [e.ids for e in scorer.tokenizer.encode_batch(texts, add_special_tokens=False)]
    every = [w for i, ids in enumerate(encoded) for w in windows(i, ids, scorer.separator, 512, 256)]
    begin = time.process_time()
    with torch.inference_mode():
        for batch in batches(every, BATCH_TOKENS["cpu"]):
            size = round(sum(len(w.ids) - 1 for w in batch) / len(batch))
            rows = [(w.ids * 2 + [0] * size)[:size] for w in batch]
            scorer.model(input_ids=torch.tensor(rows), use_cache=False)
    return time.process_time() - begin


def ours(scorer: TorchScorer, folder: Path, texts: list[str], threads: int) -> float:
    """CPU seconds of `score` with the model already loaded."""
    begin = time.process_time()
    score(folder, texts, model=scorer.model, device="cpu", threads=threads)
    return time.process_time() - begin


def main() -> None:
    """Measure, print, and write the page's part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--kilobytes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--parts", type=int, default=20, help="after so many parts of the text the two sides change")
    parser.add_argument("--equal", type=int, default=20, help="kilobytes of each language for the equality")
    parser.add_argument("--speed", nargs="+", metavar="CODE", help="languages whose text is timed; all by default")
    asked = parser.parse_args()
    named = dict(pair.split("=", 1) for pair in asked.texts)
    lines = equality(
        asked.model, {code: texts_of(code, path, 1000 * asked.equal) for code, path in named.items()}, asked.threads
    )
    print("\n".join(lines), flush=True)
    timed = asked.speed or list(named)
    every = [text for code in timed for text in texts_of(code, named[code], 1000 * asked.kilobytes // len(timed))]
    scorer = TorchScorer(asked.model, device="cpu", threads=asked.threads)
    size = sum(len(text.encode()) for text in every)
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(asked.parts):
        part = every[number :: asked.parts]
        for name in ("bare", "ours") if number % 2 == 0 else ("ours", "bare"):
            found = bare(scorer, part) if name == "bare" else ours(scorer, asked.model, part, asked.threads)
            seconds[name].append(found)
        print(f"part {number}: {seconds['ours'][-1]:.1f} s, bare {seconds['bare'][-1]:.1f} s", flush=True)
    ratio = sum(seconds["ours"]) / sum(seconds["bare"])
    each = sorted(a / b for a, b in zip(seconds["ours"], seconds["bare"], strict=True))
    where = machine()
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    lines += [
        "",
        f"{size / 1e6:.2f} MB of {', '.join(timed)} ({len(every):,} documents), windows of 512 tokens, stride 256: "
        f"{ratio:.2f} times the CPU time of the bare forward passes ({sum(seconds['ours']):.0f} against "
        f"{sum(seconds['bare']):.0f} CPU seconds, in {asked.parts} parts in turns, {each[0]:.2f} to {each[-1]:.2f}).",
        "",
        f"Machine: {where['cores']} cores ({where['cpu']}), {where['memory_gb']:.0f} GB; {versions}; "
        f"{time.strftime('%Y-%m-%d')}.",
    ]
    page = PAGE.read_text(encoding="utf-8")
    if BEGIN in page:
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
