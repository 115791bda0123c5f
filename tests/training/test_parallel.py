"""Several processes train the model that one trains: the arithmetic here, the rest under torchrun on CPUs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import Finished, process
from hypothesis import given
from hypothesis import strategies as st
from quick import ONE_THREAD, QUICK
from safetensors.torch import load_file
from shared_runs import OLD, Runs, losses, result, rows_taken, weights

from langgraft.errors import ModelError, RecipeError
from langgraft.progress import Log
from langgraft.store import read_json
from langgraft.training import checkpoint
from langgraft.training.checkpoint import MANIFEST, newest
from langgraft.training.loop import Settings, train
from langgraft.training.modes import Lora, Phase
from langgraft.training.parallel import Group, Layout, check_model, check_together, resolved, share_batch

FOUR_ROWS = replace(QUICK, batch_rows=4, ema_decay=0.5, z_loss=1e-3)
NEW_ROWS = replace(QUICK, batch_rows=4, phases=(Phase("new_rows", 0.5), Phase("full", 0.5)), old_rows_learning_rate=0.0)
LORA = replace(QUICK, batch_rows=4, phases=(Phase("lora"),), lora=Lora(rank=4))
MERGED = replace(LORA, phases=(Phase("new_rows", 0.2), Phase("lora", 0.4), Phase("full", 0.4)))
MUON = replace(FOUR_ROWS, optimizer="muon")


@pytest.mark.parametrize(
    ("asked", "processes", "found"),
    [
        (Layout(), 8, Layout(1, 8, 1)),
        (Layout(2), 8, Layout(2, 4, 1)),
        (Layout(2, 0, 2), 8, Layout(2, 2, 2)),
        (Layout(1, 1, 8), 8, Layout(1, 1, 8)),
    ],
)
def test_fsdp_takes_what_is_left(asked: Layout, processes: int, found: Layout) -> None:
    assert resolved(asked, processes) == found


@pytest.mark.parametrize(
    ("asked", "processes", "sentence"),
    [
        (Layout(3), 8, r"= 3 x 2 x 1 does not make 8 processes, which train here; start 6 or 9 processes"),
        (Layout(2, 2, 1), 8, r"= 2 x 2 x 1 does not make 8 processes, which train here; start 4 processes"),
        (Layout(2), 1, r"does not make 1 process, which train here; start 2"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(asked: Layout, processes: int, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        resolved(asked, processes)


def test_the_arithmetic_of_a_step() -> None:
    assert share_batch(256, 2048, 4, 8) == (
        "a step is 524,288 tokens: 4 rows of 2,048 at a time x 8 accumulated x 8 data-parallel"
    )
    assert "3 rows of 8 at a time (the last has 1) x 2 accumulated x 2 data-parallel" in share_batch(8, 8, 3, 2)
    with pytest.raises(RecipeError, match=r"makes 6 rows of 32, which 4 data-.*; use 128 or 256$"):
        share_batch(6, 32, 4, 4)
    with pytest.raises(RecipeError, match=r"makes 3 rows of 32, which 4 data-.*; use 128$"):
        share_batch(3, 32, 4, 4)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 50))
def test_every_row_is_taken_once(processes: int, each: int, step: int) -> None:
    count = processes * each
    group = Group.alone()
    group.data_parallel = processes
    shares = group.shares(step * count, count)
    assert [row for rows in shares for row in rows] == list(range(step * count, (step + 1) * count))
    assert {len(rows) for rows in shares} == {each}


def test_what_cannot_be_cut_is_refused(pico: Path) -> None:
    with pytest.raises(RecipeError, match="tensor_parallel = 3 does not divide the model's 2 key-value heads; use one"):
        check_model(pico, Layout(3, 1))
    with pytest.raises(RecipeError, match=r"400 rows cannot be cut into .* = 7 equal parts; set surgery.pad_to"):
        check_model(pico, Layout(1, 7))
    check_model(pico, Layout(2, 8))


@pytest.mark.parametrize(
    ("settings", "layout", "sentence"),
    [
        (replace(QUICK, optimizer="adamw_8bit"), Layout(), 'optimizer = "adamw_8bit" keeps its state in blocks'),
        (replace(LORA, lora=Lora(quantize="nf4")), Layout(), "quantize"),
        (replace(LORA, lora=Lora(dropout=0.1)), Layout(2), "dropout with compute.tensor_parallel would drop other"),
    ],
)
def test_what_one_process_alone_can_do(settings: Settings, layout: Layout, sentence: str) -> None:
    check_together(settings, Layout(fsdp=1), 1)
    with pytest.raises(RecipeError, match=sentence):
        check_together(settings, resolved(layout, 2), 2)


def test_lora_beside_cut_matrices_needs_a_peft_that_cuts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_together(LORA, Layout(2, 1), 2)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.20.0")
    check_together(LORA, Layout(1, 2), 2)
    with pytest.raises(RecipeError, match=r"needs peft 0\.21 or newer, and this is 0\.20\.0"):
        check_together(LORA, Layout(2, 1), 2)


def test_an_error_of_one_process_is_that_of_all() -> None:
    def fail() -> None:
        raise ModelError("no")

    group = Group.alone()
    assert group.first(lambda: 3) == 3
    assert group.everyone(lambda: 4) == [4]
    for ask in (group.first, group.everyone):
        with pytest.raises(ModelError, match="no"):
            ask(fail)


CASES: dict[str, tuple[str, Settings, Layout, str | None]] = {
    "fsdp": ("tied", FOUR_ROWS, Layout(), None),
    "tensor": ("tied", FOUR_ROWS, Layout(2), None),
    "tensor-untied": ("untied", NEW_ROWS, Layout(2), None),
    "replicas": ("untied", FOUR_ROWS, Layout(1, 1, 2), None),
    "new-rows": ("tied", NEW_ROWS, Layout(), None),
    "lora": ("tied", LORA, Layout(), None),
    "lora-tensor": ("tied", LORA, Layout(2), None),
    "lora-replicas": ("untied", LORA, Layout(1, 1, 2), None),
    "merged": ("tied", MERGED, Layout(), None),
    "merged-tensor": ("untied", MERGED, Layout(2), None),
    "muon": ("tied", MUON, Layout(), None),
    "muon-tensor": ("untied", MUON, Layout(2), None),
    "distill": ("tied", replace(FOUR_ROWS, replay_ratio=0.3), Layout(), "tied"),
    "distill-tensor": ("untied", FOUR_ROWS, Layout(2), "untied"),
}
KEEPS_OLD_ROWS = ("tensor-untied", "new-rows", "lora", "lora-tensor", "lora-replicas")
MUON_ROUNDS = 2e-4  # it orthogonalises in bfloat16, where the last bit of a gradient can show (see test_optimizers.py)


@pytest.fixture(scope="module")
def pairs(runs: Runs) -> dict[str, tuple[Path, Path]]:
    """Each case alone and by two processes, all of these in one torchrun."""
    one = {name: runs.alone(f"{name}-alone", model, s, teacher) for name, (model, s, _, teacher) in CASES.items()}
    jobs = [
        runs.job(name, model, s, layout, **({"teacher": str(runs.models[teacher])} if teacher else {}))
        for name, (model, s, layout, teacher) in CASES.items()
    ]
    jobs += [
        runs.job("background", "tied", FOUR_ROWS, Layout(), compute={"async_checkpoints": True}),
        runs.job("again", "tied", FOUR_ROWS, Layout(), compute={"activation_checkpointing": True}),
        runs.job("half", "tied", FOUR_ROWS, Layout(), compute={"dtype": "bfloat16"}),
        runs.job("muon-part", "tied", MUON, Layout(), stop=3),
    ]
    runs.together(2, jobs)
    return {name: (one[name], runs.folder / name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name: str, pairs: dict[str, tuple[Path, Path]], runs: Runs) -> None:
    alone, together = pairs[name]
    assert [result(together, name, rank) for rank in (0, 1)] == ["done", "done"]
    muon = name.startswith("muon")
    assert losses(together) == pytest.approx(losses(alone), abs=MUON_ROUNDS if muon else 1e-5)
    ours, theirs = (load_file(out / "model" / "model.safetensors") for out in (together, alone))
    assert ours.keys() == theirs.keys()
    model = CASES[name][0]
    before = load_file(runs.models[model] / "model.safetensors")
    for key, tensor in theirs.items():
        # Of what was learned, not of each weight: the first steps of Adam turn a rounded gradient into a whole step.
        assert (ours[key] - tensor).norm() <= (0.1 if muon else 1e-2) * (tensor - before[key]).norm(), key
    assert any(not torch.equal(ours[key], before[key]) for key in before)
    if name in KEEPS_OLD_ROWS:
        for key in ("model.embed_tokens.weight", *(["lm_head.weight"] if model == "untied" else [])):
            assert torch.equal(ours[key][:OLD], before[key][:OLD])
            assert not torch.equal(ours[key][OLD:], before[key][OLD:])
    assert (together / "adapter").is_dir() == name.startswith("lora")


def test_ways_of_computing_change_nothing(pairs: dict[str, tuple[Path, Path]], runs: Runs) -> None:
    """Checkpoints written in the background, activations made again, and bfloat16 but for its rounding."""
    alone, together = pairs["fsdp"]
    assert weights(runs.folder / "background") == weights(together)
    newest = runs.folder / "background" / "checkpoints" / "step-000004"
    assert checkpoint.check(newest) is None
    assert sorted(path.name for path in newest.iterdir() if path.suffix == ".pt") == sorted(
        path.name for path in (together / "checkpoints" / "step-000004").iterdir() if path.suffix == ".pt"
    )
    assert losses(runs.folder / "again") == pytest.approx(losses(alone), abs=1e-5)
    half = losses(runs.alone("half-alone", "tied", FOUR_ROWS, compute=replace(ONE_THREAD, dtype="bfloat16")))
    assert losses(runs.folder / "half") == pytest.approx(half, abs=2e-2)
    assert losses(runs.folder / "half") != pytest.approx(losses(together), abs=1e-5)


def test_muon_of_two_processes_goes_on_in_one(pairs: dict[str, tuple[Path, Path]], runs: Runs) -> None:
    out = runs.folder / "muon-part"
    assert "by SIGUSR1" in result(out, "muon-part")
    runs.alone("muon-part", "tied", MUON)
    assert "going on from step 3 of 6" in (out / "log.txt").read_text()
    assert losses(out) == pytest.approx(losses(pairs["muon"][0]), abs=MUON_ROUNDS)


def test_one_checkpoint_of_two_processes_has_a_manifest(pairs: dict[str, tuple[Path, Path]]) -> None:
    folder = pairs["fsdp"][1] / "checkpoints" / "step-000004"
    files = read_json(folder / MANIFEST)["files"]
    assert sorted(files) == sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    assert [f"model-0000{n}-of-00002.pt" in files for n in (1, 2)] == [True, True]
    said = (pairs["fsdp"][1] / "log.txt").read_text()
    assert "2 processes (2 FSDP); a step is 128 tokens: 2 rows of 32 at a time x 1 accumulated x 2 data" in said


@pytest.mark.parametrize("damage", ["deleted", "truncated", "flipped"])
def test_damage_to_any_part_is_found(damage: str, pairs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    folder = pairs["fsdp"][1] / "checkpoints"
    for file in sorted((folder / "step-000004").iterdir()):
        copy = tmp_path / f"{file.name}-{damage}"
        shutil.copytree(folder, copy)
        broken, content = copy / "step-000004" / file.name, file.read_bytes()
        if damage == "deleted":
            broken.unlink()
        elif damage == "truncated":
            broken.write_bytes(content[:-1])
        else:
            broken.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        assert newest(copy, Log(tmp_path / "log.txt", quiet=True)) == 2, file.name
    assert "checkpoint step-000004 is damaged" in (tmp_path / "log.txt").read_text()


def test_a_recipe_trains_in_two_processes(finished: Finished, tmp_path: Path) -> None:
    """The command that `langgraft launch` writes; the first process alone measures, and writes stage and summary."""
    shutil.copytree(finished.runs, tmp_path / "runs")
    before = next((tmp_path / "runs" / "pico").glob("pretrain-*"))
    expected = losses(before)
    shutil.rmtree(before)
    torchrun = ["--standalone", "--nproc-per-node", "2", "-m", "langgraft", "run", finished.recipe]
    watched = ["--set", "pretrain.retention.every=6", "--set", "pretrain.retention.max_new_tokens=4"]
    done = process(
        *torchrun, "--runs", tmp_path / "runs", "--only", "pretrain", "--json", *watched, script="torch.distributed.run"
    )
    assert done.code == 0, done.err[-4000:]
    assert json.loads(done.out)["name"] == "pico"
    after = next((tmp_path / "runs" / "pico").glob("pretrain-*"))
    assert (after / "stage.json").is_file()
    assert losses(after) == pytest.approx(expected, abs=1e-5)
    assert done.err.count("2 processes (2 FSDP); a step is 128 tokens") == 1
    assert done.err.count("retention, the base: Cantonese") == 1
    assert [json.loads(line)["step"] for line in (after / "retention.jsonl").read_text().splitlines()] == [0, 6, 12]


def test_more_and_fewer_processes_go_on_where_others_stopped(runs: Runs) -> None:
    """4, 2 and 1 processes; TP2 x FSDP2, then FSDP2; a signal to one process stops all. No row twice, none left out."""
    settings = replace(FOUR_ROWS, ema_decay=0.0)
    alone = losses(runs.alone("elastic-alone", "tied", settings))
    four = [
        runs.job("four", "tied", settings, Layout(), out="elastic", stop=2),
        runs.job("cut", "tied", settings, Layout(2), out="reshaped", stop=3),
        runs.job("hybrid", "tied", settings, Layout(1, 2, 2)),
        runs.job("lora-cut", "tied", LORA, Layout(2)),
        runs.job("lora-hybrid", "tied", LORA, Layout(1, 2, 2)),
        runs.job("muon-cut", "tied", MUON, Layout(2)),
    ]
    runs.together(4, four)
    two = [
        runs.job("two", "tied", settings, Layout(), out="elastic", stop=4),
        runs.job("fsdp2", "tied", settings, Layout(), out="reshaped"),
    ]
    newest = runs.folder / "elastic" / "checkpoints" / "step-000002" / "optimizer-00003-of-00004.pt"
    assert newest.is_file()
    runs.together(2, two)
    elastic, reshaped = runs.folder / "elastic", runs.folder / "reshaped"
    for out, name, ranks in ((elastic, "four", range(4)), (reshaped, "cut", range(4)), (elastic, "two", range(2))):
        for rank in ranks:
            assert "by SIGUSR1; run the same command to go on" in result(out, name, rank), (name, rank)
    taken = rows_taken(elastic, "four", range(4)) + rows_taken(elastic, "two", range(2))
    assert set(taken.values()) == {1}
    assert len(taken) == 4 * 4  # steps times rows
    train(
        runs.models["tied"], elastic, target=runs.target, replay=runs.replay, old_rows=OLD, settings=settings,
        compute=ONE_THREAD, log=Log(elastic / "log.txt", quiet=True),
    )  # fmt: skip
    assert "going on from step 4 of 6" in (elastic / "log.txt").read_text()
    assert losses(elastic) == pytest.approx(alone, abs=1e-5)
    assert result(reshaped, "fsdp2") == "done"
    assert losses(reshaped) == pytest.approx(alone, abs=1e-5)
    assert losses(runs.folder / "hybrid") == pytest.approx(alone, abs=1e-5)
    lora = losses(runs.alone("lora-alone-too", "tied", LORA))
    assert losses(runs.folder / "lora-cut") == pytest.approx(lora, abs=1e-5)
    assert losses(runs.folder / "lora-hybrid") == pytest.approx(lora, abs=1e-5)
    muon = losses(runs.alone("muon-alone-too", "tied", MUON))
    assert losses(runs.folder / "muon-cut") == pytest.approx(muon, abs=MUON_ROUNDS)


@pytest.mark.parametrize(("more", "ends"), [([], []), (["fails"], ["fails", "gone"])])
def test_a_crew_is_called_to_one_stage_after_the_other(more: list[str], ends: list[str], tmp_path: Path) -> None:
    child = Path(__file__).with_name("crew_child.py")
    done = process("--standalone", "--nproc-per-node", "2", child, tmp_path, *more, script="torch.distributed.run")
    assert done.code == 0, done.err[-4000:]
    assert [read_json(tmp_path / f"{rank}.json") for rank in (0, 1)] == [["pretrain", "align", *ends]] * 2
