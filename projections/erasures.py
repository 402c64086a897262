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
"""The text columns of a row; empty where it was deleted, or never was."""

TABLES = {"campaign": "campaigns", "job": "agent_jobs", "content": "content_assets", "cost": "budget_entries"}
"""Where the row of a stream is, by its category; other streams have none."""

TEXT_COLUMNS = {
    "campaigns": ("name", "description"),
    "agent_jobs": ("input_data", "output_data", "error_message"),
    "content_assets": ("title", "content", "metadata"),
    "budget_entries": ("description",),
}
"""The columns that come from free text."""


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
