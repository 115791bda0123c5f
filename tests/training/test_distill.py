"""Replay that matches the base's predictions: the divergence, and the run that uses it."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from quick import ONE_THREAD, QUICK

from langgraft.progress import Log
from langgraft.store import sha256_file
from langgraft.training import loss
from langgraft.training.device import load_model
from langgraft.training.divergence import matched
from langgraft.training.loop import train
from langgraft.training.loss import divergence_function

CPU = torch.device("cpu")


def places(rows: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, rows, (2, 150), generator=generator), torch.arange(150).repeat(2, 1)


def test_a_model_does_not_diverge_from_itself(pico: Path) -> None:
    model = load_model(pico, CPU)
    assert abs(divergence_function(model, model, rows=400)(*places()).item()) < 1e-2


def test_divergence_and_its_gradient_equal_the_plain_computation(pico: Path, pico_untied: Path) -> None:
    student, teacher, rows = load_model(pico, CPU), load_model(pico_untied, CPU), 350
    ids, positions = places()
    divergence_function(student, teacher, rows=rows)(ids, positions).backward()
    chunked = [p.grad.clone() for p in student.parameters() if p.grad is not None]
    student.zero_grad()
    theirs = teacher(input_ids=ids, position_ids=positions).logits[..., :rows].log_softmax(-1).detach()
    ours = student(input_ids=ids, position_ids=positions).logits.log_softmax(-1)[..., :rows]
    plain = F.kl_div(ours, theirs, reduction="sum", log_target=True)
    plain.backward()
    assert divergence_function(student, teacher, rows=rows)(ids, positions).item() == pytest.approx(
        plain.item(), rel=1e-4
    )
    for found, wanted in zip(chunked, [p.grad for p in student.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("learns", ["all", "states", "rows"])
@pytest.mark.parametrize("bias", [True, False])
def test_one_pass_gives_the_gradients_of_two(learns: str, bias: bool) -> None:
    torch.manual_seed(2)
    head, teacher = torch.nn.Linear(8, 60, bias=bias), torch.nn.Linear(6, 50, bias=bias)
    ours, theirs = torch.randn(23, 8, requires_grad=learns != "rows"), torch.randn(23, 6)
    head.requires_grad_(learns != "states")
    wanted = teacher(theirs).log_softmax(-1).detach()
    plain = F.kl_div(head(ours).log_softmax(-1)[:, :50], wanted, reduction="sum", log_target=True)
    learning = [p for p in (ours, *head.parameters()) if p.requires_grad]
    expected = torch.autograd.grad(plain / 7, learning)
    value = matched(ours, theirs, head, teacher, rows=50, chunk=10)
    assert value.item() == pytest.approx(plain.item(), rel=1e-6)
    for one, other in zip(torch.autograd.grad(value / 7, learning), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_heads_that_are_more_than_linear_are_computed_twice(pico: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = load_model(pico, CPU), load_model(pico, CPU)
    with torch.no_grad():
        student.lm_head.weight[:50] *= 3
    values = []
    for plain in (True, False):
        monkeypatch.setattr(loss, "plain_head", lambda _, plain=plain: plain)
        student.zero_grad()
        value = divergence_function(student, teacher, rows=390)(*places())
        value.backward()
        values.append((value.item(), student.lm_head.weight.grad.norm().item()))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[0][0] > 1


def test_in_bfloat16_it_is_near(pico: Path) -> None:
    student, teacher = load_model(pico, CPU), load_model(pico, CPU)
    with torch.no_grad():
        student.lm_head.weight[:50] *= 3
    measure = divergence_function(student, teacher, rows=390)
    exact = measure(*places()).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = measure(*places())
    near.backward()
    assert near.item() == pytest.approx(exact, rel=0.05)
    assert student.lm_head.weight.grad.dtype is torch.float32


def test_probability_leaked_to_new_rows_counts(pico: Path) -> None:
    """A student that puts weight on ids the teacher does not know diverges, though old ids keep their ratios."""
    teacher, student = load_model(pico, CPU), load_model(pico, CPU)
    known = 390
    before = divergence_function(student, teacher, rows=known)(*places()).item()
    with torch.no_grad():
        states = student.get_decoder()(input_ids=places()[0]).last_hidden_state.flatten(0, 1).mean(0)
        student.lm_head.weight[known:] = 20 * states / states.norm() ** 2
    assert divergence_function(student, teacher, rows=known)(*places()).item() > before + 100


def test_the_teacher_keeps_the_model_closer_and_runs_repeat(
    pico: Path, target: Path, replay: Path, tmp_path: Path
) -> None:
    far = {}
    for name, teacher in (("text", None), ("distill", pico), ("again", pico)):
        out = tmp_path / name
        train(pico, out, target=target, replay=replay, old_rows=400, settings=QUICK, teacher=teacher,
              compute=ONE_THREAD, log=Log(out / "log.txt", quiet=True))  # fmt: skip
        ids, positions = places()
        with torch.no_grad():
            diverged = divergence_function(load_model(out / "model", CPU), load_model(pico, CPU), rows=400)
            far[name] = diverged(ids, positions).item()
    assert far["distill"] < far["text"]
    assert sha256_file(tmp_path / "distill/model/model.safetensors") == sha256_file(
        tmp_path / "again/model/model.safetensors"
    )
