"""Column check of `ledger verify`, in SQL: columns of `ledger.events` that no entry's hash covers.

These are `size`, free text with its salt and commitment, and `over_budget`, which is computed independently of the
append: by window functions over the cost events instead of stored balances. Faults are reported by position.
"""

from collections.abc import AsyncIterator

import asyncpg

from ledger.database import Connection
from ledger.domain.catalogue import CATALOGUE, sql_list
from ledger.domain.ledger_events import PAYLOAD_ERASED

FAULTS_SHOWN_MAX = 100
"""Faults listed per kind."""

EVENTS_PER_STATEMENT_MAX = 50_000
"""Events checked by one statement, so that no statement holds its snapshot for long."""

FACTS = sql_list(lambda kind: kind.is_fact)
HOLDS = sql_list(lambda kind: kind.opens_hold)
CREDITS = sql_list(lambda kind: kind.is_credit)
WITHOUT_CHANGE = sql_list(lambda kind: kind.denies_hold or kind.extends_hold)
BUDGETS = sql_list(lambda kind: kind.sets_budget)
BUDGET_CHANGES = sql_list(lambda kind: kind.sets_budget and not kind.opens_stream)
AMOUNT_FIELDS = "type " + " ".join(
    f"WHEN '{kind.name}' THEN '{kind.amount_field}'" for kind in CATALOGUE.values() if kind.amount_field
)

NUMBER = "[0-9]{1,10}([.][0-9]{1,18})?"

NO_LIMIT = "1e40"
"""A limit that no sum reaches: of jobs and campaigns without one."""

# An erased event keeps its original size, unless it was imported: then its size is that of the remaining data.
# The fields of an erasure are compared as text, so that an invalid number is reported instead of raising an error.
ROW_FAULTS = f"""
SELECT position, fault FROM (
    SELECT position, concat_ws('; ',
        CASE WHEN (has_text OR text_commitment IS NULL OR erased_size IS NOT NULL)
            AND size NOT IN (coalesce(erased_size, actual_size::text), actual_size::text)
        THEN
            format('size is %s, but should be %s characters', size, coalesce(erased_size, actual_size::text))
        END,
        CASE WHEN text_commitment IS DISTINCT FROM actual_commitment AND has_text THEN
            'the text does not match its salt and commitment'
        END,
        CASE WHEN text_commitment IS NOT NULL AND NOT has_text AND erased_size IS NULL THEN
            'the text is missing, but no {PAYLOAD_ERASED} event records its erasure'
        END,
        CASE WHEN over_budget IS NOT NULL AND NOT may_be_over THEN
            format('over_budget cannot be %s', over_budget)
        END
    ) AS fault
    FROM (
        SELECT position, event.size::text AS size, erasure.size AS erased_size, text_commitment, over_budget,
            text IS NOT NULL AS has_text,
            char_length(data::text) + coalesce(char_length(text::text), 0) AS actual_size,
            encode(sha256(text_salt || convert_to(text::text, 'UTF8')), 'hex') AS actual_commitment,
            type IN ({FACTS}) AND over_budget IN ('{{job}}', '{{ancestor}}', '{{campaign}}', '{{job,ancestor}}',
                    '{{job,campaign}}', '{{ancestor,campaign}}', '{{job,ancestor,campaign}}')
                AND (agent_job_id IS NOT NULL OR over_budget = '{{campaign}}')
                AND (campaign_id IS NOT NULL OR 'campaign' <> ALL (over_budget)) AS may_be_over
        FROM ledger.events AS event
        LEFT JOIN LATERAL (
            SELECT data ->> 'size' AS size FROM ledger.ledger_events
            WHERE event.text IS NULL AND event.text_commitment IS NOT NULL AND stream_id = event.stream_id
                AND type = '{PAYLOAD_ERASED}' AND data ->> 'position' = event.position::text
                AND data ->> 'category' = event.category
            LIMIT 1
        ) AS erasure ON true
        WHERE position > $1 AND position <= $2
        OFFSET 0
    ) AS event
) AS event
WHERE fault <> '' ORDER BY position LIMIT $3
"""  # noqa: S608 (fixed texts)

ERASURE_FAULTS = f"""
SELECT erasure.position, format(
    'records the erasure of %s at position %s, but no such event has lost its text',
    data ->> 'event_type', data ->> 'position'
) AS fault
FROM ledger.ledger_events AS erasure
WHERE type = '{PAYLOAD_ERASED}' AND NOT EXISTS (
    SELECT FROM ledger.events AS event
    WHERE event.stream_id = erasure.stream_id AND event.stream_id::text = erasure.data ->> 'stream_id'
        AND event.position::text = erasure.data ->> 'position' AND event.position < erasure.position
        AND event.category = erasure.data ->> 'category' AND event.type = erasure.data ->> 'event_type'
        AND event.text IS NULL AND event.text_commitment IS NOT NULL
)
ORDER BY position LIMIT $1
"""  # noqa: S608

