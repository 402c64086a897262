"""Exports of in-memory logs and signed checkpoints; roots are computed without the code under test."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ledger.audit.export_lines import ExportLine, read_lines, write_line
from ledger.audit.note import Signer, Verifier, sign
from ledger.audit.signed_checkpoint import Checkpoint
from ledger.domain.event import Recorded
from ledger.log.read import SaltedEvent
from tests.audit import naive
from tests.projections.helpers import MemoryLog, sample_history

ORIGIN = "ledger.example/log"
SIGNER = Signer.generate(ORIGIN)


class _Line(msgspec.Struct):
    entry: msgspec.Raw


def recorded(*requests: object) -> list[Recorded]:
    """Return the events that an in-memory ledger records for these requests."""
    log = MemoryLog()
    log.append(*requests)  # type: ignore[arg-type]
    return list(log.working_state.events)


def recorded_story() -> list[Recorded]:
    return recorded(*sample_history())


def erased(event: Recorded) -> Recorded:
    """Return the event as it is after an erasure."""
    return event._replace(text=None, text_salt=None)


def line_of(event: Recorded) -> bytes:
    return write_line(SaltedEvent(*(getattr(event, field) for field in SaltedEvent.__struct_fields__)))


def export_of(events: Iterable[Recorded]) -> bytes:
    return b"".join(line_of(event) for event in events)


def read(export: bytes) -> list[ExportLine]:
    return list(read_lines(io.BytesIO(export)))


class Signed(NamedTuple):
    """A signed checkpoint and the key to verify it with."""

    note: bytes
    verifier: Verifier

    @property
    def size(self) -> int:
        return int(self.note.splitlines()[1])


def checkpoint_of(export: bytes, size: int | None = None, signer: Signer = SIGNER, origin: str = ORIGIN) -> Signed:
    """Sign a checkpoint for the first `size` lines of an export; for all of them if None."""
    entries = [bytes(msgspec.json.decode(line, type=_Line).entry) for line in export.splitlines()[:size]]
    text = Checkpoint(origin, len(entries), naive.root(leaves(entries))).text
    return Signed(sign(text, signer), signer.verifier)


def leaves(entries: Sequence[bytes]) -> list[bytes]:
    return [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
