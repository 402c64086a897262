"""Compares and corrects what appends are judged by: balances, holds, streams, stored entries.

They are compared with a temporary replay that has reached the head. A balance is compared with the sums of the replayed
entries, not with a replayed balance: the same figure, computed in two ways.
"""

from collections.abc import AsyncIterator, Sequence

from ledger.database import Connection
from ledger.domain.catalogue import sql_list
from projections import differences, stored_entries, stream_heads
from projections.differences import Difference

DELETED_CAMPAIGN = sql_list(lambda event_type: event_type.category == "campaign" and event_type.deletes_stream)
SET_CAMPAIGN_BUDGET = sql_list(lambda event_type: event_type.category == "campaign" and event_type.sets_budget)

REPLAYED_ACCOUNTS_AND_HOLDS = f"""
CREATE TEMPORARY TABLE replayed_accounts ON COMMIT DROP AS
WITH RECURSIVE by_campaign AS (
    -- An entry of a deleted campaign names none, but still counts for the account.
    SELECT coalesce(entry.campaign_id, opened.campaign_id) AS id, sum(cost) AS spent, sum(held) AS held
    FROM pg_temp.budget_entries AS entry LEFT JOIN ledger.cost_events AS opened
        ON entry.campaign_id IS NULL AND opened.stream_id = entry.id AND opened.version = 1
    GROUP BY 1
), own AS (
    SELECT agent_job_id AS id, sum(cost) AS spent, sum(held) AS held
    FROM pg_temp.budget_entries WHERE agent_job_id IS NOT NULL GROUP BY agent_job_id
), line (job_id, id) AS (
    -- An entry counts for its job and for all jobs above it.
    SELECT id, id FROM own
    UNION
    SELECT job_id, job.parent_job_id FROM line JOIN pg_temp.agent_jobs AS job USING (id)
    WHERE job.parent_job_id IS NOT NULL
), by_job AS (
    SELECT line.id, sum(own.spent) AS spent, sum(own.held) AS held
    FROM line JOIN own ON own.id = line.job_id GROUP BY line.id
)
SELECT 'campaign' AS scope, id, currency::text AS currency, budget,
    coalesce(spent, 0)::numeric(38, 18) AS spent, coalesce(by_campaign.held, 0)::numeric(38, 18) AS held
FROM pg_temp.campaigns LEFT JOIN by_campaign USING (id)
UNION ALL
-- A deleted campaign has no row: its currency and budget are those of its last events.
(SELECT DISTINCT ON (stream_id) 'campaign', stream_id, first.data ->> 'currency',
    (terms.data ->> 'budget')::numeric(28, 18), coalesce(spent, 0)::numeric(38, 18), coalesce(held, 0)::numeric(38, 18)
FROM ledger.campaign_events AS deleted JOIN ledger.campaign_events AS first USING (stream_id)
JOIN ledger.campaign_events AS terms USING (stream_id) LEFT JOIN by_campaign ON by_campaign.id = stream_id
WHERE deleted.type IN ({DELETED_CAMPAIGN}) AND first.version = 1
    AND terms.type IN ({SET_CAMPAIGN_BUDGET}) AND terms.data -> 'budget' IS NOT NULL
ORDER BY stream_id, terms.version DESC)
UNION ALL
SELECT 'job', id, currency::text, budget, spent, by_job.held FROM by_job JOIN pg_temp.agent_jobs USING (id);

CREATE TEMPORARY TABLE replayed_holds ON COMMIT DROP AS
SELECT id, held AS amount, campaign_id, agent_job_id, expires_at FROM pg_temp.budget_entries WHERE status = 'held';
"""  # noqa: S608 (fixed texts)

# Jobs that have ended while holds from before are open. Other rows are harmless: the sweeper removes them.
REPLAYED_PENDING = f"""
CREATE TEMPORARY TABLE replayed_pending ON COMMIT DROP AS
SELECT hold.agent_job_id AS id, max(ended.position) AS position
FROM pg_temp.replayed_holds AS hold
JOIN ledger.cost_events AS opened ON opened.stream_id = hold.id AND opened.version = 1
JOIN ledger.job_events AS ended ON ended.stream_id = hold.agent_job_id AND ended.position > opened.position
WHERE ended.type IN ({sql_list(lambda event_type: event_type.ends_job)})
GROUP BY hold.agent_job_id;
"""  # noqa: S608 (fixed text)

