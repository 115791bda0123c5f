"""`python kill_at.py MOMENT ARGUMENT…`: run the command line, and die by a signal at that moment.

One function of langgraft is replaced in this process; langgraft itself has no hooks for it.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

MOMENT, ARGUMENTS = sys.argv[1], sys.argv[2:]
# A shell that starts the tests in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def die(number: int = signal.SIGKILL) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def before_call(module: Any, name: str, count: int, number: int = signal.SIGKILL) -> None:
    """Die when `module.name` is called for the `count`th time, before it does anything."""
    original: Callable[..., Any] = getattr(module, name)
    calls = 0

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            die(number)
        return original(*args, **kwargs)

    setattr(module, name, replaced)


def in_corpus() -> None:
    """While documents are being cleaned."""
    from langgraft.corpus import clean

    before_call(clean, "normalise", 30)


def in_corpus_interrupted() -> None:
    """Ctrl-C at the same place."""
    from langgraft.corpus import clean

    before_call(clean, "normalise", 30, signal.SIGINT)


def in_tokenizer() -> None:
    """Merges are learned, and not yet written."""
    from langgraft.tokenizer import extend

    before_call(extend, "write_tokenizer", 1)


def in_pretrain() -> None:
    """Third step, before any checkpoint."""
    from langgraft.training.loop import _Run

    before_call(_Run, "_step", 3)


def in_pretrain_interrupted() -> None:
    """Ctrl-C in the third step."""
    from langgraft.training.loop import _Run

    before_call(_Run, "_step", 3, signal.SIGINT)


def in_checkpoint() -> None:
    """Second checkpoint: tensors are written, the rest and the manifest are not."""
    from langgraft.training import checkpoint

    # One checkpoint is two JSON values and the manifest.
    before_call(checkpoint, "write_json", 4)


def in_export() -> None:
    """Half of a GGUF file's tensors are written; without llama.cpp, the hub folder's files are."""
    from langgraft.exporting import formats, gguf_writer

    original = gguf_writer._write

    def half(writer: Any, tensors: list[Any]) -> None:
        original(writer, tensors[: len(tensors) // 2])
        die()

    gguf_writer._write = half
    if not any("gguf" in line and line.startswith("to =") for line in open(ARGUMENTS[1], encoding="utf-8")):  # noqa: SIM115
        before_call(formats, "_same_weights", 1)


globals()[MOMENT]()
sys.argv = ["langgraft", *ARGUMENTS]
from langgraft.cli import main  # noqa: E402

main()
