"""Time travel for one row (`as_of`): the row at a position, folded from the events that concern it.

The fold is the worker's. Memory is bounded by a page: entries that a page changes but does not open are folded again
from their own streams, unless the page before had them. The work is bounded by the number of events.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any
from uuid import UUID

from ledger.database import Database
from ledger.domain.catalogue import names_of
from ledger.domain.errors import ReadTooLarge
from ledger.domain.job import LEVELS_MAX
from ledger.domain.ledger_events import PAYLOAD_ERASED
from ledger.log.read import EventFilter, StoredEvent, has_more_than, read_all
from ledger.time_slices import in_slices
from projections import campaigns
from projections.erasures import erased_by
from projections.fold import PageRows, fold_event, needed_by, parent_of
from projections.job_tree import find_jobs_below
from projections.replay import ReplayError
from projections.rows import BudgetEntryRow, CampaignRow, R, Row, Rows
from projections.skips import read_skips
from projections.tables import AGENT_JOBS, BUDGET_ENTRIES, CAMPAIGNS, ReadModel

PAGE_EVENTS_MAX = 250
"""Reading the columns of more events at a time would keep the event loop for several milliseconds."""

EVENTS_MAX = 100_000
"""The most events that are folded for a row, which takes about three seconds of processor time."""

JOBS_BELOW_MAX = 5_000
"""The most jobs below a job whose events are folded: each page looks for the events of all of them."""

TOO_MANY_EVENTS = (
    f"the row at this position is made of more than {EVENTS_MAX:,} events; `ledger replay` folds any number of them"
)


async def row_as_of(database: Database, model: ReadModel[R], row_id: UUID, position: int) -> R | None:
    """Fold one row of a read model up to a position.

    Args:
        database: read page by page, each page in its own short transaction.
        model: the read model.
        row_id: of the row, which is its stream's.
        position: of the last event to fold.

    Returns:
        the row; None before its first event, and once it was deleted.

    Raises:
        ReadTooLarge: more than `EVENTS_MAX` events would be folded, or those of more than `JOBS_BELOW_MAX` jobs.
        ReplayError: an event cannot be folded, and no operator has decided to skip it.
    """
    concerning = await _concerning(database, model, row_id, position)
    async with database.connection() as connection:
        if await has_more_than(connection, concerning, EVENTS_MAX):
            raise ReadTooLarge(TOO_MANY_EVENTS)
    fold = _Fold(database)
    rows = PageRows.empty()
    first = True
    async for page in read_all(database, concerning, PAGE_EVENTS_MAX):
        if first and model in (AGENT_JOBS, BUDGET_ENTRIES):
            await _open_references(fold, rows, page[0])
        first = False
        if model is not BUDGET_ENTRIES:
            rows = rows._replace(budget_entries=await _entries(fold, page, rows.budget_entries))
        await fold.add(page, rows)
        _drop_texts(page, rows, row_id)
    row = rows.of(model).get(row_id)
    if row is not None:
        if isinstance(row, CampaignRow):
            campaigns.update_roi(row)
        await _set_null(database, model, row, position)
        await _apply_erasures(database, model, row, position)
    return row


def _drop_texts(page: list[StoredEvent], rows: PageRows, kept: UUID) -> None:
    """Drop the large texts of other jobs: only what their costs add to the row is needed."""
    for event in page:
        job = rows.agent_jobs.get(event.stream_id) if event.category == "job" else None
        if job is not None and job.id != kept:
            job.input_data = job.output_data = None


class _Fold:
    """Folds events for one row, at most `EVENTS_MAX`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._events = 0

    async def add(self, events: list[StoredEvent], rows: PageRows) -> None:
        """Fold events into rows, in time slices."""
        self._events += len(events)
        if self._events > EVENTS_MAX:
            raise ReadTooLarge(TOO_MANY_EVENTS)
        async for event in in_slices(events):
            try:
                fold_event(event, rows)
            except Exception as error:
                async with self.database.connection() as connection:
                    if event.position not in await read_skips(connection):
                        raise ReplayError(event, error) from error


