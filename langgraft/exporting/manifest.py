"""`langgraft_export.json`: size and sha256 of every file of an export, written last, so that it proves a whole one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraft.errors import InputError, ModelError
from langgraft.store import TEMPORARY, read_json, sha256_file, write_json

MANIFEST = "langgraft_export.json"
FAILED = ".failed"  # put behind the name of a file that a check refused


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """name -> `{bytes, sha256}` of every file below a folder, but the manifest, the card and refused files."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in (MANIFEST, "README.md")
        and not path.name.startswith(TEMPORARY)
        and path.suffix != FAILED
    }


def write_manifest(folder: Path, kind: str, gates: Sequence[dict[str, Any]] = ()) -> dict[str, dict[str, Any]]:
    """Write the manifest of a finished export; returns the files it lists.

    Args:
        kind: the format, a name of `EXPORTS`.
        gates: the checks that were made, as the export prints them.
    """
    files = inventory(folder)
    checks = [{key: gate[key] for key in ("name", "passed", "value")} for gate in gates]
    write_json(folder / MANIFEST, {"version": 1, "format": kind, "files": files, "gates": checks})
    return files


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {MANIFEST}: the export did not finish, a check failed, or it was not made here; "
            "export the model again"
        )
    try:
        found: dict[str, Any] = read_json(path)
        if isinstance(found["files"], dict) and isinstance(found["format"], str):
            return found
    except (InputError, KeyError, TypeError):
        pass
    raise ModelError(f"{path} is damaged; export the model again")


def manifest_gates(folder: Path) -> list[dict[str, Any]]:
    """Whether a folder still holds what was exported, file by file; further files are allowed.

    Raises:
        ModelError: there is no manifest.
    """
    folder = Path(folder)
    listed = read_manifest(folder)["files"]
    missing = [name for name in listed if not (folder / name).is_file()]
    changed = [
        name
        for name, entry in listed.items()
        if name not in missing
        and ((folder / name).stat().st_size != entry["bytes"] or sha256_file(folder / name) != entry["sha256"])
    ]
    value = f"{len(listed)} files" + (f"; missing: {', '.join(missing)}" if missing else "")
    value += f"; changed: {', '.join(changed)}" if changed else ""
    return [
        {
            "name": "every file is as it was exported",
            "passed": not missing and not changed,
            "value": value,
            "bound": "all",
            "detail": "",
        }
    ]
