"""The model families that GGUF export knows, and what a config must say for llama.cpp to compute the same.

llama.cpp has one fixed graph for every architecture. A row of `FAMILIES` holds what that graph takes for granted;
a config that says otherwise is refused with the reason, since the file would load and compute another model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraft.errors import ModelError
from langgraft.store import read_json

if TYPE_CHECKING:
    import torch

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_SILU = ("silu", "swish")
_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # llama.cpp's gelu is the tanh form; these equal it in f32
_BUFFERS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # saved by old versions, no weights


@dataclass(frozen=True)
class Family:
    """One architecture of llama.cpp, and how a hub folder differs from it.

    Args:
        arch: its name in the GGUF file.
        interleaved: its rotary code turns neighbours, transformers turns halves: q and k are re-ordered.
        norm_plus_one: the folder stores the weight of a norm minus 1.
        transposed: projections are stored as (in, out).
        prefix: of the folder's tensor names, left out in old files.
        period: of `period` layers the last sees all positions, the others a window; 0: no windows.
        fixed: fields of the config and the value that llama.cpp has built in.
        tied: the head is the embedding, always.
        long_layers: number of layers at which llama.cpp takes 1/sqrt(hidden size / heads) as the scale of attention,
            and not 1/sqrt(head dimension); None where the config names no scale.
    """

    arch: str
    interleaved: bool = False
    activations: tuple[str, ...] = _SILU
    norm_plus_one: bool = False
    transposed: bool = False
    embedding: str = EMBEDDING
    prefix: str = ""
    period: int = 0
    partial_rotary: bool = False
    longrope: bool = False
    tied: bool = False
    long_layers: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


_GEMMA = {"attention_bias": False}
# transformers' class -> family
FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family("llama", interleaved=True),
    "MistralForCausalLM": Family("llama", interleaved=True),
    "Qwen2ForCausalLM": Family("qwen2"),
    "Qwen3ForCausalLM": Family("qwen3", fixed={"attention_bias": False}),
    "GemmaForCausalLM": Family("gemma", activations=_GELU, norm_plus_one=True, tied=True, fixed=_GEMMA),
    "Gemma2ForCausalLM": Family(
        "gemma2", activations=_GELU, norm_plus_one=True, tied=True, period=2, long_layers=46, fixed=_GEMMA
    ),
    "Gemma3ForCausalLM": Family(
        "gemma3",
        activations=_GELU,
        norm_plus_one=True,
        tied=True,
        period=6,
        long_layers=62,
        fixed={
            **_GEMMA,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "use_bidirectional_attention": False,
        },
    ),
    "GPT2LMHeadModel": Family(
        "gpt2",
        activations=_GELU,
        transposed=True,
        embedding="transformer.wte.weight",
        prefix="transformer.",
        fixed={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    ),
    "Phi3ForCausalLM": Family("phi3", partial_rotary=True, longrope=True),
}


def family_of(config: Any) -> Family:
    """The row of a config that `read_config` let through."""
    return FAMILIES[config.architectures[0]]


def read_config(model: Path) -> Any:
    """The transformers config of a hub folder, checked for what GGUF can express.

    Raises:
        ModelError: it cannot be read, or the architecture or one of its settings is not supported.
    """
    path = model / "config.json"
    raw = read_json(path) if path.is_file() else {}
    names = raw.get("architectures") or ["none named"]
    if names[0] not in FAMILIES:
        raise ModelError(
            f"{path}: GGUF export supports {', '.join(FAMILIES)}, and this model is {names[0]}; "
            "export it as a hub folder, or convert that with llama.cpp's own tools"
        )
    if raw.get("quantization_config"):
        raise ModelError(f"{path} describes quantised weights; save the model in 16 or 32 bits first")
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model)
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path}: transformers refuses it ({error}); correct the field or save the model again"
        ) from error
    family = family_of(config)
    _check_fixed(config, family, path)
    _check_windows(config, family, path)
    _check_scale(config, family, path)
    return config


def _check_fixed(config: Any, family: Family, path: Path) -> None:
    """Refuse an activation or a setting that llama.cpp's graph has built in otherwise."""
    for key in ("hidden_activation", "hidden_act", "activation_function"):
        activation = getattr(config, key, None)
        if activation is not None:
            break
    if activation not in family.activations:
        raise ModelError(
            f"{path}: activation `{activation}` is not what llama.cpp computes here ({family.activations[0]})"
        )
    for key, value in family.fixed.items():
        found = getattr(config, key, value)
        if bool(found) != bool(value):
            raise ModelError(f"{path}: {key} is {found}, and llama.cpp's `{family.arch}` has {value} built in")
    if family.tied and not config.tie_word_embeddings:
        raise ModelError(f"{path}: the head is not tied, and llama.cpp's `{family.arch}` has no head of its own")
    if family.arch == "gemma2" and not (config.attn_logit_softcapping and config.final_logit_softcapping):
        raise ModelError(f"{path}: logits are not softly capped, and llama.cpp's `gemma2` always caps them")


