"""Look up the calls of entries in the log: what was used, and the price of the cost so far."""

from collections.abc import Collection
from uuid import UUID

import asyncpg

from ledger.database import Connection
from ledger.domain.catalogue import decode_stored
from ledger.domain.cost import CostDenied, CostRecorded, CostReserved, CostSettled
from ledger.domain.price_check import PricedCall
from ledger.domain.priced_cost import Call

COLUMNS = """
charge.type AS charge_type, charge.schema_version AS charge_version, charge.data::text AS charge, charge.occurred_at,
first.data ->> 'provider' AS provider, first.data ->> 'model_used' AS model_used,
first.data ->> 'service_tier' AS service_tier, before.price AS before,
coalesce(campaign.data ->> 'currency', job.state ->> 2, first.data ->> 'currency', 'USD') AS currency
"""

# For each `event`: its type, its stream and its version. `charge` is the event that says what was used; of a hold it is
# the hold itself. What a settlement does not say is inherited from the first event. `before` is the price that a later
# one replaces. The third element of the state of a job is its currency, which it may have from the job above it.
JOINS = """
JOIN ledger.cost_events AS first ON first.stream_id = event.stream_id AND first.version = 1
LEFT JOIN LATERAL (
    SELECT * FROM ledger.cost_events
    WHERE stream_id = event.stream_id AND version <= event.version
        AND type IN ('cost.recorded', 'cost.settled', event.type) AND data -> 'usage' IS NOT NULL
    ORDER BY version DESC LIMIT 1
) AS charge ON true
LEFT JOIN LATERAL (
    SELECT (data ->> 'price')::bigint AS price FROM ledger.cost_events
    WHERE stream_id = event.stream_id AND version < event.version AND type <> 'cost.reserved'
        AND data ->> 'price' ~ '^[0-9]{1,18}$'
    ORDER BY version DESC LIMIT 1
) AS before ON true
LEFT JOIN ledger.campaign_events AS campaign ON campaign.stream_id = first.campaign_id AND campaign.version = 1
LEFT JOIN ledger.streams AS job ON job.stream_id = first.agent_job_id AND job.category = 'job'
"""

# Of streams as they are now: before an event that none of them has yet.
CALLS = f"""
SELECT event.stream_id, {COLUMNS}
FROM (SELECT unnest($1::uuid[]) AS stream_id, NULL AS type, 9223372036854775807 AS version) AS event
{JOINS}
WHERE charge.data IS NOT NULL
"""  # noqa: S608 (fixed texts)


def call_of(row: asyncpg.Record) -> PricedCall:
    """Return the call of a row with `COLUMNS`, which has a charge.

    Raises:
        msgspec.ValidationError, UnknownEventTypeError: the charge cannot be read.
    """
    charge = decode_stored(row["charge_type"], row["charge_version"], row["charge"], None)
    assert isinstance(charge, CostRecorded | CostReserved | CostSettled | CostDenied)
    assert charge.usage is not None, "the query selects charges with usage"
    call = Call(charge.provider, charge.model_used, charge.service_tier, row["currency"], row["occurred_at"])
    inherited = call.inheriting(row["provider"], row["model_used"], row["service_tier"])
    return PricedCall(inherited, charge.usage, row["before"])


async def read_calls(connection: Connection, stream_ids: Collection[UUID]) -> dict[UUID, PricedCall]:
    """Read the calls of entries that were charged by usage; an entry without usage is left out."""
    if not stream_ids:
        return {}
    return {row["stream_id"]: call_of(row) for row in await connection.fetch(CALLS, list(stream_ids))}
