"""Helpers: a log in memory, a sample of every event type, and the tables as plain SQL reads them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.dialects.postgresql import JSONB

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.cost import CostPriced
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import judge
from ledger.domain.service_events import SERVICE, hold_expiry
from ledger.domain.working_state import WorkingState
from ledger.log.append import append
from ledger.log.prepare import prepare
from ledger.log.read import EventFilter, StoredEvent, read_all
from projections.fold import PageRows, fold_events
from projections.prefetch import PageReader
from projections.tables import READ_MODELS, READ_MODELS_BY_NAME, ReadModel
from projections.worker import Worker
from tests.domain.contract import TRANSITIONS
from tests.domain.helpers import events_of_type
from tests.events import campaign, content, cost, event, follow, job, price, reserve
from tests.log.helpers import query, request, until

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)

Tables = dict[str, dict[UUID, dict[str, Any]]]


class CountingReader(PageReader):
    """Counts prefetches: `started` and `finished` list the positions after which one did."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.started: list[int] = []
        self.finished: list[int] = []

    async def _read(self, after: int, events_max: int) -> list[StoredEvent]:
        self.started.append(after)
        page = await super()._read(after, events_max)
        self.finished.append(after)
        return page


class MemoryLog:
    """Judges events as the service does and stores them in memory. Each append is a second later than the last."""

    def __init__(self) -> None:
        self.working_state = WorkingState(0, NOON - timedelta(seconds=1))

    @property
    def events(self) -> list[StoredEvent]:
        return [
            StoredEvent(*(getattr(recorded, field) for field in StoredEvent.__struct_fields__))
            for recorded in self.working_state.events
        ]

    def append(self, *sent: dict[str, Any] | Request) -> None:
        """Append events; those sent as a `Request` may be refused."""
        for each in sent:
            self.working_state.recorded_at += timedelta(seconds=1)
            as_request = each if isinstance(each, Request) else request(each)
            verdict = judge(self.working_state, as_request)
            assert as_request is each or all(isinstance(answer, Receipt) for answer in verdict), verdict
            for denial in self.working_state.denials.values():
                self.working_state.record(denial.candidate, denial.campaign_id, denial.agent_job_id)
            self.working_state.denials.clear()

    def row(self, table: str, opened: dict[str, Any]) -> dict[str, Any]:
        """The row of an entity, folded from the whole log in memory."""
        return folded(self.events)[table][UUID(opened["id"])]

    def rows(self, table: str) -> list[dict[str, Any]]:
        return list(folded(self.events)[table].values())


def defaults(table: str) -> dict[str, Any]:
    """Return the columns of a read model that may be absent when a row is opened, with their first values."""
    fields = msgspec.structs.fields(READ_MODELS_BY_NAME[table].row)
    return {field.name: field.default for field in fields if field.default is not msgspec.NODEFAULT}


def folded(events: Sequence[StoredEvent]) -> Tables:
    """The tables that one fold of these events produces, in memory."""
    rows = PageRows.empty()
    fold_events(events, rows)
    return {
        model.name: {row.id: _by_value(model, msgspec.structs.asdict(row)) for row in rows.of(model).take_new()}
        for model in READ_MODELS
    }


def _by_value(model: ReadModel[Any], row: dict[str, Any]) -> dict[str, Any]:
    """Write the columns of type jsonb in one form: PostgreSQL has its own for their text."""
    names = {column.name for column in model.table.columns if isinstance(column.type, JSONB)}
    return {name: _rewritten(value) if value and name in names else value for name, value in row.items()}


