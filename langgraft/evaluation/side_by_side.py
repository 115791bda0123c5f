"""Greedy continuations of the same prompts by base and adapted model."""

from collections.abc import Sequence
from pathlib import Path

from langgraft.base import separator_id
from langgraft.tokenizer.files import load


def continuations(
    folder: Path, prompts: Sequence[str], *, max_new_tokens: int = 60, device: str = "auto", threads: int = 0
) -> list[str]:
    """Continue each prompt greedily, after the document separator; returns the new text only.

    Repeating a three-token sequence is forbidden, as small models otherwise loop in any language.
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
                no_repeat_ngram_size=3,
                pad_token_id=separator,
                eos_token_id=separator,
            )
        texts.append(tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True))
    return texts
