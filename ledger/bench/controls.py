"""Controls that write the same rows with COPY: PostgreSQL alone, with no decisions and no folding.

The tables are like the service's own, with their indexes, checks and keys, in the schema `bench`.
"""

import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from uuid_utils.compat import uuid7

from ledger.bench import workload
from ledger.database import Connection
from ledger.log.tables import EVENT_COLUMNS

# Like the partition of cost events, which receives the appends that are measured.
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

EVENTS_PER_COPY = 1_000
"""Rows per transaction of the control of appends."""

ENTRIES_PER_COPY = 20_000
"""Rows per transaction of the control of folds."""

_FIRST_RECORDED_AT = datetime(2025, 1, 1, tzinfo=UTC)


async def create_tables(connection: Connection) -> None:
    """Create the tables of the controls, empty."""
    await connection.execute(TABLES)


async def copy_events(connection: Connection, rows: int) -> float:
    """COPY cost events with asyncpg, 1,000 rows per transaction; return the rows per second."""
    position = int(await connection.fetchval("SELECT coalesce(max(position), 0) FROM bench.events"))
    seconds = 0.0
    for start in range(0, rows, EVENTS_PER_COPY):
        records = [_event(position + start + number) for number in range(1, EVENTS_PER_COPY + 1)]
        began = time.perf_counter()
        await connection.copy_records_to_table("events", schema_name="bench", columns=EVENT_COLUMNS, records=records)
        seconds += time.perf_counter() - began
    return rows / seconds


async def copy_entries(connection: Connection, rows: int) -> float:
    """COPY budget entries with asyncpg, 20,000 rows per transaction; return the rows per second."""
    seconds = 0.0
    for start in range(0, rows, ENTRIES_PER_COPY):
        records = [_entry(number) for number in range(start + 1, min(rows, start + ENTRIES_PER_COPY) + 1)]
        began = time.perf_counter()
        await connection.copy_records_to_table(
            "budget_entries", schema_name="bench", columns=ENTRY_COLUMNS, records=records
        )
        seconds += time.perf_counter() - began
    return rows / seconds


def _event(position: int) -> tuple[Any, ...]:
    event_id, job = uuid7(), random.randrange(workload.JOBS)  # noqa: S311
    data = (
        f'{{"resource_type":"llm_api","cost":"0.{random.randint(1, 9_999):04d}5","currency":"USD",'  # noqa: S311
        f'"tokens_used":{random.randint(1, 9_999)},"model_used":"gpt-4o","provider":"openai",'  # noqa: S311
        f'"agent_job_id":"{workload.job_id(job)}"}}'
    )
    recorded_at = _FIRST_RECORDED_AT + timedelta(microseconds=position)
    return (
        *(position, "cost", event_id, 1, event_id, "cost.recorded", 1, recorded_at, recorded_at, "local"),
        *(workload.as_uuid(workload.campaign_id(job % workload.CAMPAIGNS)), workload.as_uuid(workload.job_id(job))),
        *(None, None, data, None, None, None, None, len(data)),
    )


def _entry(position: int) -> tuple[Any, ...]:
    job = random.randrange(workload.JOBS)  # noqa: S311
    recorded_at = _FIRST_RECORDED_AT + timedelta(microseconds=position)
    cost = Decimal(random.randint(1, 99_999)).scaleb(-5)  # noqa: S311
    model = random.choice(workload.MODELS)  # noqa: S311
    return (
        *(uuid7(), "llm_api", "settled", cost, random.randint(1, 9_999), model),  # noqa: S311
        *(workload.as_uuid(workload.job_id(job)), workload.as_uuid(workload.campaign_id(job % workload.CAMPAIGNS))),
        *("USD", "openai", recorded_at, recorded_at, recorded_at, position),
    )
