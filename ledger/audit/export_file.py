"""Files that exports lie in: compressed by their name, there whole or not at all."""

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

STANDARD_STREAM = Path("-")

COMPRESSION_LEVEL = 6
"""The highest takes twice the time for a hundredth of the size."""

_GZIP_MAGIC = b"\x1f\x8b"


class ExportWriteError(LedgerError):
    """The export could not be written."""


class ExportReadError(LedgerError):
    """The export could not be opened."""


@contextmanager
def writing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield what writes to a new file, which bears its name only once it is whole and on disk; `-` is stdout.

    The same log gives the same bytes, compressed (`.gz`) or not. Only the owner may read the file: it holds the texts.

    Raises:
        ExportWriteError: there is a file of that name, or it cannot be written.
    """
    if path == STANDARD_STREAM:
        yield _write_all(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    if path.exists():
        raise ExportWriteError(f"{path} exists already; choose another name, or remove it")
    try:
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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
                _finish(file, raw, Path(unfinished), path)
            finally:
                with suppress(OSError):
                    file.close()
    finally:
        with suppress(FileNotFoundError):
            Path(unfinished).unlink()


def _write_all(file: IO[bytes]) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        try:
            file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ExportWriteError(f"the export cannot be written: {error.strerror}") from None

    return write


def _finish(file: IO[bytes], raw: IO[bytes], unfinished: Path, path: Path) -> None:
    try:
        if file is not raw:
            file.close()
        raw.flush()
        os.fsync(raw.fileno())
        # A link, unlike a rename, does not take the place of a file that came meanwhile.
        os.link(unfinished, path)
    except FileExistsError:
        raise ExportWriteError(f"{path} exists by now; it was left as it is") from None
    except OSError as error:
        raise ExportWriteError(f"{path} cannot be written: {error.strerror}") from None


class ExportFile:
    """An export opened for reading."""

    def __init__(self, raw: IO[bytes], lines: IO[bytes], size: int | None) -> None:
        self._raw = raw
        self.lines = lines
        self.size = size
        """Its bytes, compressed or not; None where nobody knows before the end."""

    @property
    def bytes_read(self) -> int:
        """How much of `size` has been read."""
        return self._raw.tell() if self.size is not None else 0


@contextmanager
def reading(path: Path) -> Iterator[ExportFile]:
    """Open an export, compressed or not whatever its name; `-` is stdin.

    Raises:
        ExportReadError: there is no such file, or it may not be read.
    """
    with ExitStack() as files:
        try:
            opened = sys.stdin.buffer if path == STANDARD_STREAM else files.enter_context(path.open("rb"))
            raw = cast("BufferedReader", opened)
            beginning = raw.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)]
        except OSError as error:
            raise ExportReadError(f"{path} cannot be read: {error.strerror}") from None
        lines = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if beginning == _GZIP_MAGIC else raw
        yield ExportFile(raw, lines, path.stat().st_size if path.is_file() else None)
