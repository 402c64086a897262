"""What appends are judged by (balances, open holds, stream heads) against a temporary replay that reached the head.

Balances are held against the sums of the replayed entries, not against the replayed balances: two ways to one figure.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from projections import compare
from projections.compare import Difference

if TYPE_CHECKING:
    import asyncpg

# A deleted campaign has no row any more, so its terms are unknown; what its entries still move is compared even so.
REPLAYED = """
CREATE TEMPORARY TABLE replayed_accounts ON COMMIT DROP AS
WITH of_campaign AS (
    SELECT campaign_id AS id, sum(cost) AS spent, sum(held) AS held
    FROM pg_temp.budget_entries WHERE campaign_id IS NOT NULL GROUP BY campaign_id
), of_job AS (
    SELECT agent_job_id AS id, sum(cost) AS spent, sum(held) AS held
    FROM pg_temp.budget_entries WHERE agent_job_id IS NOT NULL GROUP BY agent_job_id
)
SELECT 'campaign' AS scope, id, true AS has_terms, currency::text AS currency, budget,
    coalesce(spent, 0) AS spent, coalesce(of_campaign.held, 0) AS held
FROM pg_temp.campaigns LEFT JOIN of_campaign USING (id)
UNION ALL
SELECT 'campaign', stream_id, false, NULL, NULL, coalesce(spent, 0), coalesce(held, 0)
FROM ledger.campaign_events LEFT JOIN of_campaign ON of_campaign.id = stream_id WHERE type = 'campaign.deleted'
UNION ALL
SELECT 'job', id, true, currency::text, budget, spent, of_job.held FROM of_job JOIN pg_temp.agent_jobs USING (id);

CREATE TEMPORARY TABLE replayed_holds ON COMMIT DROP AS
SELECT id, held AS amount, campaign_id, agent_job_id, expires_at FROM pg_temp.budget_entries WHERE status = 'held';

CREATE TEMPORARY TABLE replayed_streams ON COMMIT DROP AS
SELECT category, stream_id, count(*) AS version, coalesce(CASE category
    WHEN 'campaign' THEN (SELECT status FROM pg_temp.campaigns WHERE id = stream_id)
    WHEN 'content' THEN (SELECT status FROM pg_temp.content_assets WHERE id = stream_id)
    ELSE (SELECT status FROM pg_temp.agent_jobs WHERE id = stream_id) END, 'deleted') AS status
FROM ledger.events WHERE category IN ('campaign', 'content', 'job') GROUP BY category, stream_id;
"""

PRESENCE = """
('row', CASE WHEN {live} IS NULL THEN 'missing' ELSE 'present' END,
    CASE WHEN {replayed} IS NULL THEN 'missing' ELSE 'present' END, {live} IS NULL OR {replayed} IS NULL)
"""

ACCOUNTS = f"""
SELECT coalesce(live.account_id, replayed.id)::text AS id, cell.name, cell.live, cell.replayed
FROM ledger.accounts AS live
FULL JOIN pg_temp.replayed_accounts AS replayed ON replayed.scope = live.scope AND replayed.id = live.account_id,
LATERAL (VALUES {PRESENCE.format(live="live.account_id", replayed="replayed.id")},
    ('currency', live.currency, replayed.currency, has_terms AND live.currency <> replayed.currency),
    ('budget', live.budget::text, replayed.budget::text,
        has_terms AND live.account_id IS NOT NULL AND live.budget IS DISTINCT FROM replayed.budget),
    ('spent', live.spent::text, replayed.spent::text, live.spent <> replayed.spent),
    ('held', live.held::text, replayed.held::text, live.held <> replayed.held)
) AS cell (name, live, replayed, differs)
WHERE cell.differs
"""  # noqa: S608 (fixed texts)

HOLDS = f"""
SELECT coalesce(live.stream_id, replayed.id)::text AS id, cell.name, cell.live, cell.replayed
FROM ledger.holds AS live FULL JOIN pg_temp.replayed_holds AS replayed ON replayed.id = live.stream_id,
LATERAL (VALUES {PRESENCE.format(live="live.stream_id", replayed="replayed.id")},
    ('amount', live.amount::text, replayed.amount::text, live.amount <> replayed.amount),
    ('campaign_id', live.campaign_id::text, replayed.campaign_id::text, live.stream_id = replayed.id
        AND live.campaign_id IS DISTINCT FROM replayed.campaign_id),
    ('agent_job_id', live.agent_job_id::text, replayed.agent_job_id::text, live.stream_id = replayed.id
        AND live.agent_job_id IS DISTINCT FROM replayed.agent_job_id),
    ('expires_at', live.expires_at::text, replayed.expires_at::text, live.expires_at <> replayed.expires_at)
) AS cell (name, live, replayed, differs)
WHERE cell.differs
"""  # noqa: S608

STREAMS = f"""
SELECT coalesce(live.stream_id, replayed.stream_id)::text AS id, cell.name, cell.live, cell.replayed
FROM ledger.streams AS live FULL JOIN pg_temp.replayed_streams AS replayed
    ON replayed.category = live.category AND replayed.stream_id = live.stream_id,
