"""The chunked losses equal plain cross entropy, and models with more than a head are found out."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from langgraft.training import loss as module
from langgraft.training.loss import (
    MOST,
    chunked_cross_entropy,
    logits_are_plain,
    loss_function,
    recomputed_cross_entropy,
)

SIZES = {"vocab_size": 80, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "head_dim": 8}


def tensors(n: int, bias: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(n, 16), (90, 16), (90,)] if bias else [(n, 16), (90, 16)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n", [1, MOST, 2 * MOST + 17])
@pytest.mark.parametrize("function", [chunked_cross_entropy, recomputed_cross_entropy])
def test_value_and_gradients_are_those_of_plain_cross_entropy(function: Any, n: int, bias: bool) -> None:
    labels = torch.randint(0, 90, (n,), generator=torch.Generator().manual_seed(2))
    ours, plain = tensors(n, bias), tensors(n, bias)
    value = function(ours[0], ours[1], labels, ours[2] if bias else None)
    expected = F.cross_entropy(F.linear(plain[0], plain[1], plain[2] if bias else None), labels, reduction="sum")
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)
    (value / 7).backward()
    (expected / 7).backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [chunked_cross_entropy, recomputed_cross_entropy])
def test_the_mean_over_a_large_vocabulary_is_that_of_the_reference(function: Any) -> None:
    """As training has it: the mean of a batch within 1e-5, its gradients within 1e-6, of float64's."""
    generator = torch.Generator().manual_seed(3)
    n, rows = 2 * MOST + 17, 5000
    hidden, weight = torch.randn(n, 32, generator=generator), torch.randn(rows, 32, generator=generator) / 6
    labels = torch.randint(0, rows, (n,), generator=generator)
    ours = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
    reference = [tensor.double().requires_grad_() for tensor in (hidden, weight)]
    value = function(*ours, labels) / n
    expected = F.cross_entropy(F.linear(*reference), labels)
    value.backward()
    expected.backward()
    assert abs(value.item() - expected.item()) < 1e-5
    for mine, theirs in zip(ours, reference, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert (mine.grad - theirs.grad).abs().max() < 1e-6
        assert theirs.grad.abs().max() > 1e-4  # or the bound says nothing


@pytest.mark.parametrize("bias", [False, True])
def test_z_loss_is_in_the_gradient_and_not_in_the_figure(bias: bool) -> None:
    labels = torch.randint(0, 90, (MOST + 9,), generator=torch.Generator().manual_seed(2))
    labels[::7] = -100
    ours, plain = tensors(len(labels), bias), tensors(len(labels), bias)
    value = chunked_cross_entropy(ours[0], ours[1], labels, ours[2] if bias else None, z_loss=0.1)
    logits = F.linear(plain[0], plain[1], plain[2] if bias else None)
    expected = F.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)
    value.backward()
    (expected + 0.1 * (logits.exp().sum(dim=-1).log()[labels != -100] ** 2).sum()).backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_a_model_with_more_than_a_head_has_z_loss_too() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS))
    ids = torch.arange(20)[None]
    rest = torch.arange(20)[None], torch.arange(20)[None]
    plain, z = loss_function(model)(ids, *rest), loss_function(model, z_loss=1.0)(ids, *rest)
    torch.testing.assert_close(plain, z, rtol=1e-5, atol=1e-4)
    forward = model.forward
    model.forward = lambda **given: _scaled(forward(**given))
    assert not logits_are_plain(model)
    found = [loss_function(model, z_loss=weight)(ids, *rest) for weight in (0.0, 1.0)]
    torch.testing.assert_close(*found)
    grads = [torch.autograd.grad(value, model.lm_head.weight)[0] for value in found]
    assert not torch.allclose(*grads)


def _scaled(output: Any) -> Any:
    output.logits = output.logits * 0.5
    return output


def test_without_the_fused_loss_chunks_are_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    real = module.recomputed_cross_entropy
    monkeypatch.setattr(module, "recomputed_cross_entropy", lambda *a, **o: called.append(1) or real(*a, **o))  # type: ignore[func-returns-value]
    monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    hidden, weight = tensors(5, False)
    assert torch.isfinite(chunked_cross_entropy(hidden, weight, torch.zeros(5, dtype=torch.long)))
    assert called == [1]


def family(name: str, **options: Any) -> Any:
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(
        **SIZES, **{k: v for k, v in HEADS.items() if k != "head_dim" or name in ("Gemma2", "Qwen3")}, **options,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize(
    ("name", "options", "plain"),
    [
        ("Llama", {}, True),
        ("Qwen3", {"tie_word_embeddings": True}, True),
        # Fresh models have logits near zero, where capping at 30 changes less than any tolerance would see.
        ("Gemma2", {"final_logit_softcapping": 30.0}, False),
        ("Gemma2", {"final_logit_softcapping": None}, True),
        ("Granite", {"logits_scaling": 8.0}, False),
        ("Cohere", {"logit_scale": 0.0625}, False),
    ],
)
def test_models_that_change_their_logits_pay_for_all_of_them(name: str, options: dict[str, Any], plain: bool) -> None:
    model = family(name, **options)
    assert logits_are_plain(model) is plain
    ids = torch.randint(3, 80, (2, 12), generator=torch.Generator().manual_seed(4))
    positions = torch.arange(12).expand(2, 12)
    labels = ids.roll(-1, 1)
    logits = model(input_ids=ids, use_cache=False).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    value = loss_function(model)(ids, positions, labels)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)
    weight = model.get_output_embeddings().weight
    (mine,) = torch.autograd.grad(value, weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, weight)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_looking_inside_leaves_no_hooks() -> None:
    model = family("Llama")
    logits_are_plain(model)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_head_that_is_not_called_counts_as_not_plain() -> None:
    model = family("Llama")
    forward = model.forward

    def without_head(**inputs: Any) -> Any:
        head, model.lm_head = model.lm_head, torch.nn.Identity()
        try:
            out = forward(**inputs)
        finally:
            model.lm_head = head
        out.logits = F.linear(out.logits, head.weight)
        return out

    model.forward = without_head
    assert not logits_are_plain(model)
