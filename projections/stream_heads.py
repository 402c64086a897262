"""SQL for the expected versions and states of all streams, from the events and a temporary replay.

What is not in a stream's row is in its events: a job's first one, an asset's last. Of a deleted stream, only the status
still affects decisions.
"""

# The format of times in the stored states: seconds, and microseconds unless they are 0.
TIME = """
to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
    || CASE to_char({0}, 'US') WHEN '000000' THEN '' ELSE to_char({0}, '.US') END || 'Z'
"""

REPLAYED_STREAMS = f"""
CREATE TEMPORARY TABLE replayed_streams ON COMMIT DROP AS
WITH stream AS (
    SELECT category, stream_id, count(*) AS version FROM ledger.events
    WHERE category IN ('campaign', 'content', 'job') GROUP BY category, stream_id
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
    data ->> 'budget', coalesce(retry_count, 0), (data ->> 'max_retries')::bigint
)
FROM stream JOIN ledger.job_events AS first USING (category, stream_id)
LEFT JOIN pg_temp.agent_jobs AS row ON row.id = stream_id
WHERE first.version = 1
UNION ALL
SELECT category, stream_id, stream.version, json_build_array(
    coalesce(status, 'deleted'), last.campaign_id, last.agent_job_id
)
FROM stream JOIN ledger.content_events AS last USING (category, stream_id)
LEFT JOIN pg_temp.content_assets AS row ON row.id = stream_id
WHERE last.version = stream.version;
"""  # noqa: S608 (fixed texts)

DIFFERS = """
CASE WHEN replayed.state ->> 0 = 'deleted' THEN live.state ->> 0 IS DISTINCT FROM 'deleted'
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
