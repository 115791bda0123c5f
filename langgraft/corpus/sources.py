"""Turn an `Input` into files. Light to import: planning uses it to fingerprint what a recipe names."""

import difflib
import glob
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from langgraft.corpus.document import Input
from langgraft.corpus.streams import COMPRESSIONS
from langgraft.errors import CorpusError

# Suffix (without the compression's) -> reader. The content of `.txt`, `.json` and `.csv` is looked at as well.
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "text",
    ".text": "text",
    ".csv": "delimited",
    ".tsv": "delimited",
    ".md": "markdown",
    ".mdx": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".epub": "epub",
    ".parquet": "parquet",
    ".xml": "mediawiki",
    ".tar": "wikimedia_html",
    ".tgz": "wikimedia_html",
    ".srt": "subtitles",
    ".vtt": "subtitles",
    ".po": "po",
    ".mo": "mo",
    ".tmx": "tmx",
    ".dict": "dictd",
    ".conllu": "conllu",
    ".cha": "chat",
    ".idx": "megatron",
}
# Dictionaries that are handed out without a suffix.
_NAMES = ("edict", "enamdict", "cedict")
# Suffix -> that of a file that is read beside it.
_BESIDE = {".idx": ".bin"}
PACKAGE, HUB = "package:", "hub:"


def is_hub(source: Input) -> bool:
    """Whether the input is a data set on the Hugging Face hub (which has no local files)."""
    return source.path.startswith(HUB)


def reader_for(path: Path) -> str | None:
    """The reader's name for a file's suffix, or None. Wikipedia's own `….xml-p10p30302.bz2` counts as XML."""
    stem = path.name.lower()
    for suffix in COMPRESSIONS:
        stem = stem.removesuffix(suffix)
    if ".xml-p" in stem:
        return "mediawiki"
    if stem.startswith(_NAMES):
        return "edict"
    return SUFFIXES.get(Path(stem).suffix)


def resolve(source: Input) -> list[Path]:
    """The files an input names, sorted; empty for `hub:`. Reads directory entries only, never a file.

    Folders are searched with their subfolders; hidden files are left out, and so are, unless a reader is
    named, files that no reader knows by their suffix.

    Raises:
        CorpusError: nothing is there, or the package is not installed.
    """
    if is_hub(source):
        return []
    pattern = _in_package(source.path) if source.path.startswith(PACKAGE) else source.path
    path = Path(pattern).expanduser()
    if path.is_dir():
        return _in_folder(path, source)
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if found:
            return found
        raise CorpusError(f"no file matches {source.path!r}")
    raise CorpusError(f"{source.path} does not exist{_hint(path)}")


def with_companions(files: Sequence[Path]) -> list[Path]:
    """`files`, and those that their readers open beside them; for fingerprints of what is read."""
    beside = {path: path.with_suffix(_BESIDE[path.suffix]) for path in files if path.suffix in _BESIDE}
    return [*files, *(path for path in beside.values() if path.is_file())]


def _in_folder(folder: Path, source: Input) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    visible = [f for f in files if not any(part.startswith(".") for part in f.relative_to(folder).parts)]
    known = [f for f in visible if source.reader != "auto" or reader_for(f)]
    if not known:
        what = f"{len(visible)} files, none with a suffix that a reader knows" if visible else "no file"
        raise CorpusError(
            f"the folder {source.path} holds {what}; known suffixes are {', '.join(sorted(SUFFIXES))} "
            f"(also with {', '.join(COMPRESSIONS)}), or name a reader"
        )
    return known


def _in_package(spec: str) -> str:
    name, _, inside = spec.removeprefix(PACKAGE).partition("/")
    # A top-level name is looked up without running the package's code.
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    folders: Iterable[str] = (found.submodule_search_locations or ()) if found else ()
    folder = next(iter(folders), None)
    if folder is None:
        raise CorpusError(
            f"{spec!r} needs the Python package {name!r}, which is not installed; install it (pip install {name})"
        )
    return str(Path(folder) / inside) if inside else folder


def _hint(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor does the folder {path.parent})"
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3, cutoff=0.6)
    return f"; in the same folder there is {', '.join(close)}" if close else ""
