"""pgbench as a control: what PostgreSQL does of the same by itself, driven by its own load generator."""

import re
from pathlib import Path

from sqlalchemy import URL

from ledger.bench import traffic
from ledger.bench.processes import MeasurementError, run_program

CONNECT_SECONDS = 1

_CAMPAIGN = f"('00000000-0000-7000-8000-c000' || lpad((:job % {traffic.CAMPAIGNS})::text, 8, '0'))::uuid"
_JOB = "('00000000-0000-7000-8000-a000' || lpad(:job::text, 8, '0'))::uuid"

INSERT_EVENT = f"""
\\set job random(0, {traffic.JOBS - 1})
\\set tokens random(1, 9999)
WITH new AS MATERIALIZED (SELECT uuidv7() AS id, clock_timestamp() AS at)
INSERT INTO bench.events (position, category, stream_id, version, id, type, schema_version, occurred_at,
    recorded_at, actor, campaign_id, agent_job_id, data, size)
SELECT nextval('bench.position'), 'cost', id, 1, id, 'cost.recorded', 1, at, at, 'local', {_CAMPAIGN}, {_JOB},
    ('{{"resource_type":"llm_api","cost":"0.12345","currency":"USD","tokens_used":' || :tokens::text
        || ',"model_used":"gpt-4o","provider":"openai","agent_job_id":"' || {_JOB}::text || '"}}')::json, 180
FROM new;
"""  # noqa: S608 (fixed texts)
"""One row a transaction, in the shape of a `cost.recorded`."""

_HELD = f"'{traffic.campaign_id(0)}'::uuid"

HOLD_AND_SETTLE = """
\\set made :made + 1
BEGIN;
UPDATE bench.accounts SET held = held + 0.5
WHERE account_id = HELD AND scope = 'campaign' AND spent + held + 0.5 <= budget;
INSERT INTO bench.holds (stream_id, amount, campaign_id, expires_at)
VALUES (STREAM, 0.5, HELD, clock_timestamp() + interval '15 minutes');
INSERT INTO bench.events (position, category, stream_id, version, id, type, schema_version, occurred_at,
    recorded_at, actor, campaign_id, data, size)
VALUES (nextval('bench.position'), 'cost', STREAM, 1, uuidv7(), 'cost.reserved', 1, clock_timestamp(),
    clock_timestamp(), 'local', HELD,
    '{"resource_type":"llm_api","amount":"0.5","currency":"USD","expires_in":900}', 80);
COMMIT;
BEGIN;
UPDATE bench.accounts SET held = held - 0.5, spent = spent + 0.25 WHERE account_id = HELD AND scope = 'campaign';
DELETE FROM bench.holds WHERE stream_id = STREAM;
INSERT INTO bench.events (position, category, stream_id, version, id, type, schema_version, occurred_at,
    recorded_at, actor, campaign_id, data, size)
VALUES (nextval('bench.position'), 'cost', STREAM, 2, uuidv7(), 'cost.settled', 1, clock_timestamp(),
    clock_timestamp(), 'local', HELD, '{"cost":"0.25"}', 15);
COMMIT;
""".replace("HELD", _HELD).replace("STREAM", "lpad(to_hex(:made::bigint * 1000 + :client_id), 32, '0')::uuid")
"""A reserve and its settlement by hand; `made` numbers them, and must begin elsewhere in each run."""


async def pgbench(
    binaries: Path,
    url: URL,
    script: str,
    *,
    clients: int,
    seconds: int,
    folder: Path,
    variables: dict[str, int] | None = None,
) -> float:
    """Run a script for so long; transactions (runs of the script) a second, the time to connect not counted.

    Args:
        binaries: the folder with pgbench.
        variables: each client's own, from where the script goes on with them.

    Raises:
        MeasurementError: a transaction failed.
    """
    file = folder / "control.sql"
    file.write_text(script)
    defined = [f"-D{name}={number}" for name, number in (variables or {}).items()]
    # Its clock runs while its clients connect: on a busy machine they may come to nothing in a short time.
    for duration in (seconds + CONNECT_SECONDS, 4 * (seconds + CONNECT_SECONDS)):
        said = await run_program(
            binaries / "pgbench",
            *("-n", "-M", "prepared", "-j", "1", "-c", str(clients), "-T", str(duration), "-f", str(file), *defined),
            *("-h", url.host or "", "-p", str(url.port), "-U", url.username or "", url.database or ""),
            folder=folder,
            PGPASSWORD=url.password or "",
        )
        rate = re.search(r"tps = ([\d.]+)", said)
        failed = re.search(r"number of failed transactions: (\d+)", said)
        if failed and failed[1] != "0":
            break
        if rate is not None:
            return float(rate[1])
    raise MeasurementError(f"pgbench failed: {said[-1000:]}")