async def _concerning(database: Database, model: ReadModel[Any], row_id: UUID, position: int) -> EventFilter:
    """Return a filter for the events that are folded into a row: its own stream's, and the costs that count for it.

    Costs count for all jobs above their job, so the events of all jobs below are folded too.
    """
    if model is CAMPAIGNS:
        return EventFilter(until=position, categories=(model.category, "cost"), campaign_id=row_id)
    if model is AGENT_JOBS:
        below = await find_jobs_below(database, row_id, position, JOBS_BELOW_MAX)
        jobs = {"agent_job_ids": (row_id, *below)} if below else {"agent_job_id": row_id}
        return EventFilter(until=position, categories=(model.category, "cost"), **jobs)
    return EventFilter(until=position, categories=(model.category,), stream_ids=(row_id,))


async def _open_references(fold: _Fold, rows: PageRows, first: StoredEvent) -> None:
    """Fold the opening events of the campaign and the jobs of a row's first event: the row inherits their currency."""
    jobs = await _lineage(fold.database, first.agent_job_id if first.category == "cost" else parent_of(first))
    campaign_ids = [first.campaign_id, *(event.campaign_id for event in jobs)]
    created = await _read(fold.database, _opening_types("campaign"), campaign_ids)
    await fold.add([*created, *jobs], rows)


async def _lineage(database: Database, job_id: UUID | None) -> list[StoredEvent]:
    """Return the opening events of a job and of all jobs above it, the root's first."""
    events: list[StoredEvent] = []
    while job_id is not None and len(events) <= LEVELS_MAX:
        opening = await _read(database, _opening_types("job"), [job_id])
        events = [*opening, *events]
        job_id = parent_of(opening[0]) if opening else None
    return events


async def _entries(fold: _Fold, page: list[StoredEvent], previous: Rows[BudgetEntryRow]) -> Rows[BudgetEntryRow]:
    """Return the entries that a page changes but does not open, as they were before it."""
    entry_ids = needed_by(page)[BUDGET_ENTRIES.name]
    known = [row for entry_id in entry_ids if (row := previous.get(entry_id)) is not None]
    entries = Rows(known)
    unknown = tuple({*entry_ids} - {row.id for row in known})
    if unknown:
        streams = EventFilter(until=page[0].position - 1, categories=("cost",), stream_ids=unknown)
        rows = PageRows.empty()._replace(budget_entries=entries)
        async for of_entries in read_all(fold.database, streams, PAGE_EVENTS_MAX):
            await fold.add(of_entries, rows)
    return entries


async def _set_null(database: Database, model: ReadModel[Any], row: Row, position: int) -> None:
    """Set the references that ON DELETE SET NULL had set to null by this position."""
    for column, target, _ in model.set_null_references:
        if await _read(database, _deleting_types(target.category), [getattr(row, column)], position):
            setattr(row, column, None)


async def _apply_erasures(database: Database, model: ReadModel[Any], row: Row, position: int) -> None:
    """Fold the erasures of the row's stream. Its events were read after them, so the texts are gone already."""
    for event in await _read(database, (PAYLOAD_ERASED,), [row.id], position):
        erased = erased_by(event)
        if erased is not None and erased.category == model.category and event.position > row.position:
            row.mark_updated(event)


@cache
def _opening_types(category: str) -> tuple[str, ...]:
    return names_of(lambda event_type: event_type.category == category and event_type.opens_stream)


@cache
def _deleting_types(category: str) -> tuple[str, ...]:
    return names_of(lambda event_type: event_type.category == category and event_type.deletes_stream)


async def _read(
    database: Database, types: tuple[str, ...], stream_ids: Iterable[UUID | None], until: int | None = None
) -> list[StoredEvent]:
    """Return the events of these types in these streams; None among the ids is ignored."""
    named = tuple({stream_id for stream_id in stream_ids if stream_id is not None})
    if not named:
        return []
    selection = EventFilter(until=until, types=types, stream_ids=named)
    return [event async for page in read_all(database, selection, PAGE_EVENTS_MAX) for event in page]
