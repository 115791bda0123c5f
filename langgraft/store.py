"""Run folders: atomic files and folders, fingerprints, locks.

Whatever exists under its final name is complete: files and folders are written beside their target under a
temporary name, flushed to the device, then renamed.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from langgraft.errors import BusyError, DiskFullError, InputError, LanggraftError

TEMPORARY = ".tmp-"


def _is_full(error: BaseException | None) -> bool:
    """Whether the device or the quota is full.

    Libraries written in Rust tell only by their message, and torch fails once more while it closes the file.
    """
    if error is None or isinstance(error, LanggraftError):
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    told = any(f"(os error {number})" in str(error) for number in (errno.ENOSPC, errno.EDQUOT))
    return told or _is_full(error.__context__)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" under this block into one sentence that names `path`.

    Raises:
        DiskFullError: the device or the quota is full.
    """
    try:
        yield
    except Exception as error:
        if _is_full(error):
            raise DiskFullError(
                f"no space left on the device while writing {path}; free some space and run the same command again"
            ) from error
        raise


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) so that `path` is either the old file or the whole new one.

    Raises:
        DiskFullError: no space is left; `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    payload = data.encode("utf-8") if isinstance(data, str) else data
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON with `atomic_write`; keys keep their order."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error


@contextlib.contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield a name beside `target`; its file becomes `target` if the block ends well, and vanishes otherwise.

    Raises:
        DiskFullError: no space is left; `target` is untouched.
    """
    temporary = target.with_name(f"{TEMPORARY}{target.name}-{os.getpid()}")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
            fsync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the block ends well, and vanishes when it does not.

    An older `target` is replaced only at the end.

    Raises:
        DiskFullError: no space is left; `target` is untouched.
    """
    target = Path(target)
    staging = target.with_name(f"{TEMPORARY}{target.name}-{os.getpid()}")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            fsync_tree(staging)
            if target.exists():
                old = target.with_name(f"{TEMPORARY}old-{target.name}-{os.getpid()}")
                target.rename(old)
                staging.rename(target)
                shutil.rmtree(old)
            else:
                staging.rename(target)
            fsync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def fsync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the device."""
    for root, _, files in os.walk(folder):
        for name in files:
            descriptor = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(root))


def sha256_file(path: Path) -> str:
    """Hash a file's content; hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Hash anything with one stable JSON form; hexadecimal.

    Raises:
        TypeError: `value` holds something without a stable JSON form (a path, a set, an object): pass its
            identity instead.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@contextlib.contextmanager
def lock(folder: Path, *, what: str, shared: bool = False) -> Iterator[None]:
    """Hold `folder` for this process; the lock dies with the process, however it ends.

    A `shared` lock lets others in that are shared too, and keeps out those that are not.

    Raises:
        BusyError: another process holds it; the message says which.
        InputError: the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            _flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BusyError(f"{folder} is in use by {holder}; wait for it, or give this recipe another name") from error
        except OSError as error:
            raise InputError(
                f"{folder} is on a file system without locks ({error.strerror}); put the run on another one"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename} ({what})")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _flock(file: IO[str], how: int) -> None:
    """Lock a file, not giving up at once: `langgraft status`, to see whether it is locked, holds it for an instant."""
    for _ in range(5):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return
        time.sleep(0.05)
    fcntl.flock(file, how | fcntl.LOCK_NB)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process into the block after the other, on any machine that shares `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".turn").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
