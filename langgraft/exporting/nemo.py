"""A corpus as Megatron-LM and NeMo train on it: indexed datasets, and the weights to mix them by."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraft.base import separator_id
from langgraft.corpus.document import Input, Report
from langgraft.corpus.indexed import write_indexed
from langgraft.corpus.readers import read
from langgraft.corpus.sources import SUFFIXES, resolve, with_companions
from langgraft.corpus.streams import COMPRESSIONS
from langgraft.errors import CorpusError, RecipeError, TokenizerError
from langgraft.progress import Log
from langgraft.store import TEMPORARY, fingerprint, fsync_tree, lock, sha256_file, write_json

SPLITS = {"train": "train", "dev": "valid", "test": "test"}  # our names -> Megatron's
SUFFIX = "_text_document"  # what Megatron's own preprocess_data.py appends


def export_nemo_data(
    model: Path,
    out: Path,
    *,
    corpus: Sequence[str] = (),
    language: str = "und",
    text_key: str = "text",
    weights: Mapping[str, float] | None = None,
    workers: int = 1,
    log: Log | None = None,
) -> dict[str, Any]:
    """Write each corpus as `out/NAME_text_document.bin/.idx`, and how to mix them.

    A folder that `langgraft corpus` or a run wrote gives one dataset for each of its languages and splits
    (`target-train`, …). Anything else gives one dataset of training text, named after the file or folder.
    `out/per_split_data.json` mixes them, as Megatron's `--per-split-data-args-path` takes it. The export appears
    as a whole; one that was stopped goes on when started again.

    Args:
        model: folder with the tokenizer.json to write ids of; documents end with `base.separator_id`.
        corpus: paths, as readers take them.
        language: code of the text's language, for readers that choose by it.
        text_key: field that holds the text.
        weights: share of each name (`target`, `source`, a file's name) in the mixture; by default its tokens.
        workers: processes that tokenise; the result is the same for any number.

    Returns:
        `format, folder, tokenizer, datasets` (name -> `write_indexed`'s summary)`, mixture` (split -> list of
        weight and prefix in turn)`, report` (damage met in the corpus).

    Raises:
        RecipeError: no corpus, fewer than one worker, or weights that fit no dataset.
        CorpusError, TokenizerError: a corpus or the tokenizer cannot be used.
        BusyError: another process writes the same export.
    """
    log = log or Log(quiet=True)
    if not corpus:
        raise RecipeError("the export `nemo-data` needs text: give --corpus")
    if workers < 1:
        raise RecipeError(f"--workers {workers} must be at least 1")
    path = model / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(f"{model} has no tokenizer.json")
    from tokenizers import Tokenizer

    tokenizer, eod = Tokenizer.from_file(str(path)), separator_id(model)
    made = {"tokenizer": sha256_file(path), "eod": eod, "language": language, "text_key": text_key}
    inputs = _named(corpus, text_key)
    _check_weights(weights, inputs)
    report, datasets = Report(), {}
    with _resumable(out) as folder:
        for name, source in inputs.items():
            prefix = folder / f"{name}{SUFFIX}"
            texts = (document.text for document in read([source], language, report))
            identity = fingerprint({**made, "files": _files(source)})
            facts = write_indexed(tokenizer, texts, prefix, eod=eod, identity=identity, workers=workers, log=log)
            log.say(f"{prefix.name}: {facts['documents']:,} documents, {facts['tokens']:,} tokens, {facts['dtype']}")
            datasets[name] = facts
        mixture = _mixture(datasets, out, weights)
        summary = {"format": "nemo-data", "folder": str(out), "tokenizer": made["tokenizer"], "datasets": datasets,
                   "mixture": mixture, "report": report.files()}  # fmt: skip
        # Megatron asks for all three keys.
        write_json(folder / "per_split_data.json", {theirs: mixture.get(theirs) for theirs in SPLITS.values()})
        write_json(folder / "summary.json", summary)
    return summary


@contextlib.contextmanager
def _resumable(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when the block ends well, and is found again by the next try when it does not."""
    folder = out.with_name(f"{TEMPORARY}{out.name}")
    with lock(folder, what="export"):
        yield folder
        fsync_tree(folder)
        (folder / ".lock").unlink()
        if out.is_dir():
            out.rmdir()  # only an empty one gives way
        os.replace(folder, out)


def _named(corpus: Sequence[str], text_key: str) -> dict[str, Input]:
    """The dataset's name and input of everything that is to be written."""
    found: dict[str, Input] = {}
    for path in corpus:
        parts = [(side, split) for side in ("target", "source") for split in SPLITS
                 if (Path(path) / side / f"{split}.jsonl.gz").is_file()]  # fmt: skip
        named = {f"{side}-{split}": f"{path}/{side}/{split}.jsonl.gz" for side, split in parts}
        for name, place in (named or {_stem(path): path}).items():
            if name in found:
                raise RecipeError(f"--corpus: {found[name].path} and {place} would both be written as `{name}`")
            found[name] = Input(place, "jsonl" if named else "auto", "text" if named else text_key)
    return found


def _stem(path: str) -> str:
    name = Path(path.replace(":", "/")).name
    for suffix in (*COMPRESSIONS, *SUFFIXES):
        name = name.removesuffix(suffix)
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name) or "text"


def _files(source: Input) -> list[Any]:
    files = [(str(path.resolve()), path.stat()) for path in with_companions(resolve(source))]
    return [source.path, *([path, facts.st_size, facts.st_mtime_ns] for path, facts in files)]


def _kind(name: str) -> tuple[str, str]:
    """`target-dev` -> ("target", "dev"); any other name is training text."""
    side, _, split = name.rpartition("-")
    return (side, split) if side in ("target", "source") and split in SPLITS else (name, "train")


def _check_weights(weights: Mapping[str, float] | None, inputs: Mapping[str, Input]) -> None:
    if weights is None:
        return
    names = {_kind(name)[0] for name in inputs}
    for name, weight in weights.items():
        if name not in names:
            raise RecipeError(
                f"--weight {name}={weight:g}: there is no such dataset; there are {', '.join(sorted(names))}"
            )
        if not 0 < weight < float("inf"):
            raise RecipeError(f"--weight {name}={weight:g} must be above 0")
    if missing := sorted(names - set(weights)):
        raise RecipeError(f"--weight is given, but not for {', '.join(missing)}; give each a weight, or none")


def _mixture(datasets: Mapping[str, Any], out: Path, weights: Mapping[str, float] | None) -> dict[str, list[str]]:
    """Weight and prefix of every dataset in turn, by Megatron's name of the split; weights add up to 1."""
    mixture: dict[str, list[str]] = {}
    for split, theirs in SPLITS.items():
        here = [name for name in datasets if _kind(name)[1] == split]
        share = {name: weights[_kind(name)[0]] if weights else datasets[name]["tokens"] for name in here}
        for name in here:
            mixture.setdefault(theirs, []).extend([f"{share[name] / sum(share.values()):.6g}", f"{out / name}{SUFFIX}"])
    if "train" not in mixture:
        raise CorpusError("there is no training split among the corpora")
    return mixture
