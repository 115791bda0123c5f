"""Greedy continuations of the same prompts by base and adapted model, and the language they are written in."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langgraft.base import separator_id
from langgraft.corpus.langid import Identifier
from langgraft.evaluation.prompts import Prompt
from langgraft.progress import Log
from langgraft.text import script_shares
from langgraft.tokenizer.files import load


def continuations(
    folder: Path,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 60,
    no_repeat: int = 3,
    device: str = "auto",
    threads: int = 0,
) -> list[str]:
    """Continue each prompt greedily, after the document separator; returns the new text only.

    Repeating a sequence of `no_repeat` tokens is forbidden (0 allows it): small models otherwise loop in any language.
    """
    import torch

    from langgraft.training.device import choose_device, load_model, set_threads

    if not prompts:
        return []
    set_threads(threads)
    where = choose_device(device)
    model = load_model(folder, where)
    tokenizer, separator = load(folder), separator_id(folder)
    texts = []
    for prompt in prompts:
        ids = torch.tensor([[separator, *tokenizer.encode(prompt, add_special_tokens=False).ids]], device=where)
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                no_repeat_ngram_size=no_repeat,
                pad_token_id=separator,
                eos_token_id=separator,
            )
        texts.append(tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True))
    return texts


def side_by_side(
    folders: Mapping[str, Path],
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 60,
    device: str = "auto",
    threads: int = 0,
    log: Log | None = None,
) -> list[dict[str, Any]]:
    """What each model writes after each prompt, and whether that is in the prompt's language.

    Args:
        folders: name in the report (see `words.MODELS`) -> hub folder, such as `{"base": ..., "adapted": ...}`.

    Returns:
        per prompt `language`, `prompt`, `kind` and `english` where it has them, the continuation under each
        model's name, and `written_in`: per model `{"language", "right"}` (see `written_in`).
    """
    found: list[dict[str, Any]] = [{"language": prompt.language, "prompt": prompt.text} for prompt in prompts]
    for entry, prompt in zip(found, prompts, strict=True):
        entry.update({key: value for key in ("kind", "english") if (value := getattr(prompt, key))})
    for name, folder in folders.items():
        if log:
            log.say(f"side by side: {len(prompts)} prompts, {name}")
        texts = continuations(
            folder, [p.text for p in prompts], max_new_tokens=max_new_tokens, device=device, threads=threads
        )
        for entry, text in zip(found, texts, strict=True):
            entry[name] = text
            entry.setdefault("written_in", {})[name] = written_in(text, entry["language"])
    return found


def written_in(text: str, code: str) -> dict[str, Any]:
    """The language `text` looks like, and whether it is `code`; `right` is None where no letter tells.

    Judged as the corpus is (`langgraft.corpus.langid.Identifier`): only a clear contradiction is wrong.
    """
    if not script_shares(text):
        return {"language": None, "right": None}
    verdict = _identifier(code).check(text)
    return {"language": verdict.language or None, "right": verdict.keep}


@functools.lru_cache(maxsize=8)
def _identifier(code: str) -> Identifier:
    return Identifier(code)
