"""Proof that a hub folder needs nothing of ours: a fresh process loads it with plain transformers."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraft.base import embedding_rows, separator_id
from langgraft.errors import InputError, ModelError
from langgraft.exporting.gguf_vocab import load_tokenizer
from langgraft.store import read_json

_CHILD = Path(__file__).with_name("_reload_child.py")


def reload_check(
    folder: Path,
    *,
    texts: Sequence[str],
    prefix_id: int | None = None,
    window: int = 2048,
    timeout: float = 3600,
) -> dict[str, Any]:
    """Load a hub folder in a process that cannot import langgraft; score texts and compare token ids.

    Bits per byte: the negative log2 likelihood of all tokens of a text, over its UTF-8 bytes. Every text
    stands after the prefix token, so that its first token is predicted too; texts longer than `window` (or
    than the model's context) are scored in windows that do not overlap, each after the prefix token.

    Args:
        prefix_id: the document separator; by default the one the tokenizer names.
        window: longest stretch of tokens the model sees at once, the prefix included.
        timeout: seconds until the process is given up.

    Returns:
        `ok`, `bits_per_byte` (over all texts), `bits_per_byte_each`, `bytes`, `tokens`, `ids_equal`,
        `differing` (numbers of the texts whose ids differ from tokenizer.json), `prefix_id`, `model_class`,
        `tokenizer_class`, `rows`, `missing`, `unexpected`, `mismatched` (names of weights), `chat_template`.
        `ok` means equal ids, no missing or mismatched weight, and an embedding as large as the config says.

    Raises:
        InputError: there is no text, an empty one, or `window` is below 2.
        ModelError: the folder does not load, or the prefix id has no row; the message gives the last line of
            the process.
        TokenizerError: no prefix id was given and the tokenizer names no end of sequence.
    """
    if not texts or not all(texts):
        raise InputError("the reload check needs at least one text, and no empty ones")
    if window < 2:
        raise InputError(f"a window of {window} tokens leaves no room for text after the prefix; give 2 or more")
    tokenizer = load_tokenizer(folder)
    prefix = separator_id(folder) if prefix_id is None else prefix_id
    rows = embedding_rows(folder)
    if not 0 <= prefix < rows:
        raise ModelError(f"prefix id {prefix} is outside the {rows:,} rows of {folder}")
    request = {
        "folder": str(Path(folder).resolve()),
        "texts": list(texts),
        "prefix_id": prefix,
        "window": window,
    }
    result = _run_child(folder, request, timeout)
    ours = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    return {**_judge(result, ours, texts, rows), "prefix_id": prefix}


def _judge(result: dict[str, Any], ours: list[list[int]], texts: Sequence[str], rows: int) -> dict[str, Any]:
    """What the process found, set against the ids of tokenizer.json and the rows that the config promises."""
    differing = [i for i, ids in enumerate(ours) if ids != result["ids"][i]]
    sizes = [len(text.encode("utf-8")) for text in texts]
    whole = not result["missing"] and not result["mismatched"] and result["rows"] == rows
    return {
        "ok": bool(result["blocked"]) and not differing and whole,
        "bits_per_byte": sum(result["bits"]) / sum(sizes),
        "bits_per_byte_each": [bits / size for bits, size in zip(result["bits"], sizes, strict=True)],
        "bytes": sum(sizes),
        "tokens": sum(len(ids) for ids in result["ids"]),
        "ids_equal": not differing,
        "differing": differing,
        **{name: result[name] for name in ("model_class", "tokenizer_class", "rows", "missing")},
        **{name: result[name] for name in ("unexpected", "mismatched", "chat_template")},
    }


def _run_child(folder: Path, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="reload-") as scratch:
        question, answer = Path(scratch) / "request.json", Path(scratch) / "result.json"
        question.write_text(json.dumps(request), encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(_CHILD), str(question), str(answer)],
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                cwd=scratch,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{folder} did not load and score within {timeout:g} s; give fewer texts") from error
        if done.returncode != 0 or not answer.is_file():
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1] if lines else f"exit status {done.returncode}"
            raise ModelError(f"{folder} does not load in plain transformers: {reason}")
        result: dict[str, Any] = read_json(answer)
        return result
