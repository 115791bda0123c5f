"""Runs alone in a fresh process: loads a hub folder with transformers and nothing of ours, and scores texts.

Usage: python -I _reload_child.py REQUEST.json RESULT.json. Not imported by the package.
"""

import importlib
import json
import math
import sys
from typing import Any

BLOCKED = "langgraft"


class Block:
    """An import finder that refuses our package, so that the folder must do without it."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        """Refuse `langgraft` and everything below it."""
        if name.split(".")[0] == BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked in this process", name=name)


def blocked() -> bool:
    """Whether importing our package fails."""
    try:
        importlib.import_module(BLOCKED)
    except ModuleNotFoundError:
        return True
    return False


def score(model: Any, ids: list[int], prefix: int, window: int) -> float:
    """Bits of all tokens of a text, each window of it after the prefix token."""
    import torch

    bits = 0.0
    for start in range(0, len(ids), window):
        part = ids[start : start + window]
        with torch.no_grad():
            logits = model(torch.tensor([[prefix, *part]])).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(part), reduction="sum")
        bits += float(losses) / math.log(2)
    return bits


def main(request_path: str, result_path: str) -> None:
    """Read the request, load the folder, write the result."""
    sys.meta_path.insert(0, Block())
    if not blocked():
        raise RuntimeError(f"{BLOCKED} can be imported here, so the check would prove nothing")
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    loaded: Any = AutoModelForCausalLM.from_pretrained(request["folder"], dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    model.eval()
    prefix = request["prefix_id"]
    window = min(request["window"], getattr(model.config, "max_position_embeddings", request["window"])) - 1
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in request["texts"]]
    result = {
        "blocked": blocked(),
        "ids": ids,
        "bits": [score(model, one, prefix, window) for one in ids],
        "model_class": type(model).__name__,
        "tokenizer_class": type(tokenizer).__name__,
        "rows": model.get_input_embeddings().weight.shape[0],
        "missing": sorted(str(name) for name in info["missing_keys"]),
        "unexpected": sorted(str(name) for name in info["unexpected_keys"]),
        "mismatched": sorted(str(name) for name in info["mismatched_keys"]),
        "chat_template": bool(tokenizer.chat_template),
    }
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
