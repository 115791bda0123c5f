"""The metadata of a GGUF file: sizes, attention, rotary settings, vocabulary."""

import math
from typing import TYPE_CHECKING, Any

from langgraft.errors import ModelError
from langgraft.exporting.gguf_families import family_of, feed_forward, head_dim, kv_heads
from langgraft.exporting.gguf_vocab import Vocabulary

if TYPE_CHECKING:
    import gguf
    import torch


def add_settings(writer: "gguf.GGUFWriter", config: Any, *, name: str, file_type: str, tokens: int) -> None:
    """Write everything of a config that llama.cpp asks for; `file_type` is of `gguf.LlamaFileType`.

    Raises:
        ModelError: rotary settings that llama.cpp computes differently.
    """
    import gguf

    family = family_of(config)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(int(gguf.LlamaFileType[file_type]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(tokens)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(feed_forward(config))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(kv_heads(config))
    if family.arch == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if family.period:
        writer.add_sliding_window(config.sliding_window or config.max_position_embeddings)
    if family.arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    rope = rope_settings(config)
    writer.add_rope_dimension_count(rotary_dim(config))
    _add_rope(writer, rope, config)
    if family.arch == "gemma3":
        writer.add_float32("gemma3.rope.freq_base_swa", _local_rope(config))


def rotary_dim(config: Any) -> int:
    """How many elements of a head are rotated."""
    share = _raw_rope(config).get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    return int(head_dim(config) * share)


def _raw_rope(config: Any) -> dict[str, Any]:
    rope = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    # Gemma-3 has one set for each kind of layer.
    return dict(rope.get("full_attention") or {}) if "full_attention" in rope else rope


def _local_rope(config: Any) -> float:
    """Frequency base of Gemma-3's sliding layers, which llama.cpp never scales."""
    rope = (config.rope_parameters or {}).get("sliding_attention") or {}
    if rope.get("rope_type", "default") != "default":
        raise ModelError(f"rope scaling `{rope['rope_type']}` of sliding layers cannot be exported to GGUF")
    return float(rope.get("rope_theta") or 10000.0)


def rope_settings(config: Any) -> dict[str, Any]:
    """Rotary settings in transformers 5's form, from either form; those of the full layers where there are two.

    Raises:
        ModelError: a kind of scaling, or an option of it, that llama.cpp computes differently.
    """
    rope = _raw_rope(config)
    rope.setdefault("rope_type", rope.pop("type", "default"))
    rope.setdefault("rope_theta", getattr(config, "rope_theta", None) or 10000.0)
    names = getattr(config, "architectures", None)
    family = family_of(config) if names else None
    known = ["default", "linear", "llama3", "yarn", *(["longrope"] if family and family.longrope else [])]
    if rope["rope_type"] not in known:
        raise ModelError(
            f"rope scaling `{rope['rope_type']}` cannot be exported to GGUF; supported: {', '.join(known)}"
        )
    odd = [key for key in ("mscale", "mscale_all_dim") if rope.get(key) is not None]
    odd += ["attention_factor"] if rope.get("attention_factor") is not None and rope["rope_type"] != "longrope" else []
    odd += ["truncate"] if rope.get("truncate") is False else []
    part = (rope.get("partial_rotary_factor") or 1.0) != 1.0
    odd += ["partial_rotary_factor"] if part and not (family and family.partial_rotary) else []
    if odd:
        raise ModelError(f"rope option {', '.join(odd)} cannot be exported to GGUF; llama.cpp derives it itself")
    return rope


def _add_rope(writer: "gguf.GGUFWriter", rope: dict[str, Any], config: Any) -> None:
    import gguf

    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        if original := rope.get("original_max_position_embeddings"):
            writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)
    elif rope["rope_type"] == "longrope":
        original = _original(rope, config)
        ratio = rope.get("factor") or config.max_position_embeddings / original
        factor = rope.get("attention_factor")
        if factor is None:
            factor = 1.0 if ratio <= 1 else math.sqrt(1 + math.log(ratio) / math.log(original))
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(factor)


def _original(rope: dict[str, Any], config: Any) -> int:
    found = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return int(found or config.max_position_embeddings)


def rope_factors(config: Any) -> "dict[str, torch.Tensor]":
    """Divisors of the rotary frequencies that llama.cpp reads as tensors: name -> float32 (rotary dimension / 2,)."""
    import torch

    family = family_of(config)
    if family.arch == "gpt2":
        return {}
    rope = rope_settings(config)
    if rope["rope_type"] == "longrope":
        return {
            f"rope_factors_{length}.weight": torch.tensor(rope[f"{length}_factor"], dtype=torch.float32)
            for length in ("long", "short")
        }
    if rope["rope_type"] != "llama3":
        return {}
    size = head_dim(config)
    frequency = rope["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    turns = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    # 0 below `low` turns over the original context (scaled), 1 above `high` (kept), a straight line between.
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return {"rope_freqs.weight": (1 / ((1 - kept) / factor + kept)).to(torch.float32)}


def add_vocabulary(writer: "gguf.GGUFWriter", vocabulary: Vocabulary) -> None:
    """Write the tokenizer's section."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_token_merges(vocabulary.merges)
    add = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for name, number in vocabulary.special.items():
        add[name](number)
    if vocabulary.end_of_turn is not None:
        writer.add_eot_token_id(vocabulary.end_of_turn)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
    if vocabulary.holes:
        writer.add_array("tokenizer.ggml.suppress_tokens", vocabulary.holes)
