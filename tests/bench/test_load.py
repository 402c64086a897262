"""The load generators, both: what they send is accepted, and what fails is not counted as done."""

import shutil
from pathlib import Path

import pytest

from ledger.bench import data, load, reading, traffic
from ledger.bench.load import put_load
from ledger.bench.processes import MeasurementError
from tests.conftest import Service
from tests.log.helpers import query

pytestmark = pytest.mark.direct

GENERATORS = ("wrk", "client")

OF_TYPE = "SELECT type, count(*) FROM ledger.events WHERE position > $1 GROUP BY type"


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program that makes the load."""
    if request.param == "client":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("wrk") is None:
        pytest.skip("NOT TESTED: the script for wrk; it is not installed")
    return str(request.param)


@pytest.fixture
async def ready(service: Service) -> Service:
    """A service with the campaigns and jobs that the load refers to."""
    await data.add_campaigns_and_jobs(service.database)
    return service


def url_of(service: Service) -> str:
    return str(service.client._base_url).rstrip("/")


async def test_a_round_of_each_kind_is_in_the_log_as_it_was_answered(
    ready: Service, generator: str, tmp_path: Path
) -> None:
    head, url = await ready.head(), url_of(ready)

    costs = await put_load(url, "costs", seconds=1, connections=4, folder=tmp_path)
    arrays = await put_load(url, "costs", seconds=1, connections=2, events=100, folder=tmp_path)
    calls = await put_load(url, "trace", seconds=1, connections=2, events=100, folder=tmp_path)
    holds = await put_load(url, "holds", seconds=1, connections=4, folder=tmp_path)
    reads = await put_load(url, "reads", seconds=1, connections=2, folder=tmp_path)

    found = dict(await query(ready.database, OF_TYPE, head))
    assert found["cost.recorded"] >= costs.requests + 100 * arrays.requests + 25 * calls.requests
    assert found["job.queued"] == found["job.started"] == found["job.completed"] >= 25 * calls.requests
    assert found["cost.settled"] >= holds.settled > 0
    assert holds.requests >= holds.settled * 2
    assert reads.requests > 0
    assert load.generator().startswith("wrk" if generator == "wrk" else "ledger.bench.client")


async def test_holds_past_the_budget_are_counted_as_refused(ready: Service, generator: str, tmp_path: Path) -> None:
    campaign = traffic.campaign_id(0)
    await ready.append({"type": "campaign.budget_changed", "stream_id": campaign, "data": {"budget": "1"}})

    loaded = await put_load(
        url_of(ready), "holds", seconds=1, connections=8, amount="0.5", cost="0.0001", folder=tmp_path
    )

    assert loaded.refused > 0
    assert loaded.failed == 0


async def test_an_answer_that_was_not_wanted_fails_the_measurement(
    service: Service, generator: str, tmp_path: Path
) -> None:
    """Nothing is there to refer to: every cost is 422."""
    with pytest.raises(MeasurementError, match="failed"):
        await put_load(url_of(service), "costs", seconds=1, connections=2, folder=tmp_path)


async def test_the_control_of_reads_runs_the_statements_of_the_api(ready: Service) -> None:
    # Waits for the read models.
    await ready.get("/v1/campaigns")

    script = await reading.same_selects()

    statements = [line for line in script.splitlines() if line.startswith("SELECT")]
    assert len(statements) == 2
    rows = [await query(ready.database, statement.rstrip(";").replace(":campaign", "7")) for statement in statements]
    assert [str(row[1]) for row in rows[0]] == [traffic.campaign_id(7)]
