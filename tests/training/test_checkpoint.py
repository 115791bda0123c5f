"""Checkpoints are whole or absent; damage is found and stepped over."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from langgraft.errors import DiskFullError, TrainingError
from langgraft.progress import Log
from langgraft.training import checkpoint
from langgraft.training.checkpoint import MANIFEST, check, load_latest, name_of, save

FILES = ["model.pt", "optimizer.pt", "progress.json", MANIFEST]


def state(value: float) -> dict[str, Any]:
    return {
        "model": {"weight": torch.full((3, 4), value)},
        "optimizer": {"state": {0: {"step": torch.tensor(value)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "progress": {"step": value, "seconds": 1.5},
    }


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 5, state(5))
    found = load_latest(tmp_path, Log(quiet=True))
    assert found is not None
    step, loaded = found
    assert step == 5
    assert torch.equal(loaded["model"]["weight"], state(5)["model"]["weight"])
    assert loaded["optimizer"]["param_groups"] == [{"lr": 0.1, "params": [0]}]
    assert loaded["progress"] == {"step": 5, "seconds": 1.5}


def test_no_checkpoint_is_none_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step-000007-123").mkdir()
    assert load_latest(tmp_path, Log(quiet=True)) is None
    assert names(tmp_path) == []


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step, state(step), keep=keep)
    assert names(tmp_path) == [name_of(s) for s in (10, 20, 30, 40)[-keep:]]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        save(tmp_path, step, state(1))
    found = load_latest(tmp_path, Log(quiet=True))
    assert found is not None
    assert found[0] == 1_000_000


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["gone", "short", "flipped"])
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, file: str, damage: str) -> None:
    save(tmp_path, 1, state(1))
    broken = save(tmp_path, 2, state(2)) / file
    content = broken.read_bytes()
    if damage == "gone":
        broken.unlink()
    elif damage == "short":
        broken.write_bytes(content[: len(content) // 2])
    else:
        middle = content.index(b"sha256") if file == MANIFEST else len(content) // 2
        broken.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert check(broken.parent) is not None
    log = Log(tmp_path / "log.txt", quiet=True)
    found = load_latest(tmp_path, log)
    assert found is not None
    assert found[0] == 1
    assert "step-000002 is damaged" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("manifest", ["null", "[]", '{"files": []}', '{"files": {"model.pt": 3}}', "{}"])
def test_a_manifest_of_another_shape_is_damage(tmp_path: Path, manifest: str) -> None:
    folder = save(tmp_path, 1, state(1))
    (folder / MANIFEST).write_text(manifest)
    assert "manifest" in (check(folder) or "")


def test_no_byte_of_a_manifest_can_change_unseen(tmp_path: Path) -> None:
    path = save(tmp_path, 12, state(1)) / MANIFEST
    content = path.read_bytes()
    for place in range(0, len(content), 2):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert check(path.parent) is not None, place
        path.write_bytes(content[:place])
        assert check(path.parent) is not None, place
    path.write_bytes(content)
    assert check(path.parent) is None


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step, state(step)) / "model.pt").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"every checkpoint in .* is damaged; delete that folder"):
        load_latest(tmp_path, Log(quiet=True))


def test_a_damaged_newer_one_does_not_push_out_a_whole_one(tmp_path: Path) -> None:
    save(tmp_path, 20, state(20), keep=1)
    save(tmp_path, 40, state(40), keep=2)
    (tmp_path / name_of(40) / "model.pt").write_bytes(b"")
    save(tmp_path, 30, state(30), keep=1)
    assert names(tmp_path) == [name_of(30)]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    save(tmp_path, 1, state(1))
    (save(tmp_path, 2, state(2)) / "model.pt").write_bytes(b"")
    save(tmp_path, 2, state(2))
    assert check(tmp_path / name_of(2)) is None
    assert names(tmp_path) == [name_of(1), name_of(2)]


@pytest.mark.parametrize("fail_at", ["torch", "json"])
def test_a_failure_while_writing_leaves_what_was(tmp_path: Path, fail_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, state(1))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((torch, "save", full) if fail_at == "torch" else (checkpoint, "write_json", full)))
    with pytest.raises(DiskFullError, match=r"no space left on the device while writing .*step-000002"):
        save(tmp_path, 2, state(2))
    assert names(tmp_path) == [name_of(1)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_os_error_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save hides a full disk in a RuntimeError when it opens the file itself."""
    real = Path.open

    def to_full(path: Path, *args: Any, **options: Any) -> Any:
        return real(Path("/dev/full") if path.suffix == ".pt" else path, *args, **options)

    monkeypatch.setattr(Path, "open", to_full)
    with pytest.raises(DiskFullError):
        save(tmp_path, 2, {"model": {"weight": torch.zeros(1000, 1000)}})
    assert names(tmp_path) == []


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    folder = save(tmp_path, 3, state(3))
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["step"] == 3
    assert sorted(manifest["files"]) == sorted(f for f in names(folder) if f != MANIFEST)
