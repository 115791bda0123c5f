"""A model that writes one token for ever, whatever it is asked: for answers whose end is known beforehand."""

from pathlib import Path

import torch
from pico import pico_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer


def constant_model(folder: Path, piece: str) -> Path:
    """Write a pico model that says nothing but `piece`, a token of its vocabulary."""
    pico_model(folder, tie=False)
    token = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(piece)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()  # what a layer adds to the hidden state
    weights["model.embed_tokens.weight"] = torch.ones_like(weights["model.embed_tokens.weight"])
    weights["lm_head.weight"] = torch.zeros_like(weights["lm_head.weight"])
    weights["lm_head.weight"][token] = 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
