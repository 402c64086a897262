"""The load generator: the service accepts what it sends, and failed requests are not counted."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path

import pytest

from ledger.bench import read_figures, workload
from ledger.bench.errors import MeasurementError
from ledger.bench.load_process import in_background, run_load
from ledger.bench.processes import run_program
from tests.conftest import Service
from tests.log.helpers import query

pytestmark = pytest.mark.direct

EVENTS_BY_TYPE = "SELECT type, count(*) FROM ledger.events WHERE position > $1 GROUP BY type"


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


@asynccontextmanager
async def answering(*statuses: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that answers with these statuses in turns; yield its URL, and the heads of the requests."""
    remaining, heads = cycle(statuses), []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 %d Status\r\nContent-Length: 2\r\n\r\n{}" % next(remaining))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def test_a_client_waits_after_503_and_goes_on(tmp_path: Path) -> None:
    async with answering(503, 200) as (url, heads):
        result = await run_load(
            url, "reads", seconds=1, connections=1, key="a key", may_be_overloaded=True, folder=tmp_path
        )

    # After the 503 it waits for a second, which is as long as the load lasts, and sends its last request.
    assert (result.requests, result.overloaded, result.failed) == (1, 1, 0)
    assert result.failure == "503 {}"
    assert b"Authorization: Bearer a key\r\n" in heads[0]


async def test_503_fails_the_measurement_unless_it_is_expected(tmp_path: Path) -> None:
    async with answering(503) as (url, _):
        with pytest.raises(MeasurementError, match=r"requests \(reads\) failed: 503"):
            await run_load(url, "reads", seconds=1, connections=1, folder=tmp_path)


async def test_a_load_in_the_background_ends_after_what_is_measured() -> None:
    async with in_background(asyncio.sleep(0.05, "the result")) as load:
        assert not load.done()

    assert load.result() == "the result"


async def test_a_load_that_ends_too_early_fails_the_measurement() -> None:
    with pytest.raises(MeasurementError, match="ended before"):
        async with in_background(asyncio.sleep(0)) as load:
            await load


async def test_a_load_in_the_background_is_cancelled_if_the_measurement_fails() -> None:
    with pytest.raises(MeasurementError, match="no figure today"):
        async with in_background(asyncio.sleep(60)) as load:
            raise MeasurementError("no figure today")

    assert load.cancelled()


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
    assert [json.loads(row[1])["id"] for row in rows[0]] == [workload.campaign_id(7)]
