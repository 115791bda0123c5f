"""What a hub folder must hold for transformers, vLLM and llama.cpp's own conversion; judged from its files alone.

vLLM is not run: it takes a GPU or an hour of compiling. What it asks of a folder is known: a row for every token id, a
matrix as large as the config says, the fields that size its cache. It pads rows to 64 itself as it loads.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraft.base import tokenizer_size
from langgraft.errors import ModelError
from langgraft.exporting.gguf_families import HEAD
from langgraft.exporting.gguf_spm import scores_of_model
from langgraft.exporting.gguf_vocab import is_spm, read_vocabulary, special_ids, tokens_and_types
from langgraft.exporting.weights import Weights, open_weights, same_tensor
from langgraft.rebuilt import model_bytes
from langgraft.store import read_json
from langgraft.tokenizer.spm_model import MODEL

ROWS = 64
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_HEADS = (HEAD, "embed_out.weight")
_FIELDS = ("hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings")


def folder_gates(folder: Path, *, model_file: bool = True) -> list[dict[str, Any]]:
    """Every check on a hub folder: `name, passed, value, bound, detail`.

    Args:
        model_file: whether a SentencePiece tokenizer must have its tokenizer.model; what is there must fit either way.

    Raises:
        ModelError: the folder lacks its config, tokenizer or weights, or a file is damaged.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    document = read_json(folder / "tokenizer.json")
    weights = open_weights(folder)
    checks: tuple[Callable[..., dict[str, Any]], ...] = (_rows, _padding, _head, _special, _added, _fields)
    gates = [check(folder, config, document, weights) for check in checks]
    spm = is_spm(document) and (model_file or (folder / MODEL).is_file())
    return [*gates, *([_spm(folder, document)] if spm else [])]


