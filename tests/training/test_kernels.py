"""Ways of computing the transformer give the same loss and gradients, or are refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from quick import ONE_THREAD, QUICK
from torch import Tensor

from langgraft.errors import RecipeError, TrainingError
from langgraft.progress import Log
from langgraft.training import kernels as own
from langgraft.training.block_attention import NAME
from langgraft.training.device import load_model
from langgraft.training.kernels import (
    COMPILED_FROM,
    Kernels,
    check_kernels,
    decided,
    flat_rows,
    packed_states,
    prepare,
)
from langgraft.training.loop import train
from langgraft.training.loss import loss_function

CPU = torch.device("cpu")
FLOAT = torch.float32


def loss_and_gradients(folder: Path, kernels: Kernels) -> tuple[float, dict[str, Tensor]]:
    """Of two packed rows of two documents each."""
    model = load_model(folder, CPU)
    prepare(model, kernels, FLOAT, Log(quiet=True))
    model.train()
    torch.manual_seed(0)
    ids = torch.randint(0, 380, (2, 96))
    positions = torch.cat([torch.arange(61), torch.arange(35)]).repeat(2, 1)
    loss = loss_function(model)(ids, positions, ids.roll(-1, 1)) / ids.numel()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def plain(pico: Path) -> tuple[float, dict[str, Tensor]]:
    return loss_and_gradients(pico, Kernels("sdpa"))


@pytest.mark.parametrize(
    "kernels",
    [
        Kernels("eager"),
        Kernels("sdpa"),
        Kernels("blocks"),
        Kernels(activation_checkpointing=True),
        pytest.param(Kernels("sdpa", compile=True), marks=pytest.mark.slow),
        pytest.param(Kernels("blocks", compile=True), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_loss_and_gradients_are_the_same(kernels: Kernels, pico: Path, plain: tuple[float, dict[str, Tensor]]) -> None:
    try:
        check_kernels(kernels, CPU)
    except RecipeError as error:
        pytest.skip(str(error))
    loss, gradients = loss_and_gradients(pico, kernels)
    assert loss == pytest.approx(plain[0], abs=1e-5)
    assert gradients.keys() == plain[1].keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain[1][name], rtol=1e-5, atol=1e-5)


def keeps_little(model: torch.nn.Module) -> bool:
    """Whether every decoder layer makes its activations again."""
    return all(getattr(m, "gradient_checkpointing", False) for m in model.model.layers)  # type: ignore[union-attr]


def test_the_model_in_training_is_the_one_that_was_prepared(
    pico: Path, target: Path, replay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    compute = replace(ONE_THREAD, attention="eager", activation_checkpointing=True)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: seen.append((type(self).__name__, True)))

    def look(_: int, model: object) -> None:
        seen.append((model.config._attn_implementation, keeps_little(model)))  # type: ignore[attr-defined]

    train(pico, tmp_path, target=target, replay=replay, old_rows=300, settings=replace(QUICK, steps=1),
          compute=replace(compute, compile=True), log=Log(quiet=True), after_step=look)  # fmt: skip
    assert seen == [("LlamaDecoderLayer", True)] * 2 + [("eager", True)]


def test_long_trainings_are_compiled_where_that_is_known_to_pay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log.txt")

    def auto(device: str = "cpu", flops: float = COMPILED_FROM, processes: int = 1) -> bool | str:
        return decided(Kernels(), torch.device(device), flops=flops, processes=processes, log=log).compile

    monkeypatch.setattr(own, "_compiler", lambda: "g++")
    assert auto() is True
    assert [auto(flops=COMPILED_FROM / 2), auto(processes=2), auto("cuda")] == [False] * 3
    assert "long enough to compile" in (tmp_path / "log.txt").read_text()
    monkeypatch.setattr(own, "_compiler", lambda: None)
    assert auto() is False
    assert "no C++ compiler is there" in (tmp_path / "log.txt").read_text()
    asked = Kernels(compile=True)
    assert decided(asked, CPU, flops=1.0, processes=2, log=log) is asked


@pytest.mark.parametrize(
    ("kernels", "sentence"),
    [
        (Kernels("flex"), r'compute\.attention = "flex" needs a CUDA device, and this run is on cpu: .* use "sdpa"'),
        (Kernels("flash"), r'compute\.attention = "flash" needs a CUDA device'),
        (Kernels("sdap"), r"compute\.attention `sdap` is unknown; did you mean `sdpa`\?"),
    ],
)
def test_what_needs_a_gpu_is_refused_without(kernels: Kernels, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check_kernels(kernels, CPU)


def test_what_is_for_cpus_is_refused_elsewhere() -> None:
    with pytest.raises(RecipeError, match=r'"blocks" runs on a CPU only, and this run is on cuda: .* use "flex" here'):
        check_kernels(Kernels("blocks"), torch.device("cuda"))


def test_auto_on_a_cpu_leaves_out_what_documents_hide(pico: Path) -> None:
    model = load_model(pico, CPU)
    prepare(model, Kernels(), FLOAT, Log(quiet=True))
    assert model.config._attn_implementation == NAME
    model.set_attn_implementation("eager")
    prepare(model, Kernels(), FLOAT, Log(quiet=True))
    assert model.config._attn_implementation == "eager"


def test_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"needs the package flash-attn, .* or use \"flex\""):
        check_kernels(Kernels("flash"), torch.device("cuda"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RecipeError, match=r"compute\.compile needs a C\+\+ compiler .* neither g\+\+ nor clang\+\+"):
        check_kernels(Kernels(compile=True), CPU)
    monkeypatch.setattr(shutil, "which", lambda name: "/somewhere" if name == "mine" else None)
    monkeypatch.setenv("CXX", "mine")
    check_kernels(Kernels(compile=True), CPU)


def leaking(_: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *__: object, **___: object) -> object:
    """Causal attention that forgets where documents end."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return out.transpose(1, 2).contiguous(), None


