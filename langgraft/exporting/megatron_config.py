"""Which models Megatron's GPT computes alike, and how its arguments say so."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraft.errors import ModelError, RecipeError
from langgraft.exporting.weights import open_weights
from langgraft.methods import suggest
from langgraft.store import read_json

IMPLEMENTATIONS = ("transformer_engine", "local")
_ANY: dict[str, tuple[Any, ...]] = {"hidden_act": ("silu", "swish"), "mlp_bias": (None, False)}
# transformers' class -> what its config must say; a field that it does not have passes as None.
FAMILIES: dict[str, dict[str, tuple[Any, ...]]] = {
    "LlamaForCausalLM": {**_ANY, "attention_bias": (None, False), "pretraining_tp": (None, 1)},
    "MistralForCausalLM": {**_ANY, "sliding_window": (None,)},
    "Qwen2ForCausalLM": {**_ANY, "use_sliding_window": (None, False)},
    "Qwen3ForCausalLM": {**_ANY, "attention_bias": (None, False), "use_sliding_window": (None, False)},
}
# Llama 3's stretched rotary frequencies; Megatron has these numbers built in, but the factor.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@dataclass(frozen=True)
class Plan:
    """A model in Megatron's words. `rows` are those of embedding and head with padding, `stretch` the factor of
    `--use-rope-scaling` or None."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    groups: int
    head: int
    positions: int
    epsilon: float
    rope_base: int
    stretch: float | None
    qkv_bias: bool
    qk_norm: bool
    tied: bool
    rows: int
    tensor_parallel: int
    transformer_impl: str

    def settings(self) -> dict[str, Any]:
        """What Megatron keeps beside the weights: `--use-checkpoint-args` takes it over, and a start compares it."""
        return {
            "num_layers": self.layers,
            "hidden_size": self.hidden,
            "ffn_hidden_size": self.feed_forward,
            "num_attention_heads": self.heads,
            "group_query_attention": self.groups != self.heads,
            "num_query_groups": self.groups,
            "kv_channels": self.head,
            "max_position_embeddings": self.positions,
            "position_embedding_type": "rope",
            "rotary_base": self.rope_base,
            "rotary_percent": 1.0,
            "rotary_interleaved": False,
            "use_rope_scaling": self.stretch is not None,
            "rope_scaling_factor": self.stretch or 8.0,
            "normalization": "RMSNorm",
            "norm_epsilon": self.epsilon,
            "apply_layernorm_1p": False,
            "swiglu": True,
            "squared_relu": False,
            "add_bias_linear": False,
            "add_qkv_bias": self.qkv_bias,
            "qk_layernorm": self.qk_norm,
            "apply_query_key_layer_scaling": False,
            "untie_embeddings_and_output_weights": not self.tied,
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "padded_vocab_size": self.rows,
            "tensor_model_parallel_size": self.tensor_parallel,
            "pipeline_model_parallel_size": 1,
            "ckpt_format": "torch",
        }


