import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraft.errors import BusyError, DiskFullError, InputError
from langgraft.store import (
    atomic_write,
    disk_errors,
    fingerprint,
    lock,
    one_at_a_time,
    read_json,
    sha256_file,
    staged_folder,
    write_json,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    atomic_write(path, "一")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic_write(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"no space left on the device while writing .*file; free some space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_quota_counts_as_full(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError), disk_errors(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_libraries_in_rust_name_a_full_disk_only_in_words(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError), disk_errors(tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("error", [ValueError("os error 2"), PermissionError(errno.EACCES, "no")])
def test_other_errors_pass(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), disk_errors(tmp_path):
        raise error


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with staged_folder(target) as staging:
        (staging / "new").write_text("1")
        assert not target.exists()
    with staged_folder(target) as staging:
        (staging / "newer").write_text("2")
    assert os.listdir(target) == ["newer"]
    assert os.listdir(tmp_path) == ["folder"]


def test_a_failed_folder_vanishes_and_the_old_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with staged_folder(target) as staging:
        (staging / "old").write_text("1")
    with pytest.raises(DiskFullError, match="folder"), staged_folder(target) as staging:  # noqa: PT012
        (staging / "half").write_text("2")
        full()
    assert os.listdir(target) == ["old"]
    assert os.listdir(tmp_path) == ["folder"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"mount is not allowed here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_really_full_disk(small_disk: Path) -> None:
    import torch
    from safetensors.torch import save_file

    with pytest.raises(DiskFullError):
        atomic_write(small_disk / "file", bytes(1_000_000))
    assert os.listdir(small_disk) == []
    with pytest.raises(DiskFullError), staged_folder(small_disk / "model") as staging:
        save_file({"a": torch.zeros(100_000)}, staging / "model.safetensors")
    assert os.listdir(small_disk) == []


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)
    for broken in (b"{", b"\xff"):
        (tmp_path / "broken.json").write_bytes(broken)
        with pytest.raises(InputError, match=r"broken\.json is not valid JSON"):
            read_json(tmp_path / "broken.json")


def test_json_round_trip_keeps_order_and_script(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "粵", "a": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": "粵",\n  "a": 1\n}\n'
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_fingerprint_ignores_the_order_of_keys_only(value: dict[str, object]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
    assert fingerprint(value) == fingerprint(json.loads(json.dumps(value)))
    assert fingerprint(value) != fingerprint({**value, "\0more": 1})


def test_a_fingerprint_refuses_what_has_no_stable_form() -> None:
    for value in ({1, 2}, Path("a"), object()):
        with pytest.raises(TypeError):
            fingerprint(value)
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(float("nan"))


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf")


def hold(folder: Path, ready: object, done: object) -> None:
    with lock(folder, what="a run"):
        ready.set()  # type: ignore[attr-defined]
        done.wait(20)  # type: ignore[attr-defined]


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, done))
    process.start()
    try:
        assert ready.wait(60)
        with (
            pytest.raises(BusyError, match=rf"in use by process {process.pid} on .* \(a run\)"),
            lock(tmp_path, what="mine"),
        ):
            pytest.fail("two processes hold one lock")
    finally:
        process.kill()
        process.join()
    with lock(tmp_path, what="mine"):  # died with its holder
        assert (tmp_path / ".lock").read_text().endswith("(mine)")
    assert (tmp_path / ".lock").read_text() == ""


def test_a_look_at_the_lock_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as `langgraft status` does, for less time
        threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with lock(tmp_path, what="mine"):
            assert "mine" in (tmp_path / ".lock").read_text()


def test_shared_locks_let_each_other_in_and_nobody_else(tmp_path: Path) -> None:
    parts = (lock(tmp_path, what="part 1", shared=True), lock(tmp_path, what="part 2", shared=True))
    with parts[0], parts[1], pytest.raises(BusyError, match="part 2"), lock(tmp_path, what="whole"):
        pytest.fail("held beside others")
    with lock(tmp_path, what="whole"), pytest.raises(BusyError), lock(tmp_path, what="part 1", shared=True):
        pytest.fail("held beside another")


def test_one_at_a_time_waits_for_its_turn(tmp_path: Path) -> None:
    seen: list[str] = []

    def second() -> None:
        with one_at_a_time(tmp_path / "work"):
            seen.append("second")

    other = threading.Thread(target=second)
    with one_at_a_time(tmp_path / "work"):
        other.start()
        other.join(0.2)
        seen.append("first")
    other.join()
    assert seen == ["first", "second"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(InputError, match="file system without locks"), lock(tmp_path, what="mine"):
        pytest.fail("held without a lock")
