"""Folds erasures into the row of the stream whose text was erased.

From then on the row shows its stream's events without that text: '', {} or null, or an older text that was not erased.
These texts are read from the log (`projections.erased_texts`) and passed in.
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
    """Return the data of an erasure; None for any other event."""
    if event.type != PAYLOAD_ERASED:
        return None
    payload = decode_stored(event.type, event.schema_version, event.data, event.text)
    assert isinstance(payload, PayloadErased)
    return payload


def fold_erasure(event: StoredEvent, erased: PayloadErased, rows: Rows[Any], texts: Mapping[int, Texts]) -> None:
    """Fold an erasure; a row that was deleted stays deleted.

    Args:
        event: the erasure.
        erased: its decoded data.
        rows: of the read model that the erased event's stream has a row in.
        texts: the row's texts from then on, by position of an erasure. If this one is missing, the row's events were
            read after the erasure, so that the row has these texts already.
    """
    row = rows.change(erased.stream_id, event)
    if row is not None and event.position in texts:
        rows.overwrite_texts(row, texts[event.position])
