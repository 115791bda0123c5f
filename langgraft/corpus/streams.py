"""Open files, compressed or not, and say clearly what is wrong with them."""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from langgraft.corpus.document import Report
from langgraft.errors import CorpusError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_CHUNK = 1 << 16
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class _ZstdReader(io.RawIOBase):
    """Decompresses Zstandard frames and, unlike the library's reader, notices when the last is cut short."""

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._new = zstandard.ZstdDecompressor().decompressobj
        self._raw, self._frame, self._buffer, self._fresh = raw, self._new(), b"", True

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._buffer:
            data = self._raw.read(_CHUNK)
            if self._frame.eof:
                data = self._frame.unused_data + data
                self._frame, self._fresh = self._new(), True
            if not data:
                if self._fresh:
                    return 0
                raise EOFError("the last Zstandard frame has no end")
            self._buffer, self._fresh = self._frame.decompress(data), False
        n = min(len(target), len(self._buffer))
        target[:n], self._buffer = self._buffer[:n], self._buffer[n:]
        return n


def _decompressed(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if suffix == ".zst":
        return io.BufferedReader(_ZstdReader(raw), _CHUNK)
    return raw


def _without_bom(start: bytes, path: Path) -> bytes:
    if start.startswith(_UTF16):
        raise CorpusError(f"{path} is UTF-16 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    return start.removeprefix(_BOM)


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


@contextlib.contextmanager
def opened(path: Path, report: Report) -> Iterator[BinaryIO]:
    """Open `path` for reading bytes, decompressing by suffix; `report` follows how far the file was read.

    Raises:
        CorpusError: the file cannot be opened, or its compressed data is damaged or cut short.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as raw:
            report.raw = raw
            try:
                yield _decompressed(raw, suffix)
            except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
                raise CorpusError(_damage(path, error)) from error
            except OSError as error:
                if suffix == ".bz2" and error.errno is None:  # bz2 has no exception of its own
                    raise CorpusError(_damage(path, error)) from error
                raise
            except Exception as error:
                if suffix == ".zst" and isinstance(error, _zstd_error()):
                    raise CorpusError(_damage(path, error)) from error
                raise
            finally:
                report.raw = None
                report.bytes_done += path.stat().st_size
    except (PermissionError, IsADirectoryError, FileNotFoundError) as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error


def _damage(path: Path, error: Exception, lines: int | None = None) -> str:
    after = "" if lines is None else f" after {lines:,} lines"
    what = "is cut short" if isinstance(error, EOFError) else f"is damaged or is no {path.suffix} file"
    return f"{path} {what}{after}: {error}; get a complete copy of the file"


def raw_lines(path: Path, report: Report) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, bytes without the line end), without a byte order mark.

    Raises:
        CorpusError: the file is UTF-16, damaged, or cut short (with the number of lines that could be read).
    """
    number = 0
    try:
        with opened(path, report) as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = _without_bom(line, path)
                yield number, line.rstrip(b"\r\n")
    except CorpusError as error:
        if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError | PermissionError):
            raise
        raise CorpusError(_damage(path, error.__cause__, number)) from error.__cause__  # type: ignore[arg-type]


def lines(path: Path, report: Report) -> Iterator[tuple[int, str]]:
    """Like `raw_lines`, decoded; lines that are not UTF-8 are skipped and counted as "invalid_utf8"."""
    for number, raw in raw_lines(path, report):
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError:
            report.note("invalid_utf8", f"{path}:{number}")


def whole(path: Path, report: Report) -> bytes:
    """All bytes of a file, decompressed and without a byte order mark.

    Raises:
        CorpusError: as `opened`, or the file is UTF-16.
    """
    with opened(path, report) as file:
        data = file.read()
    return _without_bom(data, path)