def _check_windows(config: Any, family: Family, path: Path) -> None:
    """Refuse windows that llama.cpp does not have, or has on other layers."""
    window = getattr(config, "sliding_window", None)
    if not window or not getattr(config, "use_sliding_window", True) or window >= config.max_position_embeddings:
        return
    if not family.period:
        raise ModelError(
            f"{path}: sliding attention over {window} positions is lost in GGUF; set max_position_embeddings "
            f"to {window} if the model is used on texts no longer than that"
        )
    layers = config.num_hidden_layers
    period = family.period
    expected = ["full_attention" if i % period == period - 1 else "sliding_attention" for i in range(layers)]
    if list(config.layer_types) != expected:
        raise ModelError(
            f"{path}: layer_types names other layers as sliding than llama.cpp's `{family.arch}` has "
            f"(all but every {period}th)"
        )


def _check_scale(config: Any, family: Family, path: Path) -> None:
    """Refuse a scale of attention that is not the one llama.cpp derives."""
    if family.long_layers is None:
        return
    derived = head_dim(config)
    if config.num_hidden_layers == family.long_layers:
        derived = config.hidden_size // config.num_attention_heads
    if config.query_pre_attn_scalar != derived:
        raise ModelError(
            f"{path}: query_pre_attn_scalar is {config.query_pre_attn_scalar}, and llama.cpp's `{family.arch}` "
            f"scales attention by {derived}"
        )


def head_dim(config: Any) -> int:
    """Length of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def kv_heads(config: Any) -> int:
    """Heads of keys and values."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def feed_forward(config: Any) -> int:
    """Width of the feed-forward layer; GPT-2 leaves it out where it is four times the hidden size."""
    return int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size)


def is_buffer(name: str) -> bool:
    """Whether a stored tensor is no weight but something that is computed anyway."""
    return name.endswith(_BUFFERS)


def change_of(config: Any, name: str) -> "Callable[[torch.Tensor], torch.Tensor] | None":
    """What must be done to a tensor of the folder for llama.cpp; None: nothing."""
    family = family_of(config)
    if family.interleaved and ".q_proj." in name:
        return partial(interleave, heads=config.num_attention_heads)
    if family.interleaved and ".k_proj." in name:
        return partial(interleave, heads=kv_heads(config))
    if family.norm_plus_one and name.endswith("norm.weight"):
        return plus_one
    if family.transposed and ".c_" in name and name.endswith(".weight"):
        return transpose
    return None


def interleave(tensor: "torch.Tensor", heads: int) -> "torch.Tensor":
    """Re-order the rows of q or k from rotary halves to rotary pairs.

    transformers rotates element i of a head together with element i + d/2, llama.cpp's llama code with its
    neighbour: within each head of d rows, row 2i is taken from row i, and row 2i+1 from row i + d/2.
    """
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def plus_one(tensor: "torch.Tensor") -> "torch.Tensor":
    """The weight that a norm multiplies by, where the folder stores its distance from 1; in 32 bits."""
    return tensor.float() + 1


def transpose(tensor: "torch.Tensor") -> "torch.Tensor":
    """(in, out) to (out, in)."""
    return tensor.t()