LATERAL (VALUES {PRESENCE.format(live="live.stream_id", replayed="replayed.stream_id")},
    ('version', live.version::text, replayed.version::text, live.version <> replayed.version),
    ('status', live.state ->> 0, replayed.status, live.state ->> 0 <> replayed.status)
) AS cell (name, live, replayed, differs)
WHERE cell.differs
"""  # noqa: S608

LOCK_HEAD = "SELECT position FROM ledger.log_head FOR UPDATE"

MEND_ACCOUNTS = (
    """
    DELETE FROM ledger.accounts AS live WHERE NOT EXISTS (
        SELECT FROM pg_temp.replayed_accounts WHERE scope = live.scope AND id = live.account_id
    )
    """,
    """
    UPDATE ledger.accounts AS live SET spent = replayed.spent, held = replayed.held,
        currency = CASE WHEN has_terms THEN replayed.currency ELSE live.currency END,
        budget = CASE WHEN has_terms THEN replayed.budget ELSE live.budget END
    FROM pg_temp.replayed_accounts AS replayed
    WHERE replayed.scope = live.scope AND replayed.id = live.account_id AND (
        live.spent <> replayed.spent OR live.held <> replayed.held OR has_terms
        AND (live.currency, live.budget) IS DISTINCT FROM (replayed.currency, replayed.budget)
    )
    """,
    """
    INSERT INTO ledger.accounts (account_id, scope, currency, budget, spent, held)
    SELECT id, scope, currency, budget, spent, held FROM pg_temp.replayed_accounts WHERE has_terms
    ON CONFLICT DO NOTHING
    """,
)

MEND_HOLDS = (
    "DELETE FROM ledger.holds WHERE stream_id NOT IN (SELECT id FROM pg_temp.replayed_holds)",
    """
    INSERT INTO ledger.holds AS live (stream_id, amount, campaign_id, agent_job_id, expires_at)
    SELECT * FROM pg_temp.replayed_holds
    ON CONFLICT (stream_id) DO UPDATE SET amount = excluded.amount, campaign_id = excluded.campaign_id,
        agent_job_id = excluded.agent_job_id, expires_at = excluded.expires_at
    WHERE (live.amount, live.campaign_id, live.agent_job_id, live.expires_at)
        IS DISTINCT FROM (excluded.amount, excluded.campaign_id, excluded.agent_job_id, excluded.expires_at)
    """,
)


async def differences(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[Difference]:
    """Every difference, inside the caller's snapshot, at whose head the replay stands."""
    await connection.execute(REPLAYED)
    for table, query in (("ledger.accounts", ACCOUNTS), ("ledger.holds", HOLDS), ("ledger.streams", STREAMS)):
        async for difference in compare.differences(connection, table, query):
            yield difference


async def mend(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, int]:
    """Make balances and open holds what the log says; the caller holds the head's lock, so that appends wait.

    Returns:
        rows changed by table.
    """
    await connection.execute(REPLAYED)
    changed = {}
    for table, statements in (("ledger.accounts", MEND_ACCOUNTS), ("ledger.holds", MEND_HOLDS)):
        changed[table] = 0
        for statement in statements:
            changed[table] += int((await connection.execute(statement)).rpartition(" ")[2])
    return changed
