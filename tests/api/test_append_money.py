"""Costs and holds over HTTP: over budget, refused holds, settling, release and expiry."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import text

from ledger.log import append_queue, pipeline
from tests.api.helpers import eventually, log, send, slug
from tests.conftest import Service
from tests.events import campaign, cost, follow, job, reserve

pytestmark = pytest.mark.every_connection


async def entry_of(service: Service, opened: dict[str, Any]) -> Any:
    """Return the row of an entry in the read model."""
    return await service.get(f"/v1/budget-entries/{opened['id']}")


async def test_two_hundred_concurrent_requests_get_every_position_once(service: Service) -> None:
    costs = [cost() for _ in range(200)]

    answers = await asyncio.gather(*(service.post(sent) for sent in costs))

    assert {status for status, _ in answers} == {201}
    receipts = [answer["events"][0] for _, answer in answers]
    assert sorted(receipt["position"] for receipt in receipts) == list(range(1, 201))
    assert [answer["position"] for _, answer in answers] == [receipt["position"] for receipt in receipts]
    assert [receipt["id"] for receipt in receipts] == [sent["id"] for sent in costs]
    stored = await log(service)
    assert [event["position"] for event in stored] == list(range(1, 201))
    assert {event["id"]: event["position"] for event in stored} == {r["id"]: r["position"] for r in receipts}


async def test_versions_of_streams_with_concurrent_writers_have_no_gap(shared: Service) -> None:
    created = [campaign() for _ in range(4)]
    await shared.append(*created)
    changes = [follow(one, "campaign.details_changed", {"name": f"{n}"}) for n in range(50) for one in created]

    answers = await asyncio.gather(*(shared.post(change) for change in changes))

    receipts = [answer["events"][0] for _, answer in answers]
    for one in created:
        stored = await log(shared, stream_id=one["id"])
        assert [event["version"] for event in stored] == list(range(1, 52))
        by_version = {receipt["version"]: receipt["id"] for receipt in receipts if receipt["stream_id"] == one["id"]}
        assert by_version == {event["version"]: event["id"] for event in stored[1:]}


async def test_refused_requests_do_not_affect_requests_of_the_same_group(shared: Service) -> None:
    created = campaign(budget="60")
    await shared.append(created)
    of = {"campaign_id": created["id"]}
    good = [cost("1", **of) for _ in range(60)]
    bad: list[Any] = [[cost("1", **of), cost("1", currency="EUR", **of)] for _ in range(20)]
    bad += [reserve("61", **of) for _ in range(20)]
    bad += [follow(created, "campaign.activated", expected_version=7) for _ in range(20)]

    answers = await asyncio.gather(*(shared.post(body) for pair in zip(good, bad, strict=True) for body in pair))

    assert [status for status, _ in answers[0::2]] == [201] * 60
    assert [status for status, _ in answers[1::2]] == [422] * 20 + [402] * 20 + [409] * 20
    shown = await shared.get(f"/v1/campaigns/{created['id']}")
    assert (shown["spend"], shown["held"], shown["status"]) == ("60", "0", "draft")
    recorded = await log(shared, campaign_id=created["id"], type="cost.recorded,cost.reserved")
    assert {event["id"] for event in recorded} == {sent["id"] for sent in good}


async def test_a_full_queue_is_503_at_once_and_accepts_events_again_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # While one batch is being written, one may be judged already, and the queue has room for two more.
    monkeypatch.setattr(append_queue, "QUEUE_EVENTS_MAX", 12)
    monkeypatch.setattr(pipeline, "GROUP_EVENTS_MAX", 6)
    batches = [[cost() for _ in range(6)] for _ in range(6)]
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    async def post(batch: list[dict[str, Any]]) -> tuple[int, int, Any]:
        async with service.client.post("/v1/events", json=batch) as answer:
            return answer.status, int(answer.headers.get("Retry-After", 0)), await answer.json(content_type=None)

    async with service.database.engine.begin() as holder:

        async def blocked() -> int:
            # A transaction sees pg_stat_activity as of its first read, unless the snapshot is cleared.
            await holder.execute(text("SELECT pg_stat_clear_snapshot()"))
            found: int = await holder.scalar(waiting)
            return found

        await holder.execute(text("SELECT position FROM ledger.log_head FOR UPDATE"))
        first = asyncio.create_task(post(batches[0]))
        await eventually(blocked)
        others = [asyncio.create_task(post(batch)) for batch in batches[1:]]
        refused = [await task for _, task in zip(range(2), asyncio.as_completed(others), strict=False)]
        assert not first.done()
    responses = [await first, *(await asyncio.gather(*others))]

    assert [(status, slug(problem)) for status, _, problem in refused] == [(503, "overloaded")] * 2
    assert all(retry_after >= 1 for _, retry_after, _ in refused)
    accepted = [status for status, _, _ in responses].count(201)
    assert accepted in (3, 4)
    assert [(await service.post(batch))[0] for batch in batches].count(201) == 6 - accepted
    assert await service.head() == 36


async def test_one_of_two_racing_holds_gets_the_rest_of_the_budget(shared: Service) -> None:
    created = campaign(budget="10")
    await shared.append(created)

    answers = await asyncio.gather(*(shared.post(reserve("3", campaign_id=created["id"])) for _ in range(20)))

    assert sorted(status for status, _ in answers) == [201] * 3 + [402] * 17


async def test_a_cost_over_budget_is_recorded_and_marked_in_its_receipt_also_when_repeated(shared: Service) -> None:
    created = campaign(budget="2")
    queued = job(created["id"], budget="1")
    within, past_job, past_both = (cost("1", agent_job_id=queued["id"]) for _ in range(3))
    await shared.append(created, queued)

    first = [(await shared.append(sent))[0] for sent in (within, past_job, past_both)]
    again = [(await shared.append(sent))[0] for sent in (within, past_job, past_both)]

    assert [receipt.get("over_budget") for receipt in first] == [None, ["job"], ["job", "campaign"]]
    assert [receipt.get("over_budget") for receipt in again] == [None, ["job"], ["job", "campaign"]]
    assert [receipt["duplicate"] for receipt in again] == [True] * 3
    assert (await shared.get(f"/v1/campaigns/{created['id']}"))["spend"] == "3"


async def test_settling_over_budget_is_recorded_and_marked_in_the_receipt(shared: Service) -> None:
    created = campaign(budget="10")
    held = reserve("10", campaign_id=created["id"])
    await shared.append(created, held)

    (receipt,) = await shared.append(follow(held, "cost.settled", {"cost": "10.0000000001"}))

    assert receipt["over_budget"] == ["campaign"]


async def test_a_refused_hold_names_the_limits_and_what_is_available(shared: Service) -> None:
    created = campaign(budget="10", currency="EUR")
    queued = job(created["id"], budget="5")
    of = {"agent_job_id": queued["id"]}
    await shared.append(created, queued, cost("6", campaign_id=created["id"]), cost("1", **of), reserve("2.5", **of))

    status, problem = await shared.post(reserve("3", **of))

    assert status == 402
    assert slug(problem) == "budget-exceeded"
    assert problem["currency"] == "EUR"
    asked = {"held": "2.5", "requested": "3"}
    assert problem["scopes"] == [
        {"scope": "job", "id": queued["id"], "limit": "5", "spent": "1", "available": "1.5", **asked},
        {"scope": "campaign", "id": created["id"], "limit": "10", "spent": "7", "available": "0.5", **asked},
    ]


async def test_a_refused_hold_is_logged_as_denied_and_has_no_entry(shared: Service) -> None:
    created = campaign(budget="1")
    asked = reserve("2", campaign_id=created["id"], description="Why not")
    await shared.append(created)

    status, problem = await shared.post(asked)

    assert status == 402
    (denied,) = await log(shared, campaign_id=created["id"], type="cost.denied")
    assert denied["stream_id"] == denied["id"] != asked["id"]
    assert (denied["actor"], denied["version"]) == ("ledger", 1)
    assert denied["data"]["scopes"] == problem["scopes"]
    assert (denied["data"]["amount"], denied["data"]["description"]) == ("2", "Why not")
    assert (await shared.problem(f"/v1/streams/cost/{asked['id']}"))[0] == 404
    assert (await shared.get("/v1/budget-entries", campaign_id=created["id"]))["items"] == []


async def test_a_repeated_refused_hold_adds_nothing_until_the_budget_changes_and_may_then_succeed(
    shared: Service,
) -> None:
    created = campaign(budget="1")
    asked = reserve("2", campaign_id=created["id"])
    await shared.append(created)

    for _ in range(2):
        assert (await shared.post(asked))[0] == 402
    await shared.append(cost("0.5", campaign_id=created["id"]))
    for _ in range(50):
        assert (await shared.post({"type": "cost.reserved", "data": asked["data"]}))[0] == 402
    await shared.append(follow(created, "campaign.budget_changed", {"budget": "3"}))
    (receipt,) = await shared.append(asked)

    assert (receipt["version"], receipt["duplicate"]) == (1, False)
    assert len(await log(shared, campaign_id=created["id"], type="cost.denied")) == 2


async def test_a_refusal_is_logged_for_independent_events_but_not_for_a_batch(shared: Service) -> None:
    created = campaign(budget="1")
    of = {"campaign_id": created["id"]}
    asked = reserve("2", **of)
    await shared.append(created)

    batch, _ = await shared.post([cost("0.1", **of), asked])
    denied_by_batch = await log(shared, campaign_id=created["id"], type="cost.denied")
    _, independent = await shared.post([cost("0.1", **of), asked, reserve("0.9", **of)], mode="independent")

    assert (batch, denied_by_batch) == (402, [])
    assert [result.get("status") for result in independent["results"]] == [None, 402, None]
    assert independent["results"][1]["index"] == 1
    (denied,) = await log(shared, campaign_id=created["id"], type="cost.denied")
    assert denied["data"]["reserve_id"] == asked["id"]


async def test_an_illegal_transition_names_the_status_and_the_allowed_ones(shared: Service) -> None:
    created, unknown = campaign(), campaign()
    await shared.append(created)

    answers = [
        await send(shared, json.dumps(sent))
        for sent in (
            follow(created, "campaign.paused"),
            follow(unknown, "campaign.completed"),
            {**campaign(), "stream_id": created["id"]},
        )
    ]

    # `status` is the HTTP status; the status of the stream is `stream_status`.
    assert [status for status, _ in answers] == [409, 409, 409]
    assert {slug(problem) for _, problem in answers} == {"illegal-transition"}
    assert [(problem["stream_status"], problem["allowed_from"]) for _, problem in answers] == [
        ("draft", ["active"]),
        (None, ["active", "paused"]),
        ("draft", []),
    ]


async def test_a_job_that_ends_releases_its_holds_which_are_not_in_the_receipts(shared: Service) -> None:
    created = campaign()
    queued = job(created["id"])
    held = [reserve("2", agent_job_id=queued["id"]) for _ in range(3)]
    settled = follow(held[0], "cost.settled", {"cost": "1"})
    await shared.append(created, queued, follow(queued, "job.started"), *held, settled)

    receipts = await shared.append(follow(queued, "job.completed"))

    assert len(receipts) == 1
    released = await log(shared, agent_job_id=queued["id"], type="cost.released")
    assert {event["stream_id"] for event in released} == {one["id"] for one in held[1:]}
    assert {event["actor"] for event in released} == {"ledger"}
    assert [(await entry_of(shared, one))["status"] for one in held] == ["settled", "released", "released"]
    shown = await shared.get(f"/v1/agent-jobs/{queued['id']}")
    assert (shown["status"], shown["cost"], shown["held"]) == ("completed", "1", "0")
    assert (await shared.get(f"/v1/campaigns/{created['id']}"))["held"] == "0"


async def test_a_job_that_ends_releases_its_hold_on_another_campaign(shared: Service) -> None:
    created, queued = campaign(), job()
    held = reserve("2", agent_job_id=queued["id"], campaign_id=created["id"])
    await shared.append(created, queued, held)

    status, _ = await shared.post(follow(queued, "job.cancelled"))

    assert status == 201
    assert (await entry_of(shared, held))["status"] == "released"
    assert (await shared.get(f"/v1/campaigns/{created['id']}"))["held"] == "0"


async def test_an_overdue_hold_expires_and_frees_its_money(shared: Service) -> None:
    created = campaign(budget="1")
    held = reserve("1", campaign_id=created["id"], expires_in=1)
    await shared.append(created, held)
    refused, _ = await shared.post(reserve("1", campaign_id=created["id"]))

    async def expired() -> bool:
        return bool((await entry_of(shared, held))["status"] == "expired")

    await eventually(expired)

    assert refused == 402
    (event,) = await log(shared, stream_id=held["id"], type="cost.expired")
    assert (event["actor"], event["version"], event["data"]) == ("ledger", 2, {})
    assert (await entry_of(shared, held))["held"] == "0"
    assert (await shared.post(reserve("1", campaign_id=created["id"])))[0] == 201


async def test_a_hold_can_be_settled_after_it_expired_or_was_released(shared: Service) -> None:
    created = campaign()
    held = reserve("1", campaign_id=created["id"])
    await shared.append(created, held, follow(held, "cost.released"))

    (receipt,) = await shared.append(follow(held, "cost.settled", {"cost": "2.5"}))

    assert receipt["version"] == 3
    assert (await entry_of(shared, held))["status"] == "settled"
    assert (await shared.get(f"/v1/campaigns/{created['id']}"))["spend"] == "2.5"
