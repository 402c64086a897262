"""POST /v1/events on a running service."""

from tests.conftest import Service
from tests.events import campaign, cost


async def test_a_recorded_event_is_answered_with_its_receipt(service: Service) -> None:
    created = campaign()

    status, answer = await service.post(created)

    assert status == 201
    assert answer["events"] == [
        {"id": created["id"], "stream_id": created["id"], "version": 1, "position": 1, "duplicate": False}
    ]


async def test_the_read_model_follows(service: Service) -> None:
    created = campaign(budget="1")

    await service.append(created, cost("1.5", campaign_id=created["id"]))

    shown = await service.get(f"/v1/campaigns/{created['id']}")
    assert shown["spend"] == "1.5"