def _rewritten(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


async def stored(database: Database) -> list[StoredEvent]:
    return [event async for page in read_all(database, EventFilter()) for event in page]


async def tables(database: Database, schema: str = "public") -> Tables:
    """The tables in the database."""
    found: Tables = {}
    for model in READ_MODELS:
        columns = model.columns
        selected = ", ".join(f"{column}::text" if column in model.json_columns else column for column in columns)
        rows = await query(database, f"SELECT {selected} FROM {schema}.{model.name}")
        found[model.name] = {values[0]: _by_value(model, dict(zip(columns, values, strict=True))) for values in rows}
    return found


async def position(database: Database) -> int:
    """The position that the tables reflect."""
    ((position,),) = await query(database, "SELECT position FROM ledger.projection_checkpoints")
    return int(position)


@asynccontextmanager
async def running_workers(*databases: Database) -> AsyncIterator[list[Worker]]:
    """Run workers while inside, one for each database."""
    workers = [Worker(database) for database in databases]
    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(worker.run())
        try:
            yield workers
        finally:
            for worker in workers:
                worker.stop()


async def folded_up_to(database: Database, target: int) -> None:
    """Wait until the tables reflect this position."""

    async def reached() -> bool:
        return await position(database) >= target

    await until(reached)


NEWER_TYPES = (
    "cost.credited",
    "cost.extended",
    "cost.priced",
    "job.budget_changed",
    "job.recorded",
    "price.published",
    "price.withdrawn",
)
"""Event types that earlier releases cannot read, so that a downgrade with them is refused."""


def sample_history(without: Sequence[str] = ()) -> list[Request]:
    """Requests that record every event type of the catalogue: edits, deletions, and what is deleted under others.

    Args:
        without: event types to leave out; nothing else must depend on their events.
    """
    launch, gone, spare = campaign("100", description="A text"), campaign("5"), campaign("7", end_date="2025-12-31")
    writer, failing, dropped = job(launch["id"], budget="50"), job(gone["id"], max_retries=3), job(spare["id"])
    post, draft, moved = content(agent_job_id=writer["id"]), content(campaign_id=gone["id"]), content()
    of_dropped = content(agent_job_id=dropped["id"], metadata={"b": 1, "a": [1.50, None]})
    settled, released, overdue, forgotten = (reserve("10", agent_job_id=writer["id"], expires_in=1) for _ in range(4))
    spent = cost("2.5", campaign_id=launch["id"], tokens_used=70, model_used="m", provider="p", description="d")
    free, too_much = reserve("1", campaign_id=gone["id"]), reserve("1000", campaign_id=launch["id"])
    call = event("cost.recorded", {"resource_type": "llm_api", "provider": "openai", "model_used": "m", "usage": USAGE})
    opening = [call, price("m"), priced_request(call)] if "cost.priced" not in without else []
    told: list[dict[str, Any] | Request] = [
        *opening,
        launch,
        gone,
        spare,
        writer,
        failing,
        dropped,
        post,
        draft,
        moved,
        of_dropped,
    ]

    def then(opened: dict[str, Any], type_: str, data: dict[str, Any] | None = None) -> None:
        told.append(follow(opened, type_, data))

    then(launch, "campaign.activated")
    then(launch, "campaign.details_changed", {"name": "Another"})
    then(launch, "campaign.metrics_recorded", {"impressions": 5, "clicks": 3, "revenue": "30"})
    then(writer, "job.started")
    then(writer, "job.progressed", {"progress": "0.25", "message": "m"})
    told.extend([settled, released, overdue, forgotten, spent, cost("1"), free, too_much])
    then(settled, "cost.settled", {"cost": "7", "tokens_used": 9})
    then(released, "cost.released")
    told.append(expiry_request(overdue))
    then(overdue, "cost.settled", {"cost": "11"})
    then(spent, "cost.adjusted", {"amount": "-0.5", "tokens_used": -20, "reason": "Too much"})
    for step in ("submitted", "rejected", "submitted", "approved", "published"):
        then(post, f"content.{step}")
    then(draft, "content.revised", {"title": "Another", "metadata": {"a": 1}})
    then(moved, "content.assigned", {"campaign_id": spare["id"]})
    then(moved, "content.archived")
    then(failing, "job.failed", {"error_message": "It broke"})
    then(failing, "job.retried")
    then(failing, "job.cancelled")
    # Releases the forgotten hold.
    then(writer, "job.completed", {"output_data": {"b": 2, "a": 1}})
    then(dropped, "job.cancelled")
    then(dropped, "job.deleted")
    then(free, "cost.released")
    then(gone, "campaign.budget_changed", {"budget": "6"})
    then(gone, "campaign.deleted")
    then(spare, "campaign.archived")
    then(spare, "campaign.deleted")
    then(of_dropped, "content.deleted")
    then(launch, "campaign.paused")
    then(launch, "campaign.completed")
    types = {step["type"] for step in told if not isinstance(step, Request)} | {"cost.priced"}
    for name in TRANSITIONS.keys() - types - set(without):
        told.extend(events_of_type(name))
    return [step if isinstance(step, Request) else request(step) for step in told]


def expiry_request(held: dict[str, Any]) -> Request:
    """The request with which the sweeper expires a hold."""
    return Request([hold_expiry(UUID(held["id"]), uuid4())])


USAGE = {"input_tokens": 1_000_000}
"""Costs 2 by the price of `tests.events.price`."""


def priced_request(call: dict[str, Any]) -> Request:
    """The request that prices an unpriced call by the price at position 2."""
    payload = CostPriced(cost=Decimal(2), price=2)
    return Request([prepare(CATALOGUE["cost.priced"], payload, actor=SERVICE, stream_id=UUID(call["id"]))])


async def append_requests(database: Database, requests: Sequence[Request]) -> None:
    """Append requests, each a second later than the last, like `MemoryLog`."""
    now = NOON
    async with database.connection() as connection:
        for each in requests:
            await append(connection, [each], now)
            now += timedelta(seconds=1)