PRESENCE = """
('row', CASE WHEN {live} IS NULL THEN 'missing' ELSE 'present' END,
    CASE WHEN {replayed} IS NULL THEN 'missing' ELSE 'present' END, {live} IS NULL OR {replayed} IS NULL)
"""

ACCOUNTS = f"""
SELECT coalesce(live.account_id, replayed.id)::text AS id, cell.name, cell.live, cell.replayed
FROM ledger.accounts AS live
FULL JOIN pg_temp.replayed_accounts AS replayed ON replayed.scope = live.scope AND replayed.id = live.account_id,
LATERAL (VALUES {PRESENCE.format(live="live.account_id", replayed="replayed.id")},
    ('currency', live.currency, replayed.currency, live.currency <> replayed.currency),
    ('budget', live.budget::text, replayed.budget::text,
        live.account_id = replayed.id AND live.budget IS DISTINCT FROM replayed.budget),
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
    ('state', live.state::text, replayed.state::text, live.stream_id = replayed.stream_id AND {stream_heads.DIFFERS})
) AS cell (name, live, replayed, differs)
WHERE cell.differs
"""  # noqa: S608

ENTRIES = f"""
SELECT live.stream_id::text AS id, cell.name, cell.live, cell.replayed
FROM ledger.entries AS live LEFT JOIN pg_temp.replayed_entries AS replayed USING (stream_id),
LATERAL (VALUES {PRESENCE.format(live="live.stream_id", replayed="replayed.stream_id")},
    ('version', live.version::text, replayed.version::text, live.version <> replayed.version),
    ('state', live.state::text, replayed.state::text, live.state::jsonb <> replayed.state::jsonb)
) AS cell (name, live, replayed, differs)
WHERE cell.differs
"""  # noqa: S608

PENDING = f"""
SELECT replayed.id::text AS id, cell.name, cell.live, cell.replayed
FROM pg_temp.replayed_pending AS replayed LEFT JOIN ledger.pending_releases AS live ON live.job_id = replayed.id,
LATERAL (VALUES {PRESENCE.format(live="live.job_id", replayed="replayed.id")},
    ('position', live.position::text, replayed.position::text, live.position <> replayed.position)
) AS cell (name, live, replayed, differs)
WHERE cell.differs
"""  # noqa: S608

CORRECT_ACCOUNTS = (
    """
    DELETE FROM ledger.accounts AS live WHERE NOT EXISTS (
        SELECT FROM pg_temp.replayed_accounts WHERE scope = live.scope AND id = live.account_id
    )
    """,
    """
    UPDATE ledger.accounts AS live
    SET currency = replayed.currency, budget = replayed.budget, spent = replayed.spent, held = replayed.held
    FROM pg_temp.replayed_accounts AS replayed
    WHERE replayed.scope = live.scope AND replayed.id = live.account_id AND
        (live.currency, live.budget, live.spent, live.held)
        IS DISTINCT FROM (replayed.currency, replayed.budget, replayed.spent, replayed.held)
    """,
    """
    INSERT INTO ledger.accounts (account_id, scope, currency, budget, spent, held)
    SELECT id, scope, currency, budget, spent, held FROM pg_temp.replayed_accounts
    ON CONFLICT DO NOTHING
    """,
)

CORRECT_HOLDS = (
    """
    DELETE FROM ledger.holds AS live
    WHERE NOT EXISTS (SELECT FROM pg_temp.replayed_holds WHERE id = live.stream_id)
    """,
    """
    INSERT INTO ledger.holds AS live (stream_id, amount, campaign_id, agent_job_id, expires_at)
    SELECT * FROM pg_temp.replayed_holds
    ON CONFLICT (stream_id) DO UPDATE SET amount = excluded.amount, campaign_id = excluded.campaign_id,
        agent_job_id = excluded.agent_job_id, expires_at = excluded.expires_at
    WHERE (live.amount, live.campaign_id, live.agent_job_id, live.expires_at)
        IS DISTINCT FROM (excluded.amount, excluded.campaign_id, excluded.agent_job_id, excluded.expires_at)
    """,
)

CORRECT_PENDING = (
    """
    INSERT INTO ledger.pending_releases AS live (job_id, position)
    SELECT id, position FROM pg_temp.replayed_pending
    ON CONFLICT (job_id) DO UPDATE SET position = excluded.position WHERE live.position <> excluded.position
    """,
)

LET_SERVICES_RELOAD = "UPDATE ledger.log_head SET token = gen_random_uuid()"
"""Running services keep states in memory, and load them anew only if the head has moved."""

