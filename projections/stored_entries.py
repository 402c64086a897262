"""SQL for the expected rows of `ledger.entries`, from the events up to each stored version.

A stored state may be behind its stream, and an entry may have none: an append folds the events after it. So it is wrong
only if it differs from what the events up to its version give, or if it is ahead of its stream.
"""

from projections.stream_heads import TIME

# In the format of `ledger/log/entry_states.py`. An entry is charged once, by `cost.recorded` or `cost.settled`; what
# its settlement says counts before what its reservation says. A credit has a cost below 0.
REPLAYED_ENTRIES = f"""
CREATE TEMPORARY TABLE replayed_entries ON COMMIT DROP AS
WITH event AS (
    SELECT event.*, CASE WHEN type <> 'cost.reserved' THEN coalesce(
        (data ->> 'tokens_used')::bigint,
        coalesce((data -> 'usage' ->> 'input_tokens')::bigint, 0)
            + coalesce((data -> 'usage' ->> 'output_tokens')::bigint, 0)
    ) END AS tokens
    FROM ledger.entries AS stored JOIN ledger.cost_events AS event USING (stream_id)
    WHERE event.version <= stored.version
), entry AS (
    SELECT stream_id, max(version) AS version,
        (array_agg(type ORDER BY version DESC) FILTER (
            WHERE type NOT IN ('cost.adjusted', 'cost.extended', 'cost.priced')
        ))[1] AS status_type,
        coalesce(sum(CASE type
            WHEN 'cost.adjusted' THEN (data ->> 'amount')::numeric
            WHEN 'cost.credited' THEN - (data ->> 'amount')::numeric
            ELSE (data ->> 'cost')::numeric
        END), 0) AS cost,
        coalesce(sum(tokens), 0) AS tokens_used,
        bool_or(type IN ('cost.recorded', 'cost.settled') AND data ->> 'cost' IS NULL)
            AND NOT bool_or(type = 'cost.priced') AS unpriced,
        (array_agg(data) FILTER (WHERE type = 'cost.settled'))[1] AS settled,
        (array_agg(
            recorded_at + make_interval(secs => coalesce((data ->> 'expires_in')::float8, 900)) ORDER BY version DESC
        ) FILTER (WHERE type IN ('cost.reserved', 'cost.extended')))[1] AS expires_at
    FROM event GROUP BY stream_id
)
SELECT stream_id, entry.version, json_build_array(
    2,
    CASE status_type
        WHEN 'cost.reserved' THEN 'held' WHEN 'cost.released' THEN 'released' WHEN 'cost.expired' THEN 'expired'
        WHEN 'cost.denied' THEN 'denied' ELSE 'settled'
    END,
    campaign_id, agent_job_id, trim_scale(cost)::text, tokens_used,
    CASE status_type WHEN 'cost.reserved' THEN data ->> 'amount' ELSE '0' END,
    {TIME.format("entry.expires_at")},
    type = 'cost.credited', unpriced, data ->> 'currency',
    coalesce(settled ->> 'provider', data ->> 'provider'),
    coalesce(settled ->> 'model_used', data ->> 'model_used'),
    coalesce(settled ->> 'service_tier', data ->> 'service_tier'),
    data ->> 'resource_type',
    nullif(coalesce((data -> 'labels')::jsonb, '{{}}') || coalesce((settled -> 'labels')::jsonb, '{{}}'), '{{}}')
) AS state
FROM entry JOIN ledger.cost_events AS first USING (stream_id) WHERE first.version = 1;
"""  # noqa: S608 (fixed texts)

CORRECT_ENTRIES = (
    """
    DELETE FROM ledger.entries AS live WHERE NOT EXISTS (
        SELECT FROM pg_temp.replayed_entries WHERE stream_id = live.stream_id
    )
    """,
    """
    UPDATE ledger.entries AS live SET version = replayed.version, state = replayed.state
    FROM pg_temp.replayed_entries AS replayed
    WHERE replayed.stream_id = live.stream_id
        AND (live.version <> replayed.version OR live.state::jsonb <> replayed.state::jsonb)
    """,
)
