"""Export files: written atomically, gzip-compressed if the name ends in `.gz`; read compressed or not."""

import gzip
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

from ledger.domain.errors import LedgerError
from ledger.durable_files import sync_folder

STANDARD_STREAM = Path("-")

COMPRESSION_LEVEL = 6
"""The highest level takes twice as long and saves only 1 % of the size."""

_GZIP_MAGIC = b"\x1f\x8b"


class ExportWriteError(LedgerError):
    """The export could not be written."""


class ExportReadError(LedgerError):
    """The export could not be opened."""


@contextmanager
def create_export(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Create an export file and yield a function that writes to it; `-` is stdout.

    The file gets its name only when it is complete and on disk. The same log gives the same bytes, compressed or not.
    Only the owner may read the file, since it contains free text.

    Raises:
        ExportWriteError: a file of that name exists, or the file cannot be written.
    """
    if path == STANDARD_STREAM:
        yield _write_all(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    if path.exists():
        raise ExportWriteError(f"{path} already exists; choose another name, or remove it")
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ExportWriteError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with ExitStack() as files:
            raw = files.enter_context(os.fdopen(descriptor, "wb"))
            file: IO[bytes] = raw
            if path.suffix == ".gz":
                file = cast("IO[bytes]", gzip.GzipFile("", "wb", COMPRESSION_LEVEL, raw, mtime=0))
            try:
                yield _write_all(file)
                _finish(file, raw, Path(temporary), path)
            finally:
                with suppress(OSError):
                    file.close()
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


def _write_all(file: IO[bytes]) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        try:
            file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ExportWriteError(f"the export cannot be written: {error.strerror}") from None

    return write


def _finish(file: IO[bytes], raw: IO[bytes], temporary: Path, path: Path) -> None:
    try:
        if file is not raw:
            file.close()
        raw.flush()
        os.fsync(raw.fileno())
        # Unlike a rename, a link does not overwrite a file that was created in the meantime.
        os.link(temporary, path)
        sync_folder(path.parent)
    except FileExistsError:
        raise ExportWriteError(f"{path} was created by another process meanwhile; it was left unchanged") from None
    except OSError as error:
        raise ExportWriteError(f"{path} cannot be written: {error.strerror}") from None


class ExportFile:
    """An export opened for reading."""

    def __init__(self, raw: IO[bytes], lines: IO[bytes], size: int | None) -> None:
        """Wrap an open file.

        Args:
            raw: the file as stored; `bytes_read` counts its bytes.
            lines: the decompressed content.
            size: bytes of `raw`; None if unknown.
        """
        self._raw = raw
        self.lines = lines
        self.size = size
        """Bytes of the file as stored; None if unknown, as for stdin."""

    @property
    def bytes_read(self) -> int:
        """Bytes of the stored file read so far; 0 if `size` is unknown."""
        return self._raw.tell() if self.size is not None else 0


@contextmanager
def open_export(path: Path) -> Iterator[ExportFile]:
    """Open an export; compression is detected from the content, not the name. `-` is stdin.

    Raises:
        ExportReadError: the file does not exist, or cannot be read.
    """
    with ExitStack() as files:
        try:
            opened = sys.stdin.buffer if path == STANDARD_STREAM else files.enter_context(path.open("rb"))
            raw = cast("BufferedReader", opened)
            first_bytes = raw.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)]
        except OSError as error:
            raise ExportReadError(f"{path} cannot be read: {error.strerror}") from None
        lines = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if first_bytes == _GZIP_MAGIC else raw
        yield ExportFile(raw, lines, path.stat().st_size if path.is_file() else None)
