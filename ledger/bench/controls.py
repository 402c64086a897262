"""What the service is held against: the same rows written by PostgreSQL's own means, with nothing judged or folded.

The tables are like the service's own, with their indexes, checks and keys, in a schema beside them.
"""

import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from uuid_utils.compat import uuid7

from ledger.bench import traffic
from ledger.database import Connection
from ledger.log.tables import EVENT_COLUMNS

if TYPE_CHECKING:
    pass

# As the partition of costs, where the work goes.
TABLES = """
CREATE SCHEMA bench;
CREATE TABLE bench.events (LIKE ledger.cost_events INCLUDING ALL);
CREATE SEQUENCE bench.position CACHE 100;
CREATE TABLE bench.budget_entries (LIKE public.budget_entries INCLUDING ALL,
    FOREIGN KEY (agent_job_id) REFERENCES public.agent_jobs (id) ON DELETE CASCADE);
CREATE TABLE bench.accounts (LIKE ledger.accounts INCLUDING ALL);
CREATE TABLE bench.holds (LIKE ledger.holds INCLUDING ALL);
INSERT INTO bench.accounts SELECT * FROM ledger.accounts WHERE scope = 'campaign';
"""

ENTRY_COLUMNS = (
    "id resource_type status cost tokens_used model_used agent_job_id campaign_id currency provider occurred_at "
    "created_at updated_at position"
).split()

COPY_EVENTS = 1_000
"""Rows in a transaction of the control of appends."""

COPY_ENTRIES = 20_000
"""Rows in a transaction of the control of folds."""

_STARTED = datetime(2025, 1, 1, tzinfo=UTC)


async def make_tables(connection: Connection) -> None:
    """Make the control's tables, empty."""
    await connection.execute(TABLES)


async def copy_events(connection: Connection, rows: int) -> float:
    """COPY cost events by asyncpg, in transactions of 1,000 rows; rows a second."""
    position = int(await connection.fetchval("SELECT coalesce(max(position), 0) FROM bench.events"))
    seconds = 0.0
    for start in range(0, rows, COPY_EVENTS):
        records = [_event(position + start + number) for number in range(1, COPY_EVENTS + 1)]
        began = time.perf_counter()
        await connection.copy_records_to_table("events", schema_name="bench", columns=EVENT_COLUMNS, records=records)
        seconds += time.perf_counter() - began
    return rows / seconds


async def copy_entries(connection: Connection, rows: int) -> float:
    """COPY budget entries by asyncpg, in transactions of 20,000 rows; rows a second."""
    seconds = 0.0
    for start in range(0, rows, COPY_ENTRIES):
        records = [_entry(number) for number in range(start + 1, min(rows, start + COPY_ENTRIES) + 1)]
        began = time.perf_counter()
        await connection.copy_records_to_table(
            "budget_entries", schema_name="bench", columns=ENTRY_COLUMNS, records=records
        )
        seconds += time.perf_counter() - began
    return rows / seconds


def _event(position: int) -> tuple[Any, ...]:
    event_id, job = uuid7(), random.randrange(traffic.JOBS)  # noqa: S311
    data = (
        f'{{"resource_type":"llm_api","cost":"0.{random.randint(1, 9_999):04d}5","currency":"USD",'  # noqa: S311
        f'"tokens_used":{random.randint(1, 9_999)},"model_used":"gpt-4o","provider":"openai",'  # noqa: S311
        f'"agent_job_id":"{traffic.job_id(job)}"}}'
    )
    moment = _STARTED + timedelta(microseconds=position)
    return (
        *(position, "cost", event_id, 1, event_id, "cost.recorded", 1, moment, moment, "local"),
        *(traffic.as_uuid(traffic.campaign_id(job % traffic.CAMPAIGNS)), traffic.as_uuid(traffic.job_id(job))),
        *(None, None, data, None, None, None, None, len(data)),
    )


def _entry(position: int) -> tuple[Any, ...]:
    job = random.randrange(traffic.JOBS)  # noqa: S311
    moment = _STARTED + timedelta(microseconds=position)
    cost = Decimal(random.randint(1, 99_999)).scaleb(-5)  # noqa: S311
    model = random.choice(traffic.MODELS)  # noqa: S311
    return (
        *(uuid7(), "llm_api", "settled", cost, random.randint(1, 9_999), model),  # noqa: S311
        *(traffic.as_uuid(traffic.job_id(job)), traffic.as_uuid(traffic.campaign_id(job % traffic.CAMPAIGNS))),
        *("USD", "openai", moment, moment, moment, position),
    )
