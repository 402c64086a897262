"""Collections: columns and derived figures, filters, order, and deleted rows."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.api.helpers import follow_pages
from tests.conftest import Service
from tests.events import campaign, content, cost, event, follow, job, reserve

pytestmark = pytest.mark.every_connection

Named = dict[str, dict[str, Any]]

NOON = "2025-03-01T12:00:00Z"
LATER = "2025-03-01T12:00:00.000001Z"


@pytest.fixture(scope="module")
async def things(shared: Service) -> Named:
    """Create a few rows in every collection; return their ids by name."""
    spring = campaign(name="Spring")
    comma = campaign(name="Spring, summer\\ & more")
    quiet = campaign(name="null")
    seo = job(spring["id"], agent_type="seo_writer")
    lone = job()
    blog = content(title="A, B", campaign_id=spring["id"])
    mail = content(title="A", content_type="email", agent_job_id=seo["id"])
    loose = content(title="B")
    early = {**cost("1", agent_job_id=seo["id"], model_used="gpt-5, mini"), "occurred_at": NOON}
    late = {**cost("2", model_used="gpt-5"), "occurred_at": LATER}
    held = reserve("3", campaign_id=comma["id"], resource_type="media")
    await shared.append(spring, comma, quiet, follow(spring, "campaign.activated"))
    await shared.append(seo, lone, follow(lone, "job.started"), blog, mail, loose, follow(blog, "content.submitted"))
    await shared.append(early, late, held)
    return {
        "spring": spring,
        "comma": comma,
        "quiet": quiet,
        "seo": seo,
        "lone": lone,
        "blog": blog,
        "mail": mail,
        "loose": loose,
        "early": early,
        "late": late,
        "held": held,
    }


@pytest.mark.parametrize(
    ("name", "filters", "expected"),
    [
        ("campaigns", {}, "spring comma quiet"),
        ("campaigns", {"name": "Spring"}, "spring"),
        ("campaigns", {"name": "Spring\\, summer\\ & more"}, "comma"),
        ("campaigns", {"name": "Spring\\, summer\\ & more,Spring"}, "spring comma"),
        ("campaigns", {"name": "Spring, summer\\ & more"}, "spring"),
        ("campaigns", {"name": "null"}, "quiet"),
        ("campaigns", {"name": "spring"}, ""),
        ("campaigns", {"name": "Spr%"}, ""),
        ("campaigns", {"name": ""}, ""),
        ("campaigns", {"status": "draft"}, "comma quiet"),
        ("campaigns", {"status": "active,archived"}, "spring"),
        ("campaigns", {"status": "active,draft", "name": "Spring"}, "spring"),
        ("campaigns", {"status": "draft", "name": "Spring"}, ""),
        ("content-assets", {"title": "A\\, B"}, "blog"),
        ("content-assets", {"title": "A,B"}, "mail loose"),
        ("content-assets", {"content_type": "email"}, "mail"),
        ("content-assets", {"status": "review"}, "blog"),
        ("content-assets", {"campaign_id": "spring"}, "blog mail"),
        ("content-assets", {"campaign_id": "comma"}, ""),
        ("content-assets", {"agent_job_id": "seo"}, "mail"),
        ("content-assets", {"campaign_id": "spring", "content_type": "blog,email", "status": "draft"}, "mail"),
        ("agent-jobs", {"agent_type": "seo_writer"}, "seo"),
        ("agent-jobs", {"agent_type": "analyst,optimizer"}, "lone"),
        ("agent-jobs", {"status": "pending"}, "seo"),
        ("agent-jobs", {"status": "pending,running"}, "seo lone"),
        ("agent-jobs", {"campaign_id": "spring"}, "seo"),
        ("budget-entries", {"resource_type": "llm_api"}, "early late"),
        ("budget-entries", {"status": "held"}, "held"),
        ("budget-entries", {"model_used": "gpt-5"}, "late"),
        ("budget-entries", {"model_used": "gpt-5\\, mini"}, "early"),
        ("budget-entries", {"agent_job_id": "seo"}, "early"),
        ("budget-entries", {"campaign_id": "spring"}, "early"),
        ("budget-entries", {"campaign_id": "spring,comma"}, "early held"),
        ("budget-entries", {"occurred_after": NOON, "occurred_before": "2025-04-01T00:00:00Z"}, "early late"),
        ("budget-entries", {"occurred_after": NOON, "occurred_before": LATER}, "early"),
        ("budget-entries", {"occurred_after": LATER}, "late held"),
        ("budget-entries", {"occurred_before": NOON}, ""),
        ("budget-entries", {"occurred_before": "2025-03-01T13:00:00.000001+01:00"}, "early"),
    ],
)
async def test_filters_select_rows_with_any_of_their_values(
    shared: Service, things: Named, name: str, filters: dict[str, str], expected: str
) -> None:
    parameters = {
        field: ",".join(things[part]["id"] for part in value.split(",")) if field.endswith("_id") else value
        for field, value in filters.items()
    }

    page = await shared.get(f"/v1/{name}", **parameters)

    assert {item["id"] for item in page["items"]} == {things[one]["id"] for one in expected.split()}


@pytest.mark.parametrize("name", ["campaigns", "content-assets", "agent-jobs", "budget-entries"])
async def test_created_after_is_inclusive_and_created_before_exclusive(
    shared: Service, things: Named, name: str
) -> None:
    items = (await shared.get(f"/v1/{name}"))["items"]
    created_at = items[0]["created_at"]
    a_moment_later = (datetime.fromisoformat(created_at) + timedelta(microseconds=1)).isoformat()
    same = {item["id"] for item in items if item["created_at"] == created_at}

    between = await shared.get(f"/v1/{name}", created_after=created_at, created_before=a_moment_later)
    after = await shared.get(f"/v1/{name}", created_after=a_moment_later)
    before = await shared.get(f"/v1/{name}", created_before=created_at)

    assert {item["id"] for item in between["items"]} == same
    assert after["items"] == []
    assert {item["id"] for item in before["items"]} == {item["id"] for item in items} - same


async def test_rows_are_ordered_by_newest_first_then_by_id(shared: Service, things: Named) -> None:
    for name in ("campaigns", "content-assets", "agent-jobs", "budget-entries"):
        items = await follow_pages(shared, f"/v1/{name}", limit=1)

        by_id = sorted(items, key=lambda item: item["id"])
        assert items == sorted(by_id, key=lambda item: item["created_at"], reverse=True)


async def test_a_campaign_has_its_derived_figures(service: Service) -> None:
    created = campaign(budget="3", description="D", currency="EUR", start_date="2025-01-01T01:00:00+01:00")
    spent, held = cost("1", campaign_id=created["id"]), reserve("0.50", campaign_id=created["id"])
    metrics = {"impressions": 5, "clicks": 4, "conversions": 3, "revenue": "1.50"}
    activated = follow(created, "campaign.activated")
    recorded = follow(created, "campaign.metrics_recorded", metrics)
    await service.append(created, activated, recorded, recorded | {"id": job()["id"]}, spent, held)

    shown = await service.get(f"/v1/campaigns/{created['id']}")

    times = [shown.pop(name) for name in ("created_at", "updated_at")]
    assert times == [(await service.get("/v1/events/1"))["recorded_at"]] * 2
    assert shown == {
        "id": created["id"],
        "name": "A campaign",
        "description": "D",
        "status": "active",
        "budget": "3",
        "spend": "1",
        "held": "0.5",
        "currency": "EUR",
        "start_date": "2025-01-01T00:00:00.000000Z",
        "end_date": None,
        "impressions": 10,
        "clicks": 8,
        "conversions": 6,
        "revenue": "3",
        "roi": "2",
        "budget_remaining": "2",
        "budget_used_percentage": "33.3333333333",
        "labels": {},
        "position": 6,
    }


async def test_a_campaign_with_a_budget_of_0_has_used_0_percent(service: Service) -> None:
    created = campaign(budget="0")
    await service.append(created, cost("1", campaign_id=created["id"]))

    shown = await service.get(f"/v1/campaigns/{created['id']}")

    assert (shown["budget_used_percentage"], shown["budget_remaining"], shown["roi"]) == ("0", "-1", "-1")


async def test_a_job_that_ended_before_it_started_has_no_duration(shared: Service) -> None:
    queued = job()
    ended = {**follow(queued, "job.completed"), "occurred_at": "2025-01-01T00:00:00Z"}
    receipts = await shared.append(queued, follow(queued, "job.started"), ended)

    path = f"/v1/agent-jobs/{queued['id']}"
    shown = await shared.get(path)
    then = await shared.get(f"{path}?as_of={receipts[-1]['position']}")

    assert (shown["completed_at"], shown["duration_seconds"]) == ("2025-01-01T00:00:00.000000Z", None)
    assert then["duration_seconds"] is None


async def test_a_job_has_its_duration_and_its_json_objects(service: Service) -> None:
    queued = job(input_data={"b": [1.50, {"ü": None}], "a": ""}, budget="7.0")
    started = {**follow(queued, "job.started"), "occurred_at": "2025-01-01T00:00:00Z"}
    completed = {**follow(queued, "job.completed"), "occurred_at": "2025-01-01T00:01:00.25Z"}
    spent = cost("1", agent_job_id=queued["id"], tokens_used=7)
    await service.append(queued, spent, started, follow(queued, "job.progressed", {"progress": "0.250"}))
    running = await service.get(f"/v1/agent-jobs/{queued['id']}")
    await service.append({**completed, "data": {"output_data": {"done": True}}})

    shown = await service.get(f"/v1/agent-jobs/{queued['id']}")

    assert (running["duration_seconds"], running["completed_at"], running["output_data"]) == (None, None, None)
    assert running["started_at"] == "2025-01-01T00:00:00.000000Z"
    del shown["created_at"], shown["updated_at"]
    assert shown == {
        "id": queued["id"],
        "agent_type": "analyst",
        "status": "completed",
        "input_data": {"b": [1.5, {"ü": None}], "a": ""},
        "output_data": {"done": True},
        "started_at": "2025-01-01T00:00:00.000000Z",
        "completed_at": "2025-01-01T00:01:00.250000Z",
        "duration_seconds": 60.25,
        "error_message": None,
        "retry_count": 0,
        "progress": "0.25",
        "tokens_used": 7,
        "cost": "1",
        "held": "0",
        "budget": "7",
        "currency": "USD",
        "campaign_id": None,
        "actor": "local",
        "agent_name": None,
        "parent_job_id": None,
        "root_job_id": queued["id"],
        "tree_cost": "1",
        "labels": {},
        "trace_id": None,
        "position": 5,
    }


async def test_a_deleted_row_is_gone_and_rows_that_refer_to_it_are_unchanged(service: Service) -> None:
    created, queued = campaign(), job()
    of_campaign, of_job = content(campaign_id=created["id"]), content(agent_job_id=queued["id"])
    job_of_campaign = job(created["id"])
    await service.append(created, queued, of_campaign, of_job, job_of_campaign, follow(queued, "job.cancelled"))
    paths = [f"/v1/content-assets/{of_campaign['id']}", f"/v1/agent-jobs/{job_of_campaign['id']}"]
    before = [await service.get(path) for path in paths]

    await service.append(follow(created, "campaign.deleted"), follow(queued, "job.deleted"))

    assert [await service.get(path) for path in paths] == [{**row, "campaign_id": None} for row in before]
    assert [row["campaign_id"] for row in before] == [created["id"]] * 2
    assert (await service.get(f"/v1/content-assets/{of_job['id']}"))["agent_job_id"] is None
    assert (await service.problem(f"/v1/campaigns/{created['id']}"))[0] == 404
    assert (await service.problem(f"/v1/agent-jobs/{queued['id']}"))[0] == 404
    assert (await service.problem(f"/v1/campaigns/{created['id']}/budget"))[0] == 404
    assert (await service.get("/v1/campaigns"))["items"] == []
    await service.append(follow(of_campaign, "content.deleted"))
    assert [item["id"] for item in (await service.get("/v1/content-assets"))["items"]] == [of_job["id"]]


async def test_a_denied_hold_has_no_entry_and_a_settled_one_has_its_cost(service: Service) -> None:
    created = campaign(budget="1")
    held = reserve("1", campaign_id=created["id"], model_used="asked", provider="P", description="D")
    settled = {"cost": "0.25", "tokens_used": 3, "model_used": "taken"}
    adjusted = event("cost.adjusted", {"amount": "-0.05", "tokens_used": -1, "reason": "R"}, stream_id=held["id"])
    await service.append(created, held)
    assert (await service.post(reserve("2", campaign_id=created["id"])))[0] == 402
    happened_at = "2025-01-02T03:04:05.000000Z"
    await service.append({**follow(held, "cost.settled", settled), "occurred_at": happened_at}, adjusted)

    (shown,) = (await service.get("/v1/budget-entries"))["items"]

    del shown["created_at"], shown["updated_at"], shown["expires_at"]
    assert shown == {
        "id": held["id"],
        "resource_type": "llm_api",
        "status": "settled",
        "cost": "0.2",
        "held": "0",
        "currency": "USD",
        "tokens_used": 2,
        "model_used": "taken",
        "provider": "P",
        "description": "D",
        "agent_job_id": None,
        "campaign_id": created["id"],
        "occurred_at": happened_at,
        "actor": "local",
        "input_tokens": None,
        "output_tokens": None,
        "cache_read_tokens": None,
        "cache_write_tokens": None,
        "reasoning_tokens": None,
        "usage": None,
        "service_tier": None,
        "response_id": None,
        "labels": {},
        "trace_id": None,
        "adjusted": "-0.05",
        "unpriced": False,
        "price_position": None,
        "position": 5,
    }
