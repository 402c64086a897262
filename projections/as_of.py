"""One row as it stood at a position, folded from the events that concern it, by the very code of the worker.

Memory is bounded by a page: entries that a page moves without opening them are folded anew from their short streams.
"""

from collections.abc import Iterable
from uuid import UUID

from ledger.database import Database
from ledger.domain.catalogue import names_of
from ledger.domain.ledger_events import PAYLOAD_ERASED
from ledger.log.read import PAGE_EVENTS_MAX, EventFilter, StoredEvent, read_all
from projections import campaigns
from projections.erasures import TABLES, erased_by
from projections.fold import ReadModels, fold_event, needed_by
from projections.replay import ReplayError
from projections.rows import AgentJobRow, BudgetEntryRow, CampaignRow, ContentAssetRow, Row, Rows
from projections.skips import read_skips

CAMPAIGN_OPENERS = names_of(lambda kind: kind.category == "campaign" and kind.opens_stream)
CAMPAIGN_DELETERS = names_of(lambda kind: kind.category == "campaign" and kind.deletes_stream)
JOB_OPENERS = names_of(lambda kind: kind.category == "job" and kind.opens_stream)
JOB_DELETERS = names_of(lambda kind: kind.category == "job" and kind.deletes_stream)


async def row_as_of(database: Database, table: str, row_id: UUID, position: int) -> Row | None:
    """Fold the row of a read model; None before its first event, and once it was deleted.

    Raises:
        ReplayError: an event cannot be folded, and no operator has let the read models pass it.
    """
    models = ReadModels(Rows(), Rows(), Rows(), Rows())
    first = True
    async for page in read_all(database, _concerning(table, row_id, position), PAGE_EVENTS_MAX):
        if first and table in ("agent_jobs", "budget_entries"):
            await _open_references(database, models, page[0])
        first = False
        if table != "budget_entries":
            moved = await _entries(database, needed_by(page).budget_entries, page[0].position - 1)
            models = models._replace(budget_entries=moved)
        await _fold(database, page, models)
    rows: Rows[Row] = getattr(models, table)
    row = rows.get(row_id)
    if isinstance(row, CampaignRow):
        campaigns.rate(row)
    if row is not None:
        await _forget_deleted(database, row, position)
        await _note_erasures(database, table, row, position)
    return row


def _concerning(table: str, row_id: UUID, position: int) -> EventFilter:
    """The events that are folded into a row: its own stream's, and the costs that count for it."""
    if table == "campaigns":
        return EventFilter(until=position, categories=("campaign", "cost"), campaign_id=row_id)
    if table == "agent_jobs":
        return EventFilter(until=position, categories=("job", "cost"), agent_job_id=row_id)
    category = "content" if table == "content_assets" else "cost"
    return EventFilter(until=position, categories=(category,), stream_ids=(row_id,))


async def _open_references(database: Database, models: ReadModels, first: StoredEvent) -> None:
    """Fold what opened the campaign and the job that a row's first event names: they say what currency it is in."""
    job_id = first.agent_job_id if first.category == "cost" else None
    queued = await _read(database, JOB_OPENERS, [job_id])
    created = await _read(database, CAMPAIGN_OPENERS, [first.campaign_id, *(event.campaign_id for event in queued)])
    await _fold(database, [*created, *queued], models)


async def _entries(database: Database, entry_ids: list[UUID], until: int) -> Rows[BudgetEntryRow]:
    models = ReadModels(Rows(), Rows(), Rows(), Rows())
    if entry_ids:
        streams = EventFilter(until=until, categories=("cost",), stream_ids=tuple(entry_ids))
        async for page in read_all(database, streams, PAGE_EVENTS_MAX):
            await _fold(database, page, models)
    return models.budget_entries


async def _fold(database: Database, events: list[StoredEvent], models: ReadModels) -> None:
    for event in events:
        try:
            fold_event(event, models)
        except Exception as error:
            async with database.connection() as connection:
                if event.position not in await read_skips(connection):
                    raise ReplayError(event, error) from error


async def _forget_deleted(database: Database, row: Row, position: int) -> None:
    """Do what ON DELETE SET NULL has done to the row by then."""
    if isinstance(row, AgentJobRow | ContentAssetRow) and await _read(
        database, CAMPAIGN_DELETERS, [row.campaign_id], position
    ):
        row.campaign_id = None
    if isinstance(row, ContentAssetRow) and await _read(database, JOB_DELETERS, [row.agent_job_id], position):
        row.agent_job_id = None


async def _note_erasures(database: Database, table: str, row: Row, position: int) -> None:
    """Fold the erasures of the row's stream. Its events were read after them, so the texts are gone already."""
    for event in await _read(database, (PAYLOAD_ERASED,), [row.id], position):
        erased = erased_by(event)
        if erased is not None and TABLES.get(erased.category) == table and event.position > row.position:
            row.touch(event)


async def _read(
    database: Database, types: tuple[str, ...], stream_ids: Iterable[UUID | None], until: int | None = None
) -> list[StoredEvent]:
    """Read the events of these types in these streams."""
    named = tuple({stream_id for stream_id in stream_ids if stream_id is not None})
    if not named:
        return []
    wanted = EventFilter(until=until, types=types, stream_ids=named)
    return [event async for page in read_all(database, wanted, PAGE_EVENTS_MAX) for event in page]
