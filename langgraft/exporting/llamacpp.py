"""llama.cpp through the low-level functions of llama-cpp-python: tokenize, and logits at every position."""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from langgraft.errors import InputError, LanggraftError, ModelError

if TYPE_CHECKING:
    import numpy as np

_state: dict[str, Any] = {}
_said: list[str] = []
_KEPT_LINES = 50


def library() -> ModuleType:
    """The `llama_cpp` package, with its chatter kept off the terminal.

    Raises:
        LanggraftError: it is not installed.
    """
    if "module" in _state:
        return _state["module"]
    try:
        import llama_cpp
    except ImportError as error:
        raise LanggraftError(
            "checking a GGUF file needs llama-cpp-python, which is not installed; "
            "run `pip install 'langgraft[llamacpp]'`"
        ) from error

    def listen(_level: int, text: bytes, _data: Any) -> None:
        _said.append(text.decode("utf-8", "replace"))
        del _said[:-_KEPT_LINES]

    # The callback must outlive every call into the library, so it is kept here.
    _state["callback"] = llama_cpp.llama_log_callback(listen)
    llama_cpp.llama_log_set(_state["callback"], ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    _state["module"] = llama_cpp
    return llama_cpp


def last_words() -> str:
    """What llama.cpp said about an error just before it failed."""
    lines = [line.strip() for line in "".join(_said).splitlines() if line.strip()]
    telling = [line for line in lines if ": error" in line or "failed" in line]
    return (telling or lines[-1:] or ["it gave no reason"])[0]


class LlamaCpp:
    """A GGUF file opened in llama.cpp; use `open_gguf`."""

    def __init__(self, module: ModuleType, model: Any, path: Path) -> None:
        self.lib, self.model, self.path = module, model, path
        self.vocab = module.llama_model_get_vocab(model)
        self._context: Any = None
        self.tokens: int = module.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text: str, *, special: bool = False, add_special: bool = False) -> list[int]:
        """Ids of a text; `special` parses special tokens, `add_special` adds bos or eos as the file says.

        Raises:
            InputError: llama.cpp gave up on the text.
        """
        data = text.encode("utf-8")
        room = len(data) + 8
        buffer = (self.lib.llama_token * room)()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), buffer, room, add_special, special)
        if count < 0:
            raise InputError(f"llama.cpp could not tokenize {text[:60]!r}")
        return list(buffer[:count])

    def start(self, positions: int, threads: int) -> None:
        """Make room for texts of up to `positions` tokens.

        Raises:
            ModelError: llama.cpp could not set up its memory.
        """
        params = self.lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = positions
        params.n_threads = params.n_threads_batch = threads
        self._context = self.lib.llama_init_from_model(self.model, params)
        if not self._context:
            raise ModelError(f"llama.cpp could not run {self.path}: {last_words()}")

    def logits(self, ids: Sequence[int]) -> "np.ndarray":
        """Logits at every position of a text: float32, shape (len(ids), tokens). Call `start` first.

        Raises:
            ModelError: llama.cpp failed on the text.
        """
        import numpy as np

        lib = self.lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        batch = lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i] = token, i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
            code = lib.llama_decode(self._context, batch)
            if code != 0:
                raise ModelError(f"llama.cpp failed on a text of {len(ids)} tokens (code {code}): {last_words()}")
            pointer = lib.llama_get_logits(self._context)
            return np.ctypeslib.as_array(pointer, shape=(len(ids), self.tokens)).copy()
        finally:
            lib.llama_batch_free(batch)

    def close(self) -> None:
        """Free what llama.cpp holds."""
        if self._context:
            self.lib.llama_free(self._context)
            self._context = None
        self.lib.llama_model_free(self.model)


@contextlib.contextmanager
def open_gguf(path: Path, *, vocab_only: bool = False, pre: str | None = None) -> Iterator[LlamaCpp]:
    """Open a GGUF file on the CPU.

    Args:
        vocab_only: read the tokenizer and no weights.
        pre: use this pre-tokenizer in place of the file's `tokenizer.ggml.pre`.

    Raises:
        LanggraftError: llama-cpp-python is not installed.
        ModelError: the file does not exist or llama.cpp refuses it.
    """
    module = library()
    if not Path(path).is_file():
        raise ModelError(f"{path} does not exist")
    params = module.llama_model_default_params()
    params.n_gpu_layers = 0
    params.vocab_only = vocab_only
    if pre is not None:
        override = (module.llama_model_kv_override * 2)()  # the second one, empty, ends the list
        override[0].key, override[0].tag = b"tokenizer.ggml.pre", module.LLAMA_KV_OVERRIDE_TYPE_STR
        override[0].value.val_str = pre.encode("utf-8")
        params.kv_overrides = override
    _said.clear()
    handle = module.llama_model_load_from_file(str(path).encode("utf-8"), params)
    if not handle:
        raise ModelError(f"llama.cpp cannot load {path}: {last_words()}")
    opened = LlamaCpp(module, handle, Path(path))
    try:
        yield opened
    finally:
        opened.close()
