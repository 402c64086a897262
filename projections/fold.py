"""A page of events folded into the four read models together, so that they agree with each other at every moment."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self
from uuid import UUID

from ledger.domain.catalogue import CATALOGUE, decode_stored
from ledger.log.read import StoredEvent
from projections import agent_jobs, budget_entries, campaigns, content_assets, erasures
from projections.erasures import Texts
from projections.rows import AgentJobRow, BudgetEntryRow, CampaignRow, ContentAssetRow, Rows
from projections.tables import READ_MODELS, READ_MODELS_BY_CATEGORY, R, ReadModel

NO_TEXTS: Mapping[int, Texts] = {}


class ReadModels(NamedTuple):
    """The rows that a page touches."""

    campaigns: Rows[CampaignRow]
    agent_jobs: Rows[AgentJobRow]
    content_assets: Rows[ContentAssetRow]
    budget_entries: Rows[BudgetEntryRow]

    @classmethod
    def empty(cls) -> Self:
        """Return no rows at all: events are folded into them from their streams' first ones on."""
        return cls(Rows(), Rows(), Rows(), Rows())

    def of(self, model: ReadModel[R]) -> Rows[R]:
        """Return the rows of one read model."""
        rows: Rows[R] = getattr(self, model.name)
        return rows


def needed_by(events: Iterable[StoredEvent]) -> dict[str, list[UUID]]:
    """Return, by table, the ids of the rows to load before these events are folded.

    A row that the events themselves open is not among them.
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
        if erased is not None and (model := READ_MODELS_BY_CATEGORY.get(erased.category)) is not None:
            erasures.fold(event, erased, models.of(model), texts)
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
    for model in READ_MODELS:
        for reference in model.set_null_references:
            deleted = models.of(reference.target)
            if deleted.has_deleted:
                _set_null(models.of(model).touched, reference.column, deleted)


def _set_null(rows: list[Any], column: str, deleted: Rows[Any]) -> None:
    for row in rows:
        if deleted.was_deleted(getattr(row, column)):
            setattr(row, column, None)
