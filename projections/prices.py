"""Folds price events into `prices`: a row for each event, and the end of the price before it."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile
from typing import Any
from uuid import uuid5

import msgspec

from ledger.domain.codec import EventData
from ledger.domain.price import PricePublished, PriceWithdrawn
from ledger.log.read import StoredEvent
from projections.price_rows import PriceRow, PriceRows


def fold(event: StoredEvent, payload: EventData, rows: PriceRows) -> None:
    """Fold a price event.

    Args:
        event: the stored event.
        payload: its decoded data.
        rows: all rows of the streams that the page touches.
    """
    others = rows.of_stream(event.stream_id)
    assert isinstance(payload, PricePublished | PriceWithdrawn)
    index = bisect_right(others, payload.effective_from, key=lambda other: other.effective_from)
    if isinstance(payload, PricePublished):
        row = _published(event, payload)
        _rename_withdrawals(event, row, others[index:], rows)
    else:
        row = _withdrawn(event, payload, others[max(index - 1, 0)])
    if index:
        rows.change(others[index - 1].id, event)
        others[index - 1].effective_to = row.effective_from
    row.effective_to = others[index].effective_from if index < len(others) else None
    rows.add(row)


def _rename_withdrawals(event: StoredEvent, row: PriceRow, later: Sequence[PriceRow], rows: PriceRows) -> None:
    """Give the withdrawals that end a new price its names and prefixes; most prices are the last of their stream.

    Args:
        event: the stored event.
        row: the row of the new price.
        later: the rows of its stream that are effective later, by time.
        rows: all rows of the streams that the page touches.
    """
    for withdrawal in takewhile(lambda other: other.withdrawn, later):
        rows.change(withdrawal.id, event)
        withdrawal.names, withdrawal.prefixes = row.names, row.prefixes


def _common(event: StoredEvent) -> dict[str, Any]:
    return {
        # The same event id may be in several streams.
        "id": uuid5(event.stream_id, str(event.id)),
        "created_at": event.recorded_at,
        "updated_at": event.recorded_at,
        "position": event.position,
        "price_position": event.position,
        "stream_id": event.stream_id,
        "actor": event.actor,
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _published(event: StoredEvent, payload: PricePublished) -> PriceRow:
    return PriceRow(
        **_common(event),
        provider=payload.provider,
        model=payload.model,
        names=_json(payload.names or []),
        prefixes=_json(payload.prefixes or []),
        service_tier=str(payload.service_tier),
        currency=str(payload.currency),
        per=payload.per or 1,
        rates=_json(payload.rates.as_json()),
        tiers=_json([tier.as_json() for tier in payload.tiers or ()]),
        effective_from=payload.effective_from,
        withdrawn=False,
        source=_json(payload.source),
    )


def _withdrawn(event: StoredEvent, payload: PriceWithdrawn, other: PriceRow) -> PriceRow:
    return PriceRow(
        **_common(event),
        provider=other.provider,
        model=other.model,
        names=other.names,
        prefixes=other.prefixes,
        service_tier=other.service_tier,
        currency=other.currency,
        per=other.per,
        rates="{}",
        tiers="[]",
        effective_from=payload.effective_from,
        withdrawn=True,
        source=None,
    )
