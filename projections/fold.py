"""Fold a page of events into all read models together, so that they agree at every position."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self
from uuid import UUID

import msgspec

from ledger.domain.catalogue import CATALOGUE, decode_stored
from ledger.domain.codec import EventData
from ledger.domain.cost import CostDenied
from ledger.log.read import StoredEvent
from projections import agent_jobs, budget_entries, campaigns, content_assets, erasures, prices
from projections.erasures import Texts
from projections.journals import JournalRows
from projections.price_rows import PriceRows
from projections.rows import AgentJobRow, AmountChange, BudgetEntryRow, CampaignRow, ContentAssetRow, R, Rows
from projections.tables import READ_MODELS, READ_MODELS_BY_CATEGORY, ReadModel

NO_TEXTS: Mapping[int, Texts] = {}


class PageRows(NamedTuple):
    """The rows that a page of events touches, by read model; `journals` is None for a fold that writes none."""

    campaigns: Rows[CampaignRow]
    agent_jobs: Rows[AgentJobRow]
    content_assets: Rows[ContentAssetRow]
    budget_entries: Rows[BudgetEntryRow]
    prices: PriceRows
    journals: JournalRows | None = None

    @classmethod
    def empty(cls) -> Self:
        """Return no rows: for events that are folded from the first one of their streams on."""
        return cls(Rows(), Rows(), Rows(), Rows(), PriceRows())

    def of(self, model: ReadModel[R]) -> Rows[R]:
        """Return the rows of one read model."""
        rows: Rows[R] = getattr(self, model.name)
        return rows


def needed_by(events: Iterable[StoredEvent]) -> dict[str, list[UUID]]:
    """Return, by table, the ids of the rows to load before these events are folded.

    A row that the events themselves open is not among them. The jobs above these jobs are needed too.
    """
    needed: dict[str, dict[UUID, None]] = {category: {} for category in READ_MODELS_BY_CATEGORY}
    opened: dict[str, set[UUID]] = {category: set() for category in needed}
    for event in events:
        category = event.category
        if category not in needed:
            if (erased := erasures.erased_by(event)) is not None and erased.category in needed:
                needed[erased.category][erased.stream_id] = None
            continue
        if event.version == 1:
            opened[category].add(event.stream_id)
            if category == "job" and (parent_job_id := parent_of(event)) is not None:
                needed["job"][parent_job_id] = None
        else:
            needed[category][event.stream_id] = None
        if category in ("cost", "job"):
            if event.campaign_id is not None:
                needed["campaign"][event.campaign_id] = None
            if event.agent_job_id is not None:
                needed["job"][event.agent_job_id] = None
    return {
        READ_MODELS_BY_CATEGORY[category].name: [row_id for row_id in ids if row_id not in opened[category]]
        for category, ids in needed.items()
    }


def parent_of(event: StoredEvent) -> UUID | None:
    """Return the parent that the first event of a job names; None if none."""
    return _parent.decode(event.data).parent_job_id if "parent_job_id" in event.data else None


class _Parent(msgspec.Struct):
    parent_job_id: UUID | None = None


_parent = msgspec.json.Decoder(_Parent)


def fold_events(events: Sequence[StoredEvent], rows: PageRows, texts: Mapping[int, Texts] = NO_TEXTS) -> None:
    """Fold events, in the order of their positions, into the rows they need.

    Args:
        events: a page of the log, or a part of one.
        rows: with the rows of `needed_by`.
        texts: by position of an erasure, the texts that its row has from then on. Not needed if all events are folded
            from the first on and were read after the erasures.

    Raises:
        UnknownEventTypeError: an event of a newer release.
    """
    for event in events:
        fold_event(event, rows, texts)
    _set_null(rows)
    for row in rows.campaigns.unwritten:
        campaigns.update_roi(row)


def fold_event(event: StoredEvent, rows: PageRows, texts: Mapping[int, Texts] = NO_TEXTS) -> None:
    """Fold one event, but leave `roi` as it is. Of the ledger's own events, only erasures change a row.

    Args:
        event: the stored event.
        rows: with the rows that the event needs.
        texts: as for `fold_events`.

    Raises:
        UnknownEventTypeError: an event of a newer release.
    """
    if event.category == "ledger":
        erased = erasures.erased_by(event)
        if erased is not None and (model := READ_MODELS_BY_CATEGORY.get(erased.category)) is not None:
            erasures.fold_erasure(event, erased, rows.of(model), texts)
            if rows.journals is not None:
                rows.journals.erased.append(erased.position)
        return
    payload = decode_stored(event.type, event.schema_version, event.data, event.text)
    transition = CATALOGUE[event.type].transition
    if event.category == "cost":
        change = budget_entries.fold(event, payload, rows.budget_entries, rows.campaigns, rows.agent_jobs)
        if rows.journals is not None:
            _write_journals(event, payload, change, rows.budget_entries, rows.journals)
        if change is not None:
            agent_jobs.add_amounts(event, change, rows.agent_jobs)
            campaigns.add_amounts(event, change, rows.campaigns)
    elif event.category == "job":
        agent_jobs.fold(event, payload, transition, rows.agent_jobs, rows.campaigns)
    elif event.category == "content":
        content_assets.fold(event, payload, transition, rows.content_assets)
    elif event.category == "price":
        prices.fold(event, payload, rows.prices)
    else:
        campaigns.fold(event, payload, transition, rows.campaigns)


def _write_journals(
    event: StoredEvent,
    payload: EventData,
    change: AmountChange | None,
    entries: Rows[BudgetEntryRow],
    journals: JournalRows,
) -> None:
    if isinstance(payload, CostDenied):
        journals.deny(event, payload)
    elif change is not None:
        journals.post(event, payload, change, entries.get(event.stream_id))


def _set_null(rows: PageRows) -> None:
    """Do for the rows in memory what ON DELETE SET NULL does in the database."""
    for model in READ_MODELS:
        for column, target, _ in model.set_null_references:
            deleted = rows.of(target)
            if deleted.has_deleted:
                _forget_deleted(rows.of(model).unwritten, column, deleted)


def _forget_deleted(rows: list[Any], column: str, deleted: Rows[Any]) -> None:
    for row in rows:
        if deleted.was_deleted(getattr(row, column)):
            setattr(row, column, None)
