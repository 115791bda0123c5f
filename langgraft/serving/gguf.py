"""A GGUF file on llama.cpp: several texts side by side, each remembered from one call to the next."""

import ctypes
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraft.errors import ModelError
from langgraft.exporting.llamacpp import open_gguf
from langgraft.serving.model import shared

if TYPE_CHECKING:
    import numpy as np

BATCH = 512  # tokens llama.cpp reads at once
LONGEST_DEFAULT = 4096  # tokens of context where nobody asked for more: memory grows with it


class _Place(NamedTuple):
    """A token to read, where it stands, and whether the logits after it are wanted."""

    token: int
    position: int
    slot: int
    wanted: bool


class GgufModel:
    """See `langgraft.serving.model.LanguageModel`."""

    backend = "llama.cpp"

    def __init__(self, path: Path, *, context: int = 0, slots: int = 1, threads: int = 1) -> None:
        self._stack = ExitStack()
        # llama.cpp must go before the interpreter does, whether or not anybody calls `close`.
        self._finalizer = weakref.finalize(self, self._stack.close)
        self._file = self._stack.enter_context(open_gguf(path))
        self._lib, self._vocab = self._file.lib, self._file.vocab
        trained = int(self._lib.llama_model_n_ctx_train(self._file.model))
        self.context = min(context, trained) if context else min(trained, LONGEST_DEFAULT)
        self.tokens, self.slots = self._file.tokens, slots
        self.template = self._text("tokenizer.chat_template")
        bos, eos = self._lib.llama_vocab_bos(self._vocab), self._lib.llama_vocab_eos(self._vocab)
        self.special = {"bos_token": self.name_of(bos), "eos_token": self.name_of(eos)}
        separator = self.encode("<|endoftext|>", chat=True)
        self.first = separator if len(separator) == 1 else [bos if bos >= 0 else max(eos, 0)]
        self.spaced = self._text("tokenizer.ggml.model") == "llama"
        self._held: list[list[int]] = [[] for _ in range(slots)]
        self._context = self._start(path, threads)

    def _start(self, path: Path, threads: int) -> Any:
        params = self._lib.llama_context_default_params()
        # Room is given out in steps of 256 positions.
        params.n_ctx = -(-self.context // 256) * 256 * self.slots
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = self.slots
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = threads
        context = self._lib.llama_init_from_model(self._file.model, params)
        if not context:
            raise ModelError(
                f"llama.cpp cannot make room for {self.slots} texts of {self.context:,} tokens of {path}; "
                "give a smaller --context or fewer --slots"
            )
        self._stack.callback(self._lib.llama_free, context)
        return context

    def _text(self, key: str) -> str | None:
        """A text of the file's metadata."""
        room = 1
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            length = self._lib.llama_model_meta_val_str(self._file.model, key.encode(), buffer, room)
            if length < 0:
                return None
            room = length + 1
        return buffer.value.decode("utf-8", "replace")

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Ids of a text; a chat brings its own first token."""
        return self._file.tokenize(text, special=True, add_special=not chat)

    def _piece(self, token: int, *, special: bool) -> bytes:
        if token < 0:
            return b""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self._lib.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; special tokens stand for nothing."""
        return self._piece(token, special=False)

    def name_of(self, token: int) -> str:
        """A token as people read it."""
        return self._piece(token, special=True).decode("utf-8", "replace")

    def ends(self, token: int) -> bool:
        """Whether llama.cpp counts it among the ends of a text or a turn."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def remembered(self, slot: int) -> list[int]:
        """The ids a slot holds."""
        return self._held[slot]

    def logits(self, ids: list[int], slot: int = 0) -> "np.ndarray":
        """Logits after the last token."""
        return self.next_logits({slot: ids})[slot]

    def next_logits(self, texts: "dict[int, list[int]]") -> "dict[int, np.ndarray]":
        """Logits after the last token of several slots' texts; llama.cpp reads them in one batch."""
        places = []
        for slot, ids in texts.items():
            known = min(shared(self._held[slot], ids), len(ids) - 1)
            if known < len(self._held[slot]):
                known = self._forget(slot, known)
            places += [_Place(ids[i], i, slot, i == len(ids) - 1) for i in range(known, len(ids))]
        found: dict[tuple[int, int], np.ndarray] = {}
        for start in range(0, len(places), BATCH):
            found |= self._decode(places[start : start + BATCH])
        for slot, ids in texts.items():
            self._held[slot] = list(ids)
        return {slot: found[slot, len(ids) - 1] for slot, ids in texts.items()}

    def all_logits(self, ids: list[int], slot: int = 0) -> "np.ndarray":
        """Logits after every token."""
        import numpy as np

        self._forget(slot, 0)
        places = [_Place(token, i, slot, True) for i, token in enumerate(ids)]
        rows: list[np.ndarray] = []
        for start in range(0, len(ids), BATCH):
            rows += self._decode(places[start : start + BATCH]).values()
        self._held[slot] = list(ids)
        return np.stack(rows)

    def _forget(self, slot: int, keep: int) -> int:
        """Forget a slot's tokens from `keep` on; returns how many are left (recurrent models forget all)."""
        memory = self._lib.llama_get_memory(self._context)
        if not self._lib.llama_memory_seq_rm(memory, slot, keep, -1):
            self._lib.llama_memory_seq_rm(memory, slot, -1, -1)
            keep = 0
        self._held[slot] = self._held[slot][:keep]
        return keep

    def _decode(self, places: "list[_Place]") -> "dict[tuple[int, int], np.ndarray]":
        """Read tokens; returns the logits that are wanted, by slot and position."""
        import numpy as np

        batch = self._lib.llama_batch_init(len(places), 0, 1)
        try:
            batch.n_tokens = len(places)
            for i, place in enumerate(places):
                batch.token[i], batch.pos[i] = place.token, place.position
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, place.slot
                batch.logits[i] = place.wanted
            code = self._lib.llama_decode(self._context, batch)
        finally:
            self._lib.llama_batch_free(batch)
        if code != 0:
            for slot in {place.slot for place in places}:
                self._lib.llama_memory_seq_rm(self._lib.llama_get_memory(self._context), slot, -1, -1)
                self._held[slot] = []
            raise ModelError(f"llama.cpp failed on a text of {places[-1].position + 1:,} tokens (code {code})")
        return {
            (place.slot, place.position): np.ctypeslib.as_array(
                self._lib.llama_get_logits_ith(self._context, i), shape=(self.tokens,)
            ).copy()
            for i, place in enumerate(places)
            if place.wanted
        }

    def close(self) -> None:
        """Free what llama.cpp holds."""
        self._finalizer()