def is_hub_folder(folder: Path) -> bool:
    """Whether these checks are for a folder: it has a config and safetensors weights, and not those of ONNX."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def adapter_gates(new_rows: int) -> list[dict[str, Any]]:
    """What servers make of an adapter: those with rows of their own are refused by vLLM and llama.cpp."""
    value = f"{new_rows:,} rows of new tokens, which vLLM and llama.cpp refuse in an adapter: serve `--to merged`"
    name = "vLLM and llama.cpp take the adapter as it is"
    return [_gate(name, True, value if new_rows else "LoRA alone", bound="none" if new_rows else "0 rows")]


def _gate(name: str, passed: bool, value: str, *, bound: str = "all", detail: str = "") -> dict[str, Any]:
    return {"name": name, "passed": passed, "value": value, "bound": bound, "detail": detail}


def embedding_of(weights: Weights) -> str | None:
    """Name of the tensor that holds the embedding matrix, where it goes by one of the usual names."""
    found = (name for name in weights.shapes for end in _EMBEDDINGS if name == end or name.endswith("." + end))
    return min(found, key=len, default=None)


def _rows(_folder: Path, config: dict[str, Any], document: dict[str, Any], weights: Weights) -> dict[str, Any]:
    name = "a row for every token, as many as config.json says"
    tokens, embedding, said = tokenizer_size(document), embedding_of(weights), config.get("vocab_size")
    rows = weights.shapes[embedding][0] if embedding else said
    heads = [head for head in _HEADS if head in weights.shapes and weights.shapes[head][0] != rows]
    value = f"{tokens:,} tokens, {rows:,} rows" if rows is not None else f"{tokens:,} tokens, no vocab_size"
    if rows != said:
        value += f", vocab_size {said}"
    if heads:
        value += f", {heads[0]} has {weights.shapes[heads[0]][0]:,} rows"
    return _gate(name, rows is not None and tokens <= rows == said and not heads, value)


def _padding(_folder: Path, config: dict[str, Any], _document: dict[str, Any], _weights: Weights) -> dict[str, Any]:
    """A note, since vLLM pads by itself: rows that split evenly need no copy, on any number of devices."""
    rows = config.get("vocab_size") or 0
    even = rows % ROWS == 0
    value = f"{rows:,} rows" + ("" if even else f", no multiple of {ROWS}: `langgraft surgery --pad-to {ROWS}`")
    return _gate(f"rows are a multiple of {ROWS}", True, value, bound="all" if even else "none")


def _head(folder: Path, config: dict[str, Any], _document: dict[str, Any], weights: Weights) -> dict[str, Any]:
    name = "the head is tied, or not, as config.json says"
    embedding = embedding_of(weights)
    stored = next((head for head in _HEADS if head in weights.shapes), None)
    tied = config.get("tie_word_embeddings")
    if tied is None:
        from transformers import AutoConfig

        tied = AutoConfig.from_pretrained(folder).tie_word_embeddings
    if not tied:
        value = f"{stored} is its own" if stored else "not tied, and there is no head among the tensors"
        return _gate(name, stored is not None, value)
    if stored is None or embedding is None:
        return _gate(name, True, "tied, stored once")
    with weights.reader() as read:
        same = same_tensor(weights, read, stored, embedding)
    value = "tied, stored twice" if same else f"tied, but {stored} differs from {embedding} and would be lost"
    return _gate(name, same, value)


def _ids(values: dict[str, Any], key: str) -> list[int]:
    found = values.get(key)
    return [i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int)]


def _special(folder: Path, config: dict[str, Any], document: dict[str, Any], _weights: Weights) -> dict[str, Any]:
    """The tokenizer's bos and eos are ones that the model's configs name, and every named id has a token."""
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    named, size, wrong = special_ids(folder, document), tokenizer_size(document), []
    for kind in ("bos", "eos"):
        key = f"{kind}_token_id"
        known = [*_ids(config, key), *_ids(generation, key)]
        wrong += [f"{kind} is {i}, beyond the last token {size - 1}" for i in known if i >= size]
        if kind in named and known and named[kind] not in known:
            listed = ", ".join(str(i) for i in dict.fromkeys(known))
            wrong.append(f"{kind} is {named[kind]} in the tokenizer and {listed} in the model's config")
    said = ", ".join(f"{kind} {i}" for kind, i in named.items()) or "none named"
    return _gate("special ids agree in every file", not wrong, "; ".join(wrong) or said)


def _added(folder: Path, _config: dict[str, Any], document: dict[str, Any], _weights: Weights) -> dict[str, Any]:
    """tokenizer_config.json lists added tokens again; another id there is another token for some loaders."""
    path = folder / "tokenizer_config.json"
    listed = (read_json(path) if path.is_file() else {}).get("added_tokens_decoder") or {}
    texts = {str(token["id"]): token["content"] for token in document.get("added_tokens", [])}
    vocab = document["model"].get("vocab") or {}
    if isinstance(vocab, dict):
        known = {**{str(i): text for text, i in vocab.items()}, **texts}
    else:
        known = {**{str(i): entry[0] for i, entry in enumerate(vocab)}, **texts}
    wrong = [
        f"{i} is {entry['content']!r} and {known.get(i)!r}"
        for i, entry in listed.items()
        if known.get(i) != entry["content"]
    ]
    value = "; ".join(wrong[:3]) or f"{len(listed)} tokens"
    return _gate("tokenizer_config.json and tokenizer.json list the same added tokens", not wrong, value)


def _fields(_folder: Path, config: dict[str, Any], _document: dict[str, Any], _weights: Weights) -> dict[str, Any]:
    names = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers"}
    names |= {"n_positions": "max_position_embeddings", "n_ctx": "max_position_embeddings"}
    present = {names.get(key, key) for key, value in config.items() if value is not None}
    missing = [key for key in ("architectures", "model_type", *_FIELDS) if key not in present]
    value = f"missing: {', '.join(missing)}" if missing else "all there"
    return _gate("config.json has the fields that vLLM needs", not missing, value)


def _spm(folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Conversion by llama.cpp and old loaders read tokenizer.model, and fall back to other ids without it."""
    name = f"{MODEL} holds the pieces of tokenizer.json"
    path = folder / MODEL
    if not path.is_file():
        return _gate(name, False, f"there is no {MODEL}, without which llama.cpp's conversion cuts text otherwise")
    try:
        tokens, types, _ = tokens_and_types(document, folder / "tokenizer.json")
        count = len(scores_of_model(path, tokens, types))
    except ModelError as error:
        return _gate(name, False, str(error))
    return _gate(name, True, f"{count:,} pieces and added tokens")


def made_model(folder: Path) -> bytes:
    """A tokenizer.model for a SentencePiece BPE tokenizer.json that came without: scores in the order of its merges.

    Raises:
        ModelError: SentencePiece cannot do what the tokenizer does.
    """
    vocabulary = read_vocabulary(folder)
    special = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return model_bytes(
        {
            "tokenizer.ggml.tokens": vocabulary.tokens,
            "tokenizer.ggml.scores": vocabulary.scores,
            "tokenizer.ggml.token_type": vocabulary.types,
            "tokenizer.ggml.add_space_prefix": vocabulary.add_space_prefix,
            **{f"tokenizer.ggml.{special[name]}_token_id": i for name, i in vocabulary.special.items()},
        }
    )
