"""Lists: filters by label and further columns, chosen fields, order by the used percentage."""

from typing import Any

import pytest

from tests.api.helpers import follow_pages
from tests.conftest import Service
from tests.events import campaign, cost, job

Named = dict[str, dict[str, Any]]

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
async def things(shared: Service) -> Named:
    """Campaigns that use 50, 0.1, 0 (of nothing) and 200 percent of their budget, one without; jobs and costs."""
    half = campaign("10", labels={"team": "growth", "region": "eu"})
    little = campaign("1000", labels={"team": "a, b", "region": "null"})
    nothing = campaign("0")
    over = campaign("1", labels={"team": "growth"})
    endless = campaign()
    endless["data"]["budget"] = None
    named = job(half["id"], agent_name="scout", trace_id=TRACE, labels={"team": "research"})
    plain = job(half["id"])
    of_job = cost("5", agent_job_id=named["id"], response_id="resp_1", trace_id=TRACE, labels={"kind": "x"})
    costs = [
        of_job,
        *(cost(amount, campaign_id=of["id"]) for amount, of in (("1", little), ("2", over), ("9", endless))),
    ]
    await shared.append(half, little, nothing, over, endless, named, plain, *costs)
    campaigns = {"half": half, "little": little, "nothing": nothing, "over": over, "endless": endless}
    return {**campaigns, "named": named, "plain": plain, "of_job": of_job, "of_over": costs[2]}


async def found(service: Service, things: Named, path: str, **parameters: str) -> list[str]:
    """Return the names of the listed things, oldest first."""
    names = {each["id"]: name for name, each in things.items()}
    items = await follow_pages(service, f"/v1/{path}", sort="created_at,id", **parameters)
    return sorted(names[item["id"]] for item in items if item["id"] in names)


@pytest.mark.parametrize(
    ("path", "parameters", "expected"),
    [
        ("campaigns", {"label.team": "growth"}, ["half", "over"]),
        ("campaigns", {"label.team": "growth", "label.region": "eu"}, ["half"]),
        ("campaigns", {"label.team": "growth,a\\, b"}, ["half", "little", "over"]),
        ("campaigns", {"label.team": "a, b"}, []),
        ("campaigns", {"label.region": "null"}, ["little"]),
        ("campaigns", {"label.none": "growth"}, []),
        # A job has the labels of its campaign too, and its own win; an entry those of its job.
        ("agent-jobs", {"label.team": "research", "label.region": "eu"}, ["named"]),
        ("agent-jobs", {"label.team": "growth"}, ["plain"]),
        ("budget-entries", {"label.team": "research", "label.kind": "x"}, ["of_job"]),
        ("agent-jobs", {"agent_name": "scout", "actor": "local", "trace_id": TRACE}, ["named"]),
        ("agent-jobs", {"actor": "nobody"}, []),
        ("budget-entries", {"response_id": "resp_1,resp_2", "trace_id": TRACE, "actor": "local"}, ["of_job"]),
    ],
)
async def test_rows_are_selected(
    shared: Service, things: Named, path: str, parameters: dict[str, str], expected: list[str]
) -> None:
    assert await found(shared, things, path, **parameters) == expected


async def test_jobs_are_selected_by_their_tree(shared: Service, things: Named) -> None:
    assert await found(shared, things, "agent-jobs", root_job_id=things["plain"]["id"]) == ["plain"]
    assert await found(shared, things, "agent-jobs", parent_job_id=things["plain"]["id"]) == []


@pytest.mark.parametrize(
    ("path", "parameters", "complaint"),
    [
        ("campaigns", {"label.": "x"}, "'label.'"),
        ("campaigns", {"label.Team": "x"}, "'label.Team'"),
        ("campaigns", {"labels": "x"}, "labels"),
        ("content-assets", {"label.team": "x"}, "label.team"),
        ("campaigns", {"fields": "name,nothing"}, "no field 'nothing'"),
        ("campaigns", {"fields": "name,name"}, "twice"),
        ("campaigns", {"fields": ""}, "no field ''"),
        ("agent-jobs", {"sort": "budget_used_percentage"}, "cannot sort"),
    ],
)
async def test_what_there_is_not_is_refused(
    shared: Service, path: str, parameters: dict[str, str], complaint: str
) -> None:
    status, problem = await shared.problem(f"/v1/{path}", **parameters)

    assert (status, problem["type"]) == (400, "/problems/malformed")
    assert complaint in problem["detail"]


@pytest.mark.parametrize("limit", ["1", "2", "500"])
@pytest.mark.parametrize("sign", ["", "-"])
async def test_campaigns_are_sorted_by_how_much_of_the_budget_is_used(
    shared: Service, things: Named, sign: str, limit: str
) -> None:
    items = await follow_pages(shared, "/v1/campaigns", sort=f"{sign}budget_used_percentage", limit=limit)

    shown = [item["budget_used_percentage"] for item in items]
    expected = ["0", "0.1", "50", "200"]
    # Without a limit there is no percentage; nulls are last.
    assert shown == [*(reversed(expected) if sign else expected), None]
    assert {item["id"] for item in items} >= {things[name]["id"] for name in ("half", "over", "endless")}


async def test_exactly_the_fields_that_are_named_are_shown(shared: Service, things: Named) -> None:
    everything = await follow_pages(shared, "/v1/campaigns")
    fields = ("budget_remaining", "name", "labels")

    chosen = await follow_pages(shared, "/v1/campaigns", fields=",".join(fields), limit="2")

    assert chosen == [{name: item[name] for name in fields} for item in everything]
    assert all(tuple(item) == fields for item in chosen)


async def test_fields_do_not_disturb_sort_and_cursor(shared: Service, things: Named) -> None:
    parameters = {"sort": "-budget_used_percentage", "limit": "1"}
    everything = await follow_pages(shared, "/v1/campaigns", **parameters)

    chosen = await follow_pages(shared, "/v1/campaigns", fields="id", **parameters)

    assert chosen == [{"id": item["id"]} for item in everything]


async def test_a_page_without_large_fields_is_not_cut(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    large = job(input_data={"text": "x" * 1_000_000})
    await shared.append(*({**large, "id": job()["id"]} for _ in range(9)))

    page = await shared.get("/v1/agent-jobs", limit="10", fields="id,duration_seconds")
    cut = await shared.get("/v1/agent-jobs", limit="10")

    assert len(page["items"]) == 10 > len(cut["items"])
