"""Exports of in-memory logs and signed checkpoints; roots are computed without the code under test."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ledger.audit.export_lines import ExportLine, read_lines, write_line
from ledger.audit.note import Signer, Verifier, sign
from ledger.audit.signed_checkpoint import Checkpoint
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Recorded
from ledger.domain.judge_ledger import judge_ledger
from ledger.domain.ledger_events import PAYLOAD_ERASED, PayloadErased
from ledger.domain.working_state import WorkingState
from ledger.log.prepare import prepare
from ledger.log.read import SaltedEvent
from tests.audit import naive
from tests.projections.helpers import MemoryLog, sample_history

ORIGIN = "ledger.example/log"
SIGNER = Signer.generate(ORIGIN)
ERASURE = CATALOGUE[PAYLOAD_ERASED]


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


def with_erasures(events: Sequence[Recorded], *indexes: int) -> list[Recorded]:
    """Erase texts of a log, and record each erasure at its end."""
    log, working_state = list(events), WorkingState(len(events), events[-1].recorded_at)
    working_state.versions |= {event.stream_id: event.version for event in events if event.category == "ledger"}
    for index in indexes:
        event = log[index]
        erasure = PayloadErased(
            position=event.position,
            category=event.category,
            stream_id=event.stream_id,
            event_type=event.type,
            size=event.size,
            by="somebody",
            reason="Asked to",
        )
        judge_ledger(working_state, prepare(ERASURE, erasure, actor="local", stream_id=event.stream_id))
        log[index] = erased(event)
    return [*log, *working_state.events]


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
