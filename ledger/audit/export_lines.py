"""NDJSON lines of an export: an event's log entry, its free text, the salt of the text's commitment.

`{"entry":{…},"salt":"<hex>" or null,"text":{…} or null}`, with the entry and the text byte for byte as they are hashed.
Reading is strict: each event has exactly one valid line.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Annotated, NamedTuple

import msgspec

from ledger.audit.log_entry import EntryError, commitment, encode_entry, parse_entry
from ledger.domain.codec import InvalidFieldError, utc
from ledger.domain.errors import LedgerError
from ledger.domain.event import Recorded
from ledger.domain.json_text import check_text
from ledger.domain.log_history import InvalidLogError
from ledger.log.read import SaltedEvent
from ledger.log.request_body import BODY_BYTES_MAX

LINE_BYTES_MAX = 2 * BODY_BYTES_MAX
"""Limits the memory of a reader. Longer than the line of any event that fits in a request."""

_NULL = b"null"


class ExportError(LedgerError):
    """A line of the export is invalid."""

    def __init__(self, line: int, detail: str, position: int | None = None) -> None:
        """Prefix the message with the line and the position.

        Args:
            line: number of the line, from 1.
            detail: what is wrong with it.
            position: of its event, if that could be read.
        """
        prefix = f"line {line:,}" if position is None else f"line {line:,} (position {position:,})"
        super().__init__(f"{prefix}: {detail}")
        self.line = line
        self.position = position


class ExportLine(NamedTuple):
    """A line: its number from 1, the hashed entry, and the event (with `over_budget` and `size` not set)."""

    number: int
    entry: bytes
    event: Recorded


@contextmanager
def at_line(line: ExportLine) -> Iterator[None]:
    """Turn an `InvalidLogError` into an `ExportError` that names the line."""
    try:
        yield
    except InvalidLogError as error:
        raise ExportError(line.number, error.detail, line.event.position) from None


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entry: msgspec.Raw
    # \Z, since $ also matches before a newline at the end.
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")] | None
    text: msgspec.Raw


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Line)


def write_line(event: SaltedEvent) -> bytes:
    """Return the line of an event, with its newline.

    Raises:
        EntryError: the entry would be too long.
    """
    salt = f'"{event.text_salt.hex()}"'.encode() if event.text_salt is not None else _NULL
    text = event.text.encode() if event.text is not None else _NULL
    return b'{"entry":' + encode_entry(event) + b',"salt":' + salt + b',"text":' + text + b"}\n"


def read_lines(file: IO[bytes]) -> Iterator[ExportLine]:
    """Read an export line by line.

    Raises:
        ExportError: a line is not exactly what `write_line` writes, its text does not match the commitment, or the
            file ends in the middle of a line.
    """
    number = 1
    while line := _next_line(file, number):
        yield _read_line(number, line)
        number += 1


def _next_line(file: IO[bytes], number: int) -> bytes:
    try:
        line = file.readline(LINE_BYTES_MAX + 1)
    except EOFError:
        raise ExportError(number, "the file ends in the middle of its compressed data: it was truncated") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ExportError(number, f"the compressed data is damaged: {error}") from None
    except OSError as error:
        raise ExportError(number, f"the file cannot be read: {error.strerror or error}") from None
    if len(line) > LINE_BYTES_MAX:
        raise ExportError(number, f"the line is longer than {LINE_BYTES_MAX:,} bytes")
    if line and not line.endswith(b"\n"):
        raise ExportError(number, "the file ends in the middle of the line: it was truncated")
    return line


def _read_line(number: int, line: bytes) -> ExportLine:
    content = line[:-1]
    try:
        check_text(content)
        parsed = _DECODER.decode(content)
        if _ENCODER.encode(parsed) != content:
            raise ExportError(number, "the line is not in the form in which an export is written")
        entry = bytes(parsed.entry)
        event = _event(number, entry, parsed.salt, bytes(parsed.text))
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError, EntryError, InvalidFieldError) as error:
        raise ExportError(number, str(error)) from None
    return ExportLine(number, entry, event)


def _event(number: int, entry_bytes: bytes, salt: str | None, text: bytes) -> Recorded:
    entry = parse_entry(entry_bytes)
    free_text = None if text == _NULL else text
    if (free_text is None) != (salt is None):
        raise ExportError(number, "a text must have a salt, and a salt must have a text", entry.position)
    if free_text is not None and salt is not None:
        if not free_text.startswith(b"{") or msgspec.json.format(free_text, indent=-1) != free_text:
            raise ExportError(number, "the text is not a compact JSON object", entry.position)
        if commitment(bytes.fromhex(salt), free_text) != entry.text_commitment:
            raise ExportError(number, "the text does not match the commitment in the entry", entry.position)
    return Recorded(
        position=entry.position,
        category=entry.category,
        stream_id=entry.stream_id,
        version=entry.version,
        id=entry.id,
        type=entry.type,
        schema_version=entry.schema_version,
        occurred_at=utc("occurred_at", datetime.fromisoformat(entry.occurred_at)),
        recorded_at=utc("recorded_at", datetime.fromisoformat(entry.recorded_at)),
        actor=entry.actor,
        campaign_id=entry.campaign_id,
        agent_job_id=entry.agent_job_id,
        correlation_id=entry.correlation_id,
        causation_id=entry.causation_id,
        data=bytes(entry.data).decode(),
        text=free_text.decode() if free_text is not None else None,
        text_salt=bytes.fromhex(salt) if salt is not None else None,
        text_commitment=entry.text_commitment,
        over_budget=None,
        size=0,
    )
