"""The load generator: the service accepts what it sends, and failed requests are not counted."""

import asyncio
import sys
from pathlib import Path

import pytest

from ledger.bench import prepared_data, read_figures, workload
from ledger.bench.errors import MeasurementError
from ledger.bench.load_process import run_load
from ledger.bench.processes import run_program
from tests.conftest import Service
from tests.log.helpers import query

pytestmark = pytest.mark.direct

EVENTS_BY_TYPE = "SELECT type, count(*) FROM ledger.events WHERE position > $1 GROUP BY type"


@pytest.fixture
async def prepared(service: Service) -> Service:
    """A service with the campaigns and jobs that the workload refers to."""
    await prepared_data.add_campaigns_and_jobs(service.database)
    return service


def url_of(service: Service) -> str:
    return str(service.client._base_url).rstrip("/")


async def test_the_log_holds_what_was_answered_for_each_kind_of_load(prepared: Service, tmp_path: Path) -> None:
    head, url = await prepared.head(), url_of(prepared)

    costs = await run_load(url, "costs", seconds=1, connections=4, folder=tmp_path)
    arrays = await run_load(url, "costs", seconds=1, connections=2, events=100, folder=tmp_path)
    calls = await run_load(url, "trace", seconds=1, connections=2, events=100, folder=tmp_path)
    holds = await run_load(url, "holds", seconds=1, connections=4, folder=tmp_path)
    reads = await run_load(url, "reads", seconds=1, connections=2, folder=tmp_path)

    counts = dict(await query(prepared.database, EVENTS_BY_TYPE, head))
    assert counts["cost.recorded"] >= costs.requests + 100 * arrays.requests + 25 * calls.requests
    assert counts["job.queued"] == counts["job.started"] == counts["job.completed"] >= 25 * calls.requests
    assert counts["cost.settled"] >= holds.settled > 0
    assert holds.requests >= holds.settled * 2
    assert reads.requests > 0
    assert all(result.cpu_seconds > 0 for result in (costs, arrays, calls, holds, reads))


async def test_holds_over_the_budget_are_counted_as_refused(prepared: Service, tmp_path: Path) -> None:
    campaign = workload.campaign_id(0)
    await prepared.append({"type": "campaign.budget_changed", "stream_id": campaign, "data": {"budget": "1"}})

    result = await run_load(
        url_of(prepared), "holds", seconds=1, connections=8, amount="0.5", cost="0.0001", folder=tmp_path
    )

    assert result.refused > 0
    assert result.failed == 0


async def test_an_unexpected_response_fails_the_measurement(service: Service, tmp_path: Path) -> None:
    """Nothing is prepared, so that every cost refers to an unknown job: 422."""
    with pytest.raises(MeasurementError, match=r"failed: 422 .*unknown-reference"):
        await run_load(url_of(service), "costs", seconds=1, connections=2, folder=tmp_path)


async def test_a_lost_connection_fails_the_measurement(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MeasurementError, match="the connection was lost"):
            await run_load(f"http://127.0.0.1:{port}", "reads", seconds=1, connections=2, folder=tmp_path)


async def test_a_program_that_fails_is_reported_with_its_message(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="failed: no load today"):
        await run_program(sys.executable, "-c", "import sys; sys.exit('no load today')", folder=tmp_path)


async def test_the_control_of_reads_runs_the_statements_of_the_api(prepared: Service) -> None:
    # Waits for the read models.
    await prepared.get("/v1/campaigns")

    script = await read_figures.api_statements()

    statements = [line for line in script.splitlines() if line.startswith("SELECT")]
    assert len(statements) == 2
    rows = [await query(prepared.database, statement.rstrip(";").replace(":campaign", "7")) for statement in statements]
    assert [str(row[1]) for row in rows[0]] == [workload.campaign_id(7)]
