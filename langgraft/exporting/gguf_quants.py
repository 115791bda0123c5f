"""The number formats of GGUF files: those we write ourselves, and llama.cpp's k-quants, which it makes from f16."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from langgraft.errors import ModelError
from langgraft.store import staged_file

# our name -> (GGMLQuantizationType, LlamaFileType)
TYPES: dict[str, tuple[str, str]] = {
    "f32": ("F32", "ALL_F32"),
    "f16": ("F16", "MOSTLY_F16"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
    "q5_1": ("Q5_1", "MOSTLY_Q5_1"),
    "q5_0": ("Q5_0", "MOSTLY_Q5_0"),
    "q4_1": ("Q4_1", "MOSTLY_Q4_1"),
    "q4_0": ("Q4_0", "MOSTLY_Q4_0"),
}
# our name -> LlamaFileType; blocks of 256 numbers, mixed by llama.cpp layer by layer
K_QUANTS: dict[str, str] = {
    "q6_k": "MOSTLY_Q6_K",
    "q5_k_m": "MOSTLY_Q5_K_M",
    "q5_k_s": "MOSTLY_Q5_K_S",
    "q4_k_m": "MOSTLY_Q4_K_M",
    "q4_k_s": "MOSTLY_Q4_K_S",
    "q3_k_l": "MOSTLY_Q3_K_L",
    "q3_k_m": "MOSTLY_Q3_K_M",
    "q2_k": "MOSTLY_Q2_K",
}
QUANTS = (*TYPES, *K_QUANTS)
BLOCK = 256


def quantise(source: Path, path: Path, quant: str, *, threads: int = 0) -> dict[str, Any]:
    """Make a k-quant from a GGUF file of 16 or 32 bits; `path` appears only when it is whole.

    Rows that are no multiple of 256 numbers do not divide into k-quant blocks; llama.cpp stores such tensors in a
    neighbouring format, which is told.

    Args:
        threads: CPU threads; 0 takes all.

    Returns:
        `bytes, fallback` (tensor -> type)`, types` (type -> how many matrices).

    Raises:
        LanggraftError: llama-cpp-python is not installed.
        ModelError: the format is unknown, or llama.cpp fails.
    """
    import gguf

    from langgraft.exporting.llamacpp import last_words, library

    if quant not in K_QUANTS:
        raise ModelError(f"unknown k-quant `{quant}`; choose from {', '.join(K_QUANTS)}")
    module = library()
    params = module.llama_model_quantize_default_params()
    params.ftype = int(gguf.LlamaFileType[K_QUANTS[quant]])
    params.nthread = threads or (os.cpu_count() or 1)
    with staged_file(path) as temporary:
        code = module.llama_model_quantize(os.fsencode(source), os.fsencode(temporary), params)
        if code != 0:
            raise ModelError(f"llama.cpp could not make {quant} of {source}: {last_words()}")
    found = {
        str(tensor.name): (tensor.tensor_type.name.lower(), int(tensor.shape[0]))
        for tensor in gguf.GGUFReader(path).tensors
        if len([size for size in tensor.shape if size > 1]) > 1
    }
    return {
        "bytes": path.stat().st_size,
        "fallback": {name: kind for name, (kind, row) in found.items() if row % BLOCK and kind not in ("f32", "f16")},
        "types": dict(Counter(kind for kind, _ in found.values())),
    }


def fallback_note(quant: str, fallback: dict[str, str]) -> str | None:
    """One sentence on the matrices that a format could not hold, or None."""
    if not fallback:
        return None
    kinds = ", ".join(f"{count} as {kind}" for kind, count in Counter(fallback.values()).most_common())
    block = BLOCK if quant in K_QUANTS else 32
    return f"{quant}: {len(fallback)} matrices whose rows are no multiple of {block} are stored otherwise ({kinds})"
