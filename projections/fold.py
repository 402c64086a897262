"""A page of events folded into the four read models together, so that they agree with each other at every moment."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ledger.domain.catalogue import CATALOGUE, decode_stored
from ledger.log.read import StoredEvent
from projections import agent_jobs, budget_entries, campaigns, content_assets, erasures
from projections.erasures import Texts
from projections.rows import AgentJobRow, BudgetEntryRow, CampaignRow, ContentAssetRow, Rows

NO_TEXTS: Mapping[int, Texts] = {}


class Needed(NamedTuple):
    """Ids of the rows that a page may touch, by table."""

    campaigns: list[UUID]
    agent_jobs: list[UUID]
    content_assets: list[UUID]
    budget_entries: list[UUID]


class ReadModels(NamedTuple):
    """The rows that a page touches."""

    campaigns: Rows[CampaignRow]
    agent_jobs: Rows[AgentJobRow]
    content_assets: Rows[ContentAssetRow]
    budget_entries: Rows[BudgetEntryRow]

    def of(self, category: str) -> Rows[Any] | None:
        """The rows of the streams of a category; None where they have no rows."""
        table = erasures.TABLES.get(category)
        return getattr(self, table) if table else None


def needed_by(events: Iterable[StoredEvent]) -> Needed:
    """Which rows must be loaded before these events are folded; those the page itself opens need not be."""
    needed: dict[str, dict[UUID, None]] = {"campaign": {}, "job": {}, "content": {}, "cost": {}}
    opened: dict[str, set[UUID]] = {category: set() for category in needed}
    for event in events:
        category = event.category
        if category not in needed:
            if (erased := erasures.erased_by(event)) is not None and erased.category in needed:
                needed[erased.category][erased.stream_id] = None
            continue
        if event.version == 1:
            opened[category].add(event.stream_id)
        else:
            needed[category][event.stream_id] = None
        if category in ("cost", "job"):
            if event.campaign_id is not None:
                needed["campaign"][event.campaign_id] = None
            if event.agent_job_id is not None:
                needed["job"][event.agent_job_id] = None
    return Needed(*([row_id for row_id in ids if row_id not in opened[category]] for category, ids in needed.items()))


def fold(events: Sequence[StoredEvent], models: ReadModels, texts: Mapping[int, Texts] = NO_TEXTS) -> None:
    """Fold events in the order of their positions into the rows they need.

    Args:
        texts: by position of an erasure, the texts that its row has from then on. None need be given where all
            events are folded from their first on and were read after the erasures.

    Raises:
        UnknownEventTypeError: an event of a newer release.
    """
    for event in events:
        fold_event(event, models, texts)
    _forget_deleted(models)
    for row in models.campaigns.touched:
        campaigns.rate(row)


def fold_event(event: StoredEvent, models: ReadModels, texts: Mapping[int, Texts] = NO_TEXTS) -> None:
    """Fold one event; what a campaign returns is not rated. Of the ledger's own events only erasures change a row."""
    if event.category == "ledger":
        erased = erasures.erased_by(event)
        if erased is not None and (rows := models.of(erased.category)) is not None:
            erasures.fold(event, erased, rows, texts)
        return
    payload = decode_stored(event.type, event.schema_version, event.data, event.text)
    transition = CATALOGUE[event.type].transition
    if event.category == "cost":
        movement = budget_entries.fold(event, payload, models.budget_entries, models.campaigns, models.agent_jobs)
        if movement is not None:
            agent_jobs.move(event, movement, models.agent_jobs)
            campaigns.move(event, movement, models.campaigns)
    elif event.category == "job":
        agent_jobs.fold(event, payload, transition, models.agent_jobs, models.campaigns)
    elif event.category == "content":
        content_assets.fold(event, payload, transition, models.content_assets)
    else:
        campaigns.fold(event, payload, transition, models.campaigns)


def _forget_deleted(models: ReadModels) -> None:
    """Do for the rows in memory what ON DELETE SET NULL does in the database."""
    if not (models.campaigns.has_deleted or models.agent_jobs.has_deleted):
        return
    referring: list[AgentJobRow | ContentAssetRow] = [*models.agent_jobs.touched, *models.content_assets.touched]
    for row in referring:
        if row.campaign_id is not None and models.campaigns.was_deleted(row.campaign_id):
            row.campaign_id = None
    for asset in models.content_assets.touched:
        if asset.agent_job_id is not None and models.agent_jobs.was_deleted(asset.agent_job_id):
            asset.agent_job_id = None
