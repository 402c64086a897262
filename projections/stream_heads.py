"""SQL for the expected versions and states of all streams, from the events and a temporary replay.

What is not in a stream's row is in its events: a job's first one, an asset's last. Of a deleted stream, only the status
still affects decisions. The ancestors and children of a job follow from the parents in the rows.
"""

from ledger.domain.job import LEVELS_MAX

# The format of times in the stored states: seconds, and microseconds unless they are 0.
TIME = """
to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
    || CASE to_char({0}, 'US') WHEN '000000' THEN '' ELSE to_char({0}, '.US') END || 'Z'
"""

REPLAYED_STREAMS = f"""
CREATE TEMPORARY TABLE replayed_streams ON COMMIT DROP AS
WITH RECURSIVE stream AS (
    SELECT category, stream_id, count(*) AS version FROM ledger.events
    WHERE category IN ('campaign', 'content', 'job', 'price') GROUP BY category, stream_id
), line (job_id, id, levels) AS (
    -- All jobs above a job; `levels` is how far.
    SELECT id, parent_job_id, 1 FROM pg_temp.agent_jobs WHERE parent_job_id IS NOT NULL
    UNION
    SELECT job_id, parent_job_id, levels + 1 FROM line JOIN pg_temp.agent_jobs USING (id)
    WHERE parent_job_id IS NOT NULL AND levels <= {LEVELS_MAX}
), above AS (
    SELECT job_id AS stream_id, json_agg(id ORDER BY levels DESC) AS ancestors FROM line GROUP BY job_id
), below AS (
    SELECT id AS stream_id, count(*) AS children FROM line WHERE levels = 1 GROUP BY id
)
SELECT category, stream_id, stream.version, json_build_array(
    coalesce(status, 'deleted'), coalesce(currency, data ->> 'currency'),
    {TIME.format("coalesce(start_date, (data ->> 'start_date')::timestamptz)")},
    {TIME.format("end_date")}
) AS state
FROM stream JOIN ledger.campaign_events AS first USING (category, stream_id)
LEFT JOIN pg_temp.campaigns AS row ON row.id = stream_id
WHERE first.version = 1
UNION ALL
SELECT category, stream_id, stream.version, json_build_array(
    coalesce(status, 'deleted'), first.campaign_id, coalesce(currency, data ->> 'currency', 'USD'),
    trim_scale(budget)::text, coalesce(retry_count, 0), (data ->> 'max_retries')::bigint,
    coalesce(ancestors, '[]'), coalesce(children, 0)
)
FROM stream JOIN ledger.job_events AS first USING (category, stream_id)
LEFT JOIN pg_temp.agent_jobs AS row ON row.id = stream_id
LEFT JOIN above USING (stream_id) LEFT JOIN below USING (stream_id)
WHERE first.version = 1
UNION ALL
SELECT category, stream_id, stream.version, json_build_array(
    coalesce(status, 'deleted'), last.campaign_id, last.agent_job_id
)
FROM stream JOIN ledger.content_events AS last USING (category, stream_id)
LEFT JOIN pg_temp.content_assets AS row ON row.id = stream_id
WHERE last.version = stream.version
UNION ALL
SELECT category, stream_id, stream.version, json_build_array(split_part(last.type, '.', 2))
FROM stream JOIN ledger.price_events AS last USING (category, stream_id)
WHERE last.version = stream.version;
"""  # noqa: S608 (fixed texts)

# An earlier release wrote the state of a job without ancestors and children.
DIFFERS = """
CASE WHEN replayed.state ->> 0 = 'deleted' THEN live.state ->> 0 IS DISTINCT FROM 'deleted'
    WHEN live.category = 'job' AND json_array_length(live.state) = 6
        THEN live.state::jsonb || '[[], 0]' <> replayed.state::jsonb
    ELSE live.state::jsonb <> replayed.state::jsonb END
"""
"""SQL: whether the states of a live and a replayed stream lead to different decisions."""

CORRECT_STREAMS = (
    """
    DELETE FROM ledger.streams AS live WHERE NOT EXISTS (
        SELECT FROM pg_temp.replayed_streams WHERE category = live.category AND stream_id = live.stream_id
    )
    """,
    f"""
    UPDATE ledger.streams AS live SET version = replayed.version, state = replayed.state
    FROM pg_temp.replayed_streams AS replayed
    WHERE replayed.category = live.category AND replayed.stream_id = live.stream_id
        AND (live.version <> replayed.version OR {DIFFERS})
    """,  # noqa: S608
    """
    INSERT INTO ledger.streams (category, stream_id, version, state)
    SELECT category, stream_id, version, state FROM pg_temp.replayed_streams
    ON CONFLICT DO NOTHING
    """,
)
