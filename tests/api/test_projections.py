"""The status of the read models."""

from tests.conftest import Service
from tests.events import cost


async def test_projections_report_position_and_lag(shared: Service) -> None:
    (receipt,) = await shared.append(cost())
    await shared.get("/v1/spend")

    items = (await shared.get("/v1/projections"))["items"]

    assert [item["name"] for item in items] == ["campaigns", "content_assets", "agent_jobs", "budget_entries", "prices"]
    for item in items:
        del item["name"]
        assert item == {
            "status": "running",
            "position": receipt["position"],
            "head": receipt["position"],
            "lag_events": 0,
            "lag_seconds": 0.0,
            "last_error": None,
        }
