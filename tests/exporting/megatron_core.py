"""megatron-core on the CPU: its groups on gloo, and its GPTModel of a checkpoint. As a script, one rank."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

FILE = "model_optim_rng.pt"


def load(path: Path) -> dict[str, Any]:
    """A rank's file, as Megatron loads it."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


@contextlib.contextmanager
def groups(rank: int, world: int, store: Any) -> Iterator[None]:
    """megatron-core's groups, with tensor parallelism over all processes.

    It asks CUDA for the name of the device, and for the random numbers of dropout, which is 0.
    """
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import CudaRNGStatesTracker

    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=world)
    with (
        mock.patch.object(torch.cuda, "current_device", return_value=torch.device("cpu")),
        mock.patch.object(CudaRNGStatesTracker, "fork", return_value=contextlib.nullcontext()),
    ):
        yield
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()


def logits_of(found: dict[str, Any], ids: Tensor) -> Tensor:
    """Logits of megatron-core's GPTModel, built from nothing but the arguments that the checkpoint holds."""
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer import TransformerConfig

    args = found["args"]
    config = TransformerConfig(
        num_layers=args.num_layers, hidden_size=args.hidden_size, ffn_hidden_size=args.ffn_hidden_size,
        num_attention_heads=args.num_attention_heads, num_query_groups=args.num_query_groups,
        kv_channels=args.kv_channels, normalization=args.normalization, layernorm_epsilon=args.norm_epsilon,
        gated_linear_unit=args.swiglu, activation_func=torch.nn.functional.silu,
        add_bias_linear=args.add_bias_linear, add_qkv_bias=args.add_qkv_bias, qk_layernorm=args.qk_layernorm,
        attention_dropout=args.attention_dropout, hidden_dropout=args.hidden_dropout, use_cpu_initialization=True,
        persist_layer_norm=False, bias_activation_fusion=False, masked_softmax_fusion=False,
        tensor_model_parallel_size=args.tensor_model_parallel_size,
    )  # fmt: skip
    spec = get_gpt_layer_local_spec(qk_layernorm=args.qk_layernorm, normalization=args.normalization)
    model = GPTModel(
        config, spec, vocab_size=args.padded_vocab_size, max_sequence_length=args.max_position_embeddings,
        position_embedding_type=args.position_embedding_type, rotary_base=args.rotary_base,
        rotary_percent=args.rotary_percent, rope_scaling=args.use_rope_scaling,
        rope_scaling_factor=args.rope_scaling_factor,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights, parallel_output=False,
    )  # fmt: skip
    model.load_state_dict(found["model"], strict=True)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    mask = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
    with torch.no_grad():
        logits: Tensor = model.eval()(ids, positions, mask)
    return logits


if __name__ == "__main__":
    out, rank, world, ids, said = sys.argv[1:]
    store = torch.distributed.FileStore(f"{said}.store", int(world))
    with groups(int(rank), int(world), store):
        found = load(Path(out) / "release" / f"mp_rank_{int(rank):02d}" / FILE)
        logits = logits_of(found, torch.load(ids))
        if rank == "0":
            torch.save(logits, said)
