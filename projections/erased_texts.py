"""What the log says of a row's texts after an erasure, by the very code of the fold."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from ledger.database import Connection
from ledger.domain.ledger_events import PAYLOAD_ERASED
from ledger.log.read import EventFilter, StoredEvent, read_page
from projections.erasures import Texts, erased_by
from projections.fold import ReadModels, fold_event
from projections.skips import read_skips
from projections.tables import READ_MODELS_BY_CATEGORY, ReadModel

if TYPE_CHECKING:
    pass


async def read_texts(connection: Connection, events: Sequence[StoredEvent]) -> dict[int, Texts]:
    """The texts that rows have after the erasures among these events, by the erasures' positions.

    Each stream is told once, and only its own events: they alone carry its texts.
    """
    erasures: dict[tuple[str, UUID], list[int]] = {}
    for event in events:
        if (erased := erased_by(event)) is not None and erased.category in READ_MODELS_BY_CATEGORY:
            erasures.setdefault((erased.category, erased.stream_id), []).append(event.position)
    texts: dict[int, Texts] = {}
    for (category, stream_id), positions in erasures.items():
        model = READ_MODELS_BY_CATEGORY[category]
        models = ReadModels.empty()
        told = EventFilter(categories=(category,), stream_ids=(stream_id,))
        for after, until in zip([0, *positions], positions, strict=False):
            await _tell(connection, EventFilter(after, until, told.categories, stream_ids=told.stream_ids), models)
            texts[until] = _texts(models, model, stream_id)
    return texts


async def _tell(connection: Connection, wanted: EventFilter, models: ReadModels) -> None:
    async for event in _read(connection, wanted):
        try:
            fold_event(event, models)
        except Exception:
            # The tables have passed it as well.
            if event.position not in await read_skips(connection):
                raise


def _texts(models: ReadModels, model: ReadModel[Any], stream_id: UUID) -> Texts:
    row = models.of(model).get(stream_id)
    return {column: getattr(row, column) for column in model.free_text_columns} if row is not None else {}


async def read_forgetting(connection: Connection, position: int) -> set[tuple[str, str]]:
    """The rows, by table and id, that an erasure past this position concerns: their texts are about to go."""
    forgetting = set()
    wanted = EventFilter(after=position, categories=("ledger",), types=(PAYLOAD_ERASED,))
    async for event in _read(connection, wanted):
        erased = erased_by(event)
        if erased is not None and (model := READ_MODELS_BY_CATEGORY.get(erased.category)) is not None:
            forgetting.add((model.name, str(erased.stream_id)))
    return forgetting


async def _read(connection: Connection, wanted: EventFilter) -> AsyncIterator[StoredEvent]:
    """Events page by page, on this connection."""
    while page := await read_page(connection, wanted):
        for event in page:
            yield event
        wanted = msgspec.structs.replace(wanted, after=page[-1].position)
