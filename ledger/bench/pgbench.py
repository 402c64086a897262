"""Controls that run pgbench: PostgreSQL doing comparable work, driven by its own load generator."""

import re
from pathlib import Path

from sqlalchemy import URL

from ledger.bench import workload
from ledger.bench.errors import MeasurementError
from ledger.bench.processes import run_program

CONNECT_SECONDS = 1

_CAMPAIGN = f"('00000000-0000-7000-8000-c000' || lpad((:job % {workload.CAMPAIGNS})::text, 8, '0'))::uuid"
_JOB = "('00000000-0000-7000-8000-a000' || lpad(:job::text, 8, '0'))::uuid"

INSERT_EVENT = f"""
\\set job random(0, {workload.JOBS - 1})
\\set tokens random(1, 9999)
WITH new AS MATERIALIZED (SELECT uuidv7() AS id, clock_timestamp() AS at)
INSERT INTO bench.events (position, category, stream_id, version, id, type, schema_version, occurred_at,
    recorded_at, actor, campaign_id, agent_job_id, data, size)
SELECT nextval('bench.position'), 'cost', id, 1, id, 'cost.recorded', 1, at, at, 'local', {_CAMPAIGN}, {_JOB},
    ('{{"resource_type":"llm_api","cost":"0.12345","currency":"USD","tokens_used":' || :tokens::text
        || ',"model_used":"gpt-4o","provider":"openai","agent_job_id":"' || {_JOB}::text || '"}}')::json, 180
FROM new;
"""  # noqa: S608 (fixed texts)
"""One row per transaction, in the shape of a `cost.recorded`."""

_HELD = f"'{workload.campaign_id(0)}'::uuid"

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
"""A hold and its settlement in plain SQL. `made` numbers them; it must start at another value in each run."""


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
    """Run a pgbench script.

    Args:
        binaries: the folder that contains pgbench.
        url: of the database.
        script: the text of the script.
        clients: connections.
        seconds: how long to run, after CONNECT_SECONDS for connecting.
        folder: the working directory.
        variables: initial values of the script's variables, for every client.

    Returns:
        transactions (runs of the script) per second, excluding the time to connect.

    Raises:
        MeasurementError: a transaction failed, or none was completed.
    """
    file = folder / "control.sql"
    file.write_text(script)
    defined = [f"-D{name}={number}" for name, number in (variables or {}).items()]
    # pgbench's clock runs while its clients connect: on a busy machine a short run may complete nothing.
    for duration in (seconds + CONNECT_SECONDS, 4 * (seconds + CONNECT_SECONDS)):
        output = await run_program(
            binaries / "pgbench",
            *("-n", "-M", "prepared", "-j", "1", "-c", str(clients), "-T", str(duration), "-f", str(file), *defined),
            *("-h", url.host or "", "-p", str(url.port), "-U", url.username or "", url.database or ""),
            folder=folder,
            PGPASSWORD=url.password or "",
        )
        rate = re.search(r"tps = ([\d.]+)", output)
        failed = re.search(r"number of failed transactions: (\d+)", output)
        if failed and failed[1] != "0":
            break
        if rate is not None:
            return float(rate[1])
    raise MeasurementError(f"pgbench failed: {output[-1000:]}")
