"""Erasures folded into the row of the stream that lost a text.

The row shows from then on what the events of its stream say without it: '', {} or null, or an older text that was not
erased. What they say is read from the log (`projections.texts`) and handed in.
"""

from collections.abc import Mapping
from typing import Any

from ledger.domain.catalogue import decode_stored
from ledger.domain.ledger_events import PAYLOAD_ERASED, PayloadErased
from ledger.log.read import StoredEvent
from projections.rows import Rows

Texts = Mapping[str, str | None]
"""The free-text columns of a row; empty if it was deleted, or never existed."""


def erased_by(event: StoredEvent) -> PayloadErased | None:
    """What an event says was erased; None where it is no erasure."""
    if event.type != PAYLOAD_ERASED:
        return None
    payload = decode_stored(event.type, event.schema_version, event.data, event.text)
    assert isinstance(payload, PayloadErased)
    return payload


def fold(event: StoredEvent, erased: PayloadErased, rows: Rows[Any], texts: Mapping[int, Texts]) -> None:
    """Fold an erasure; a row that was deleted stays so."""
    row = rows.change(erased.stream_id, event)
    if row is not None and event.position in texts:
        rows.retell(row, texts[event.position])