def test_attention_that_mixes_documents_is_found_and_not_used(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register("leaking", leaking)
    AttentionMaskInterface.register("leaking", sdpa_mask)
    monkeypatch.setitem(own.ATTENTION, "leaking", "leaking")
    model = load_model(pico, CPU)
    before = packed_states(model, FLOAT)
    with pytest.raises(TrainingError, match=r'"leaking" gives other states than sdpa .* so it would learn across'):
        prepare(model, Kernels("leaking"), FLOAT, Log(quiet=True))
    assert torch.equal(packed_states(model, FLOAT), before)


@pytest.mark.parametrize("name", ["leaking", "blocks"])
def test_a_shared_model_is_not_asked_but_a_small_one_of_its_kind(
    name: str, pico: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real ones, sharded and split, train in test_parallel.py; asking them before would settle their parts."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register("leaking", leaking)
    AttentionMaskInterface.register("leaking", sdpa_mask)
    monkeypatch.setitem(own.ATTENTION, "leaking", "leaking")
    monkeypatch.setattr(own, "is_shared", lambda _: True)
    model, state = load_model(pico, CPU), torch.random.get_rng_state()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the shared model was asked"))
    if name == "leaking":
        with pytest.raises(TrainingError, match="so it would learn across"):
            prepare(model, Kernels(name), FLOAT, Log(quiet=True))
        assert model.config._attn_implementation == "sdpa"
    else:
        prepare(model, Kernels(name), FLOAT, Log(quiet=True))
        assert model.config._attn_implementation == NAME
    assert torch.equal(torch.random.get_rng_state(), state)


def test_auto_on_a_gpu_falls_back_and_says_so(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, log = load_model(pico, CPU), Log(tmp_path / "log", quiet=True)
    monkeypatch.setitem(own.ATTENTION, "flex", "eager")  # stands for an attention that agrees with sdpa
    own._fastest(model, "flex", FLOAT, log)
    assert model.config._attn_implementation == "eager"
    model.set_attn_implementation("sdpa")
    monkeypatch.setitem(own.ATTENTION, "flex", "flash_attention_2")  # whose package is not there
    own._fastest(model, "flex", FLOAT, log)
    assert model.config._attn_implementation == "sdpa"
    said = [line.split("  ", 1)[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert said[0] == "attention: flex"
    assert said[1].startswith("attention: flex cannot be used here (")
    assert said[1].endswith("); sdpa instead")


def test_rows_follow_one_another_for_flash_alone(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(pico, CPU)
    assert not flat_rows(model)
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    assert flat_rows(model)


def test_rows_in_one_long_row_give_the_same_loss(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(pico, CPU)
    loss = loss_function(model)
    ids = torch.arange(96).view(2, 48)
    positions = torch.arange(48).repeat(2, 1)
    wanted = loss(ids, positions, ids.roll(-1, 1)).item()
    monkeypatch.setattr("langgraft.training.loss.flat_rows", lambda _: True)
    assert loss(ids, positions, ids.roll(-1, 1)).item() == pytest.approx(wanted, abs=1e-3)


@pytest.mark.slow
def test_compiled_and_interrupted_gives_the_same_bits(pico: Path, target: Path, replay: Path, tmp_path: Path) -> None:
    """A run begins with three rows a pass, and goes on with two: which were compiled first may not count."""
    compute = replace(ONE_THREAD, compile=True, micro_rows=3, checkpoint_every=1)
    settings = replace(QUICK, steps=3, batch_rows=5, replay_ratio=0.5)  # three rows of text in the first step, then two
    try:
        check_kernels(Kernels(compile=True), CPU)
    except RecipeError as error:
        pytest.skip(str(error))

    def stop(step: int, _: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    def run(out: Path, look: object = None) -> bytes:
        torch._dynamo.reset()  # as a new process has it
        train(pico, out, target=target, replay=replay, teacher=pico, old_rows=300, settings=settings, compute=compute,
              log=Log(quiet=True), after_step=look)  # type: ignore[arg-type]  # fmt: skip
        return (out / "model" / "model.safetensors").read_bytes()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halves", stop)
    assert run(tmp_path / "halves") == whole
