"""A hub folder or an adapter on transformers: several texts side by side, remembered from one call to the next."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.base import adapter_folder, end_ids, separator_id
from langgraft.errors import ModelError
from langgraft.serving.model import shared
from langgraft.store import read_json
from langgraft.tokenizer.files import is_byte_level, load, piece_bytes, token_bytes
from langgraft.tokenizer.prove import check_pin
from langgraft.tokenizer.template import special_of, template_of

if TYPE_CHECKING:
    import numpy as np
    import torch

LONGEST_DEFAULT = 4096  # tokens of context where nobody asked for more: memory grows with it


class HubModel:
    """See `langgraft.serving.model.LanguageModel`."""

    backend = "transformers"

    def __init__(self, folder: Path, *, context: int = 0, slots: int = 1, threads: int = 1, device: str = "auto"):
        import torch

        from langgraft.training.device import choose_device

        torch.set_num_threads(threads)
        if (folder / "langgraft_tokenizer_pin.json").is_file():
            check_pin(folder)
        self._tokenizer = load(folder)
        self._read_tokenizer(folder)
        self._device = choose_device(device)
        self._model = _load(folder, self._device)
        self._forward = inspect.signature(self._model.forward).parameters
        text = self._model.config.get_text_config()
        trained = getattr(text, "max_position_embeddings", None) or LONGEST_DEFAULT
        self.context = min(context, trained) if context else min(trained, LONGEST_DEFAULT)
        self.tokens, self.slots = int(text.vocab_size), slots
        self._held: list[list[int]] = [[] for _ in range(slots)]
        self._caches: list[Any] = [None] * slots
        ids = set(self._tokenizer.get_vocab(with_added_tokens=True).values())
        self._empty = [i for i in range(self.tokens) if i not in ids]
        self.first = [separator_id(folder)]

    def _read_tokenizer(self, folder: Path) -> None:
        data = read_json(folder / "tokenizer.json")
        self.template, self.special = template_of(folder), special_of(folder)
        self.spaced = not is_byte_level(data)
        self._spell = token_bytes if is_byte_level(data) else piece_bytes
        self._added = {token["id"]: token for token in data.get("added_tokens", [])}
        self._ends = end_ids(folder)

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Ids of a text; a chat brings its own first token."""
        return list(self._tokenizer.encode(text, add_special_tokens=not chat).ids)

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; special tokens stand for nothing."""
        added = self._added.get(token)
        if added is not None:
            return b"" if added["special"] else added["content"].encode("utf-8")
        name = self._tokenizer.id_to_token(token)
        return self._spell(name) if name is not None else b""

    def name_of(self, token: int) -> str:
        """A token as people read it."""
        added = self._added.get(token)
        return added["content"] if added is not None else self.bytes_of(token).decode("utf-8", "replace")

    def ends(self, token: int) -> bool:
        """Whether generation config, tokenizer or custom make it the end of a text or a turn."""
        return token in self._ends

    def remembered(self, slot: int) -> list[int]:
        """The ids a slot holds."""
        return self._held[slot]

    def logits(self, ids: list[int], slot: int = 0) -> "np.ndarray":
        """Logits after the last token."""
        known = min(shared(self._held[slot], ids), len(ids) - 1)
        cache = self._caches[slot]
        if known < len(self._held[slot]):
            known, cache = _crop(cache, known)
        self._held[slot], self._caches[slot] = [], None  # should the model fail, the slot is empty
        found, cache = self._run(ids[known:], cache, last=True)
        self._held[slot], self._caches[slot] = list(ids), cache
        return found[-1]

    def next_logits(self, texts: "dict[int, list[int]]") -> "dict[int, np.ndarray]":
        """One after the other: their remembered states have different lengths."""
        return {slot: self.logits(ids, slot) for slot, ids in texts.items()}

    def all_logits(self, ids: list[int], slot: int = 0) -> "np.ndarray":
        """Logits after every token."""
        self._held[slot], self._caches[slot] = [], None
        found, cache = self._run(ids, None, last=False)
        self._held[slot], self._caches[slot] = list(ids), cache
        return found

    def _run(self, ids: list[int], cache: Any, *, last: bool) -> "tuple[np.ndarray, Any]":
        import torch

        options: dict[str, Any] = {"logits_to_keep": 1} if last and "logits_to_keep" in self._forward else {}
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([ids], device=self._device), past_key_values=cache, use_cache=True, **options
            )
            rows = out.logits[0, -1:] if last else out.logits[0]
            found = rows.float().cpu().numpy()
        if self._empty:
            found[:, self._empty] = -float("inf")  # padding rows
        return found, out.past_key_values

    def close(self) -> None:
        """Forget every text."""
        self._caches = [None] * self.slots
        self._held = [[] for _ in range(self.slots)]


def _load(folder: Path, device: "torch.device") -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from langgraft.training.device import choose_dtype

    if adapter_folder(str(folder)) is not None:
        from langgraft.training.adapter import load_adapter

        return load_adapter(folder, merge=True, device=str(device)).to(choose_dtype("auto", device)).eval()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=choose_dtype("auto", device))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{folder} cannot be loaded: {first}") from error
    return model.to(device).eval()


def _crop(cache: Any, keep: int) -> tuple[int, Any]:
    """A cache cut to `keep` tokens; none where it cannot be cut (sliding windows, recurrent states)."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if keep and isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.crop(keep - cache.get_seq_length())  # negative: how many tokens to remove
        return keep, cache
    return 0, None