def plan_for(model: Path, *, tensor_parallel: int, pad_to: int, transformer_impl: str) -> Plan:
    """Read a hub folder's config.

    Raises:
        ModelError: the family or a setting is none that Megatron computes alike, or the model cannot be split so often.
        RecipeError: the implementation is unknown.
    """
    if transformer_impl not in IMPLEMENTATIONS:
        raise RecipeError(f"--transformer-impl `{transformer_impl}`: {suggest(transformer_impl, IMPLEMENTATIONS)}")
    config = _config(model)
    base, stretch = _rope(config, model)
    names = open_weights(model).shapes
    heads = config.num_attention_heads
    step = pad_to * tensor_parallel
    plan = Plan(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        feed_forward=config.intermediate_size,
        heads=heads,
        groups=getattr(config, "num_key_value_heads", None) or heads,
        head=getattr(config, "head_dim", None) or config.hidden_size // heads,
        positions=config.max_position_embeddings,
        epsilon=config.rms_norm_eps,
        rope_base=base,
        stretch=stretch,
        qkv_bias="model.layers.0.self_attn.q_proj.bias" in names,
        qk_norm="model.layers.0.self_attn.q_norm.weight" in names,
        tied=bool(config.tie_word_embeddings),
        rows=-(-config.vocab_size // step) * step,
        tensor_parallel=tensor_parallel,
        transformer_impl=transformer_impl,
    )
    for what, count in (("key-value heads", plan.groups), ("feed-forward width", plan.feed_forward)):
        if count % tensor_parallel:
            raise ModelError(f"{model}: {what} ({count}) cannot be split among {tensor_parallel} ranks; take a divisor")
    return plan


def _config(model: Path) -> Any:
    raw = read_json(model / "config.json")
    name = (raw.get("architectures") or ["none named"])[0]
    if name not in FAMILIES:
        raise ModelError(
            f"{model}: a Megatron checkpoint can be written of {', '.join(FAMILIES)}, and this model is {name}; export "
            "a hub folder, which Megatron Bridge reads"
        )
    if raw.get("quantization_config"):
        raise ModelError(f"{model} has quantised weights; save the model in 16 or 32 bits first")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    for field, allowed in FAMILIES[name].items():
        found = getattr(config, field, None)
        if found not in allowed:
            raise ModelError(
                f"{model}: config.json has {field} = {found!r}, which Megatron's GPT does not compute alike"
            )
    return config


def _rope(config: Any, model: Path) -> tuple[int, float | None]:
    """`(base, factor of Llama 3's stretching or None)`."""
    rope = dict(getattr(config, "rope_parameters", None) or {})
    kind = rope.get("rope_type") or "default"
    base = float(rope.get("rope_theta") or 10000.0)
    if base != int(base):
        raise ModelError(f"{model}: rope_theta is {base}, and Megatron takes whole numbers alone")
    if (rope.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelError(f"{model}: only a part of each head is rotated, which is not written to a Megatron checkpoint")
    if kind == "default":
        return int(base), None
    other = [key for key, value in _LLAMA3.items() if rope.get(key) != value]
    if kind != "llama3" or other:
        said = f" with {other[0]} = {rope.get(other[0])}" if kind == "llama3" else ""
        raise ModelError(f"{model}: rope scaling `{kind}`{said} is none that Megatron computes alike")
    return int(base), float(rope["factor"])


def arguments(plan: Plan) -> list[str]:
    """Arguments of Megatron-LM's pretrain_gpt.py that describe the model and how it is stored, one line each."""
    lines = [
        f"--num-layers {plan.layers}",
        f"--hidden-size {plan.hidden}",
        f"--ffn-hidden-size {plan.feed_forward}",
        f"--num-attention-heads {plan.heads}",
        f"--kv-channels {plan.head}",
        f"--max-position-embeddings {plan.positions}",
        "--position-embedding-type rope",
        f"--rotary-base {plan.rope_base}",
        "--normalization RMSNorm",
        f"--norm-epsilon {plan.epsilon:g}",
        "--swiglu",
        "--disable-bias-linear",
        "--attention-dropout 0",
        "--hidden-dropout 0",
        f"--tensor-model-parallel-size {plan.tensor_parallel}",
        "--ckpt-format torch",
        f"--transformer-impl {plan.transformer_impl}",
        "--tokenizer-type HuggingFaceTokenizer",
        # Padding to this gives the rows of the checkpoint for whatever count of ids Megatron starts from.
        f"--make-vocab-size-divisible-by {plan.rows // plan.tensor_parallel}",
    ]
    if plan.groups != plan.heads:
        lines[4:4] = ["--group-query-attention", f"--num-query-groups {plan.groups}"]
    if plan.stretch is not None:
        lines.append(f"--use-rope-scaling --rope-scaling-factor {plan.stretch:g}")
    flags = {"--add-qkv-bias": plan.qkv_bias, "--qk-layernorm": plan.qk_norm}
    flags |= {"--untie-embeddings-and-output-weights": not plan.tied}
    flags |= {"--no-persist-layer-norm": plan.transformer_impl == "local"}
    return lines + [flag for flag, wanted in flags.items() if wanted]