# All limits of an event (of job, ancestors and campaign) are checked against the sum of spent and held, so each cost
# event changes all by the same amount. But for extensions, a hold is open until the next event of its stream. Budgets
# are made differences too, so that their running sum is the limit in force. What counts for a job counts for each job
# above it: `line` has the jobs above each job, `by_ancestor` the changes of those jobs, their own and of jobs below.
OVER_BUDGET_FAULTS = rf"""
WITH RECURSIVE cost AS (
    SELECT position, stream_id, type, agent_job_id, campaign_id, over_budget,
        data ->> CASE {AMOUNT_FIELDS} END AS amount
    FROM ledger.cost_events WHERE type NOT IN ({WITHOUT_CHANGE})
), numeric_cost AS (
    SELECT *, CASE WHEN amount ~ '^-?{NUMBER}$' THEN amount::numeric ELSE 0 END
        * CASE WHEN type IN ({CREDITS}) THEN -1 ELSE 1 END AS used
    FROM cost
), cost_change AS (
    SELECT position, type, agent_job_id, campaign_id, over_budget,
        used - CASE WHEN lag(type) OVER stream IN ({HOLDS}) THEN lag(used) OVER stream ELSE 0 END AS used
    FROM numeric_cost WINDOW stream AS (PARTITION BY stream_id ORDER BY position)
), budget AS (
    SELECT position, type, category, stream_id,
        CASE WHEN data ->> 'budget' ~ '^{NUMBER}$' THEN (data ->> 'budget')::numeric ELSE {NO_LIMIT} END AS budget
    FROM ledger.events
    WHERE type IN ({BUDGETS}) AND (type NOT IN ({BUDGET_CHANGES}) OR data -> 'budget' IS NOT NULL)
), budget_change AS (
    SELECT position, CASE WHEN category = 'job' THEN stream_id END AS agent_job_id,
        CASE WHEN category = 'campaign' THEN stream_id END AS campaign_id,
        budget - CASE WHEN type IN ({BUDGET_CHANGES}) THEN lag(budget) OVER stream ELSE 0 END AS budget
    FROM budget WINDOW stream AS (PARTITION BY category, stream_id ORDER BY position)
), change AS (
    SELECT position, type, agent_job_id, campaign_id, over_budget, used, NULL AS budget FROM cost_change
    UNION ALL
    SELECT position, NULL, agent_job_id, campaign_id, NULL, 0, budget FROM budget_change
), child (job_id, parent_id) AS MATERIALIZED (
    SELECT stream_id, (data ->> 'parent_job_id')::uuid FROM ledger.job_events
    WHERE version = 1 AND data ->> 'parent_job_id' IS NOT NULL
), line (job_id, ancestor_id) AS (
    SELECT job_id, parent_id FROM child
    UNION
    SELECT line.job_id, child.parent_id FROM line JOIN child ON child.job_id = line.ancestor_id
), by_ancestor AS (
    SELECT position, type, ancestor_id, true AS is_below, used, NULL AS budget
    FROM cost_change JOIN line ON line.job_id = agent_job_id
    UNION ALL
    SELECT position, type, agent_job_id, false, used, budget
    FROM change WHERE agent_job_id IN (SELECT parent_id FROM child)
), of_ancestor AS (
    SELECT position, type, ancestor_id, is_below,
        sum(used) OVER ancestor > sum(budget) OVER ancestor AS is_over
    FROM by_ancestor WINDOW ancestor AS (PARTITION BY ancestor_id ORDER BY position)
), below AS (
    SELECT DISTINCT position FROM of_ancestor WHERE is_over AND is_below AND type IN ({FACTS})
), parent AS (
    SELECT position, is_over FROM of_ancestor WHERE NOT is_below AND type IN ({FACTS})
), balance AS (
    SELECT position, type, over_budget,
        agent_job_id IS NOT NULL AND sum(used) OVER job > sum(budget) OVER job AS job_is_over,
        campaign_id IS NOT NULL AND sum(used) OVER campaign > sum(budget) OVER campaign AS campaign_is_over
    FROM change
    WINDOW job AS (PARTITION BY agent_job_id ORDER BY position),
        campaign AS (PARTITION BY campaign_id ORDER BY position)
), expected AS (
    SELECT position, over_budget, nullif(array_remove(ARRAY[
        CASE WHEN coalesce(parent.is_over, job_is_over) THEN 'job' END,
        CASE WHEN below.position IS NOT NULL THEN 'ancestor' END,
        CASE WHEN campaign_is_over THEN 'campaign' END
    ], NULL), '{{}}') AS computed
    FROM balance LEFT JOIN parent USING (position) LEFT JOIN below USING (position) WHERE type IN ({FACTS})
)
SELECT position, format('over_budget is %s, but the events before it give %s',
    coalesce(over_budget::text, 'null'), coalesce(computed::text, 'null')) AS fault
FROM expected WHERE over_budget IS DISTINCT FROM computed
ORDER BY position LIMIT $1
"""  # noqa: S608


async def find_column_faults(connection: Connection, head: int) -> AsyncIterator[str]:
    """Yield one sentence per faulty event, at most `FAULTS_SHOWN_MAX` of each kind.

    Args:
        connection: outside any transaction.
        head: position up to which events are checked.
    """
    remaining = FAULTS_SHOWN_MAX
    for after in range(0, head, EVENTS_PER_STATEMENT_MAX):
        until = min(after + EVENTS_PER_STATEMENT_MAX, head)
        row_faults = await _fetch_faults(connection, ROW_FAULTS, after, until, remaining)
        remaining -= len(row_faults)
        for fault in row_faults:
            yield fault
    for query in (ERASURE_FAULTS, OVER_BUDGET_FAULTS):
        for fault in await _fetch_faults(connection, query, FAULTS_SHOWN_MAX):
            yield fault


async def _fetch_faults(connection: Connection, query: str, *arguments: int) -> list[str]:
    try:
        rows = await connection.fetch(query, *arguments)
    except asyncpg.DataError as error:
        # An event has JSON that PostgreSQL cannot read. The replay, which follows, reports its position.
        return [f"the log cannot be checked: {error}"]
    return [f"position {row['position']}: {row['fault']}" for row in rows]