# Appends were judged with the skipped events, which the replay lacks: the state of their streams is taken as it is, and
# that of the jobs above them.
SKIPPED_STREAMS = """
CREATE TEMPORARY TABLE skipped_streams ON COMMIT DROP AS
WITH skipped AS (
    SELECT concerned.id FROM ledger.events, unnest(ARRAY[stream_id, campaign_id, agent_job_id]) AS concerned (id)
    WHERE position = ANY ($1::bigint[]) AND concerned.id IS NOT NULL
)
SELECT id FROM skipped
UNION
SELECT above.id::uuid FROM skipped
JOIN ledger.streams AS job ON job.stream_id = skipped.id AND job.category = 'job'
CROSS JOIN LATERAL json_array_elements_text(job.state -> 6) AS above (id)
"""

KEEP_SKIPPED_STREAMS = """
DELETE FROM pg_temp.replayed_accounts WHERE id IN (SELECT id FROM pg_temp.skipped_streams);
INSERT INTO pg_temp.replayed_accounts (scope, id, currency, budget, spent, held)
SELECT scope, account_id, currency, budget, spent, held
FROM ledger.accounts WHERE account_id IN (SELECT id FROM pg_temp.skipped_streams);

DELETE FROM pg_temp.replayed_holds WHERE id IN (SELECT id FROM pg_temp.skipped_streams);
INSERT INTO pg_temp.replayed_holds (id, amount, campaign_id, agent_job_id, expires_at)
SELECT stream_id, amount, campaign_id, agent_job_id, expires_at
FROM ledger.holds WHERE stream_id IN (SELECT id FROM pg_temp.skipped_streams);

DELETE FROM pg_temp.replayed_streams WHERE stream_id IN (SELECT id FROM pg_temp.skipped_streams);
INSERT INTO pg_temp.replayed_streams (category, stream_id, version, state)
SELECT category, stream_id, version, state
FROM ledger.streams WHERE stream_id IN (SELECT id FROM pg_temp.skipped_streams);

DELETE FROM pg_temp.replayed_entries WHERE stream_id IN (SELECT id FROM pg_temp.skipped_streams);
INSERT INTO pg_temp.replayed_entries (stream_id, version, state)
SELECT stream_id, version, state
FROM ledger.entries WHERE stream_id IN (SELECT id FROM pg_temp.skipped_streams);
"""


async def compare_with_replay(connection: Connection, skipped_positions: Sequence[int]) -> AsyncIterator[Difference]:
    """Yield every difference, inside the caller's snapshot; the replay has reached its head.

    Args:
        connection: inside a repeatable-read transaction.
        skipped_positions: the positions of the events that the replay has skipped.
    """
    await _prepare(connection, skipped_positions)
    for table, query in (
        ("ledger.accounts", ACCOUNTS),
        ("ledger.holds", HOLDS),
        ("ledger.streams", STREAMS),
        ("ledger.entries", ENTRIES),
        ("ledger.pending_releases", PENDING),
    ):
        async for difference in differences.read_differences(connection, table, query):
            yield difference


async def correct(connection: Connection, skipped_positions: Sequence[int]) -> dict[str, int]:
    """Write what differs from the replay. The caller holds the head lock, so that appends wait.

    Args:
        connection: inside a transaction.
        skipped_positions: the positions of the events that the replay has skipped.

    Returns:
        rows changed, by table.
    """
    await _prepare(connection, skipped_positions)
    changed = {}
    for table, statements in (
        ("ledger.accounts", CORRECT_ACCOUNTS),
        ("ledger.holds", CORRECT_HOLDS),
        ("ledger.streams", stream_heads.CORRECT_STREAMS),
        ("ledger.entries", stored_entries.CORRECT_ENTRIES),
        ("ledger.pending_releases", CORRECT_PENDING),
    ):
        changed[table] = 0
        for statement in statements:
            changed[table] += int((await connection.execute(statement)).rpartition(" ")[2])
    await connection.execute(LET_SERVICES_RELOAD)
    return changed


async def _prepare(connection: Connection, skipped_positions: Sequence[int]) -> None:
    """Create the temporary tables with the expected state; they are dropped at the end of the transaction."""
    await connection.execute(REPLAYED_ACCOUNTS_AND_HOLDS)
    await connection.execute(stream_heads.REPLAYED_STREAMS)
    await connection.execute(stored_entries.REPLAYED_ENTRIES)
    if skipped_positions:
        await connection.execute(SKIPPED_STREAMS, list(skipped_positions))
        await connection.execute(KEEP_SKIPPED_STREAMS)
    await connection.execute(REPLAYED_PENDING)
