"""Proof that a GGUF file is the model it was made from: the same token ids, nearly the same probabilities."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from langgraft.errors import InputError, ModelError
from langgraft.exporting.gguf_vocab import load_tokenizer
from langgraft.exporting.llamacpp import LlamaCpp, open_gguf
from langgraft.exporting.parity_lines import parity_lines

__all__ = ["kl_divergence", "parity_lines", "quant_warning", "token_gate", "token_parity"]

SHOWN = 5
PROMPT, ANSWER = 16, 24  # tokens
FLIPS, ANSWERS_CHANGED = 0.05, 0.2
_POSITIONS_AT_ONCE = 64


def token_parity(model: Path, gguf: Path, lines: Sequence[str]) -> dict[str, Any]:
    """Compare token ids of a hub folder and of a GGUF file, line by line.

    The folder's ids come from tokenizer.json itself, not from a tokenizer class that may rebuild it. Neither
    side parses special tokens in the text or adds bos.

    Returns:
        `lines, tokens, mismatches, only_normalisation, special, equal, examples`; an example is `{line, hf, gguf,
        at}` with `at` the first differing position. `only_normalisation` counts mismatches that vanish once the
        line is normalised as the tokenizer does it (NFC), which llama.cpp does not. `special` names the added
        tokens that llama.cpp, asked to parse special tokens, does not give their own id.

    Raises:
        InputError: a line holds U+0000, where C strings end.
        LanggraftError: llama-cpp-python is not installed.
        ModelError: a file is missing or unusable.
    """
    tokenizer = load_tokenizer(model)
    tokenizer.encode_special_tokens = True
    total, mismatches, only_normalisation = 0, 0, 0
    examples: list[dict[str, Any]] = []
    with open_gguf(gguf, vocab_only=True) as other:
        special = [
            f"{token.content} ({number})"
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if other.tokenize(token.content, special=True) != [number]
        ]
        for number, line in enumerate(lines):
            if "\0" in line:
                raise InputError(f"line {number + 1} of the parity text contains U+0000; leave such lines out")
            ours = tokenizer.encode(line, add_special_tokens=False).ids
            theirs = other.tokenize(line)
            total += len(ours)
            if ours == theirs:
                continue
            mismatches += 1
            if tokenizer.normalizer and other.tokenize(tokenizer.normalizer.normalize_str(line)) == ours:
                only_normalisation += 1
            if len(examples) < SHOWN:
                examples.append(_example(line, ours, theirs))
    return {
        "lines": len(lines),
        "tokens": total,
        "mismatches": mismatches,
        "only_normalisation": only_normalisation,
        "special": special,
        "equal": mismatches == 0 and not special,
        "examples": examples,
    }


def token_gate(found: dict[str, Any], quant: str = "", *, accept_mismatch: float = 0.0) -> dict[str, Any]:
    """The gate on what `token_parity` found: special tokens keep their ids, at most a share of lines differs.

    Lines that differ only until they are normalised are told, not counted: every GGUF file of such a base has them.
    """
    differing, lines = found["mismatches"] - found["only_normalisation"], found["lines"]
    value = f"{differing:,} of {lines:,} lines differ"
    if found["only_normalisation"]:
        value += f", {found['only_normalisation']} more until they are normalised (NFC), which llama.cpp does not do"
    if found["special"]:
        value += f"; special tokens with other ids: {', '.join(found['special'])}"
    return {
        "name": "llama.cpp gives the same token ids" + (f" ({quant})" if quant else ""),
        "passed": differing <= accept_mismatch * lines and not found["special"],
        "value": value,
        "bound": f"{accept_mismatch:.1%} of lines" if accept_mismatch else "0",
        "detail": "",
    }


def _example(line: str, ours: list[int], theirs: list[int]) -> dict[str, Any]:
    at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(ours), len(theirs)) if at is None else at
    return {"line": line, "hf": ours, "gguf": theirs, "at": at}


def kl_divergence(
    model: Path,
    gguf: Path,
    texts: Sequence[str],
    *,
    max_tokens: int = 256,
    threads: int | None = None,
    answers: int = 0,
) -> dict[str, Any]:
    """KL(hub folder || GGUF file) of the next-token distribution at every position, in nats.

    The folder runs in float32; llama.cpp runs as its users run it. Both get the folder's ids, cut to
    `max_tokens` a text. Probabilities are over all tokens of the file; `dropped_probability` is the mean
    probability that the folder gives to padding rows, which the file does not have.

    Args:
        threads: threads for llama.cpp; as many as torch uses by default.
        answers: how many of the texts to continue greedily from their first 16 tokens, 24 tokens long, to see whether
            llama.cpp would have chosen the same tokens at every step.

    Returns:
        `texts, positions, mean, max, median, top1_agreement, dropped_probability, answers, answers_changed`.

    Raises:
        InputError: no text gives a token.
        LanggraftError: llama-cpp-python is not installed.
        ModelError: a file is missing or unusable.
    """
    import torch

    tokenizer = load_tokenizer(model)
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens] for text in texts]
    encoded = [ids for ids in encoded if ids]
    if not encoded:
        raise InputError("the divergence of two models needs at least one text that is not empty")
    divergences: list[float] = []
    agreed = 0
    dropped: list[float] = []
    changed = 0
    with open_gguf(gguf) as other:
        network = _load_network(model)
        room = max(*(len(ids) for ids in encoded), PROMPT + ANSWER) if answers else max(len(ids) for ids in encoded)
        other.start(room, threads or torch.get_num_threads())
        for ids in encoded:
            for kl, same, outside in _compare(network, other, ids):
                divergences.extend(kl)
                agreed += same
                dropped.extend(outside)
        for ids in encoded[:answers]:
            changed += _answers_otherwise(network, other, ids[:PROMPT])
    return {
        "texts": len(encoded),
        "positions": len(divergences),
        "mean": statistics.fmean(divergences),
        "max": max(divergences),
        "median": statistics.median(divergences),
        "top1_agreement": agreed / len(divergences),
        "dropped_probability": statistics.fmean(dropped),
        "answers": len(encoded[:answers]),
        "answers_changed": changed,
    }


def _answers_otherwise(network: Any, other: LlamaCpp, prompt: list[int]) -> bool:
    """Whether llama.cpp, led along the folder's greedy answer, would leave it at any step."""
    import torch

    answer: list[int] = []
    cache, step = None, torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(ANSWER):
            out = network(step, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            answer.append(int(out.logits[0, -1, : other.tokens].argmax()))
            step = torch.tensor([answer[-1:]])
    theirs = other.logits([*prompt, *answer[:-1]])[len(prompt) - 1 :].argmax(axis=-1)
    return bool((theirs != answer).any())


def quant_warning(quant: str, found: dict[str, Any]) -> str | None:
    """What to say of a file that often answers otherwise than the folder, or None; `found` as `kl_divergence` gives it.

    Said where another token is the most likely one at over 5% of positions, or over a fifth of the answers change.
    """
    flips = 1 - found["top1_agreement"]
    if flips <= FLIPS and found["answers_changed"] <= ANSWERS_CHANGED * found["answers"]:
        return None
    return (
        f"{quant} answers otherwise than the model: another token is the most likely one at {flips:.1%} of positions, "
        f"and {found['answers_changed']} of {found['answers']} short greedy answers change; take more bits where that "
        "matters"
    )


def _load_network(model: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    finally:
        if shown:
            logging.enable_progress_bar()


def _compare(network: Any, other: LlamaCpp, ids: list[int]) -> Iterator[tuple[list[float], int, list[float]]]:
    """Divergence, number of equal first choices and probability of padding rows, for blocks of positions."""
    import torch

    with torch.no_grad():
        ours = network(torch.tensor([ids])).logits[0]
    if ours.shape[1] < other.tokens:
        raise ModelError(f"the GGUF file has {other.tokens:,} tokens, the folder's model only {ours.shape[1]:,} rows")
    theirs = torch.from_numpy(other.logits(ids))
    for start in range(0, len(ids), _POSITIONS_AT_ONCE):
        block = slice(start, start + _POSITIONS_AT_ONCE)
        whole = torch.log_softmax(ours[block].double(), dim=-1)
        p = torch.log_softmax(ours[block, : other.tokens].double(), dim=-1)
        q = torch.log_softmax(theirs[block].double(), dim=-1)
        kl = (p.exp() * (p - q)).sum(dim=-1).clamp(min=0)
        same = int((p.argmax(dim=-1) == q.argmax(dim=-1)).sum())
        yield kl.tolist(), same, whole[:, other.tokens :].exp().sum(dim=-1).tolist()
