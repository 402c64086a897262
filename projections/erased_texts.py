"""Reads from the log which texts a row has after an erasure: its stream's events are folded once more."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from ledger.database import Connection
from ledger.domain.ledger_events import PAYLOAD_ERASED
from ledger.log.read import EventFilter, StoredEvent, read_page
from projections.erasures import Texts, erased_by
from projections.fold import PageRows, fold_event
from projections.journals import JOURNALS
from projections.skips import read_skips
from projections.tables import READ_MODELS_BY_CATEGORY, ReadModel


async def read_remaining_texts(connection: Connection, events: Sequence[StoredEvent]) -> dict[int, Texts]:
    """Return the texts that rows have after the erasures among these events, by position of the erasure.

    Each stream is read once, and only its own events: no others carry its texts.
    """
    erasures: dict[tuple[str, UUID], list[int]] = {}
    for event in events:
        if (erased := erased_by(event)) is not None and erased.category in READ_MODELS_BY_CATEGORY:
            erasures.setdefault((erased.category, erased.stream_id), []).append(event.position)
    texts: dict[int, Texts] = {}
    for (category, stream_id), positions in erasures.items():
        model = READ_MODELS_BY_CATEGORY[category]
        rows = PageRows.empty()
        for after, until in zip([0, *positions], positions, strict=False):
            await _fold(connection, EventFilter(after, until, (category,), stream_ids=(stream_id,)), rows)
            texts[until] = _texts(rows, model, stream_id)
    return texts


async def _fold(connection: Connection, selection: EventFilter, rows: PageRows) -> None:
    async for event in _read(connection, selection):
        try:
            fold_event(event, rows)
        except Exception:
            # An operator may have skipped the event: then the tables lack it too.
            if event.position not in await read_skips(connection):
                raise


def _texts(rows: PageRows, model: ReadModel[Any], stream_id: UUID) -> Texts:
    row = rows.of(model).get(stream_id)
    return {column: getattr(row, column) for column in model.free_text_columns} if row is not None else {}


async def read_pending_erasures(connection: Connection, position: int) -> set[tuple[str, str]]:
    """Return the rows, by table and id, whose erasure is past this position: their texts will change.

    The id of a row of a journal is the position of its event.
    """
    pending = set()
    selection = EventFilter(after=position, categories=("ledger",), types=(PAYLOAD_ERASED,))
    async for event in _read(connection, selection):
        erased = erased_by(event)
        if erased is not None and (model := READ_MODELS_BY_CATEGORY.get(erased.category)) is not None:
            pending.add((model.name, str(erased.stream_id)))
            pending.update((journal.name, str(erased.position)) for journal in JOURNALS)
    return pending


async def _read(connection: Connection, selection: EventFilter) -> AsyncIterator[StoredEvent]:
    """Yield events, read page by page on this connection."""
    while page := await read_page(connection, selection):
        for event in page:
            yield event
        selection = msgspec.structs.replace(selection, after=page[-1].position)
