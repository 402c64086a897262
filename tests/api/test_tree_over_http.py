"""GET /v1/agent-jobs/{id}/tree, and the filters by parent, root, agent, key and trace."""

import uuid
from typing import Any

import aiohttp
import pytest

from ledger.api import job_trees
from ledger.database import Database
from projections import as_of
from tests.api.test_keys import key_header, served
from tests.conftest import Service
from tests.events import campaign, cost, event, follow, job, reserve

pytestmark = pytest.mark.every_connection

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
async def jobs(shared: Service) -> dict[str, dict[str, Any]]:
    """Record a tree: root, left and right below it, leaf below left; and a job outside it."""
    root = job(budget="10", agent_name="planner", trace_id=TRACE)
    left, right = job(parent_job_id=root["id"]), job(parent_job_id=root["id"], agent_type="coder")
    # Siblings that were queued together are listed in the order of their ids.
    left["id"], right["id"] = sorted((left["id"], right["id"]))
    ended = {"agent_type": "coder", "input_data": {}, "status": "failed", "error_message": "it broke"}
    leaf = event("job.recorded", {**ended, "parent_job_id": left["id"]})
    outside = job()
    await shared.append(root, left, right, leaf, outside)
    await shared.append(cost("1", agent_job_id=root["id"]), cost("0.25", agent_job_id=leaf["id"]))
    await shared.append(reserve("2", agent_job_id=right["id"]), follow(left, "job.started"))
    return {"root": root, "left": left, "right": right, "leaf": leaf, "outside": outside}


async def test_a_tree_lists_each_job_after_its_parent_with_its_own_cost_and_that_of_its_tree(
    shared: Service, jobs: dict[str, dict[str, Any]]
) -> None:
    tree = await shared.get(f"/v1/agent-jobs/{jobs['root']['id']}/tree")

    names = {opened["id"]: name for name, opened in jobs.items()}
    shown = [
        (names[each["id"]], each["depth"], each["status"], each["cost"], each["tree_cost"], each["held"])
        for each in tree["items"]
    ]
    assert shown == [
        ("root", 0, "pending", "1", "1.25", "0"),
        ("left", 1, "running", "0", "0.25", "0"),
        ("leaf", 2, "failed", "0.25", "0.25", "0"),
        ("right", 1, "pending", "0", "0", "2"),
    ]
    assert tree["items"][0] == {
        **{"id": jobs["root"]["id"], "parent_job_id": None, "depth": 0, "agent_type": "analyst"},
        **{"agent_name": "planner", "status": "pending", "cost": "1", "tree_cost": "1.25", "held": "0"},
        "budget": "10",
    }


async def test_a_part_of_a_tree_begins_at_any_job(shared: Service, jobs: dict[str, dict[str, Any]]) -> None:
    tree = await shared.get(f"/v1/agent-jobs/{jobs['left']['id']}/tree")

    found = [(each["id"], each["parent_job_id"], each["depth"]) for each in tree["items"]]
    assert found == [
        (jobs["left"]["id"], jobs["root"]["id"], 0),
        (jobs["leaf"]["id"], jobs["left"]["id"], 1),
    ]


async def test_a_tree_of_too_many_jobs_is_refused(
    shared: Service, jobs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_trees, "JOBS_MAX", 3)

    status, problem = await shared.problem(f"/v1/agent-jobs/{jobs['root']['id']}/tree")

    assert problem["type"] == "/problems/read-too-large"
    assert status == problem["status"]
    assert len((await shared.get(f"/v1/agent-jobs/{jobs['left']['id']}/tree"))["items"]) == 2


async def test_the_past_of_a_job_with_too_many_jobs_below_it_is_refused(
    shared: Service, jobs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await shared.head()
    monkeypatch.setattr(as_of, "JOBS_BELOW_MAX", 2)

    status, problem = await shared.problem(f"/v1/agent-jobs/{jobs['root']['id']}", as_of=str(head))

    assert (status, problem["type"]) == (problem["status"], "/problems/read-too-large")
    assert (await shared.get(f"/v1/agent-jobs/{jobs['left']['id']}", as_of=str(head)))["tree_cost"] == "0.25"


async def test_a_job_that_does_not_exist_has_no_tree(shared: Service) -> None:
    status, problem = await shared.problem(f"/v1/agent-jobs/{uuid.uuid4()}/tree")

    assert (status, problem["type"]) == (404, "/problems/not-found")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"parent_job_id": "root"}, "left right"),
        ({"parent_job_id": "root,left"}, "left right leaf"),
        ({"root_job_id": "root"}, "root left right leaf"),
        ({"root_job_id": "outside"}, "outside"),
        ({"agent_name": "planner"}, "root"),
        ({"trace_id": TRACE}, "root"),
        ({"actor": "local"}, "root left right leaf outside"),
        ({"actor": "other"}, ""),
    ],
)
async def test_jobs_are_filtered_by_their_place_in_a_tree_agent_key_and_trace(
    shared: Service, jobs: dict[str, dict[str, Any]], filters: dict[str, str], expected: str
) -> None:
    named = {
        name: ",".join(jobs[each]["id"] if each in jobs else each for each in value.split(","))
        for name, value in filters.items()
    }

    page = await shared.get("/v1/agent-jobs", **named)

    assert {each["id"] for each in page["items"]} == {jobs[name]["id"] for name in expected.split()}


async def test_a_refused_hold_names_the_ancestor_whose_budget_refuses_it(
    shared: Service, jobs: dict[str, dict[str, Any]]
) -> None:
    status, problem = await shared.post(reserve("9", agent_job_id=jobs["right"]["id"]))

    assert (status, problem["type"]) == (402, "/problems/budget-exceeded")
    (scope,) = problem["scopes"]
    assert (scope["scope"], scope["id"], scope["limit"]) == ("ancestor", jobs["root"]["id"], "10")


async def test_a_restricted_key_sees_only_the_trees_of_its_campaigns(database: Database) -> None:
    mine, other = campaign(), campaign()
    roots = [job(owner["id"]) for owner in (mine, other)]
    below = [job(parent_job_id=root["id"]) for root in roots]
    admin = await key_header(database, "boss", "admin")
    restricted = await key_header(database, "restricted", "viewer", campaign_ids=[uuid.UUID(mine["id"])])
    async with served(database) as url:
        async with (
            aiohttp.ClientSession(url, headers=admin) as http,
            http.post("/v1/events", json=[mine, other, *roots, *below]) as answer,
        ):
            position = (await answer.json())["position"]
        async with aiohttp.ClientSession(url, headers=restricted) as http:
            answers = [await http.get(f"/v1/agent-jobs/{root['id']}/tree?min_position={position}") for root in roots]
            trees = [await answer.json(content_type=None) for answer in answers]

    assert [answer.status for answer in answers] == [200, 404]
    assert [each["id"] for each in trees[0]["items"]] == [roots[0]["id"], below[0]["id"]]


async def test_a_restricted_key_is_shown_no_balance_of_a_job_outside_its_campaigns(database: Database) -> None:
    mine, outside = campaign(), job(budget="50", agent_name="planner")
    below = job(parent_job_id=outside["id"], agent_name="hidden")
    held = reserve("1", campaign_id=mine["id"], agent_job_id=below["id"])
    spent = cost("13.37", agent_job_id=outside["id"])
    boss = await key_header(database, "boss", "admin")
    restricted = await key_header(database, "restricted", "manager", campaign_ids=[uuid.UUID(mine["id"])])
    settled = follow(held, "cost.settled", {"cost": "2"})
    async with served(database) as url:
        async with aiohttp.ClientSession(url, headers=boss) as http:
            answer = await http.post("/v1/events", json=[mine, outside, below, spent, held])
            whole = await answer.json()
        async with aiohttp.ClientSession(url, headers=restricted) as http:
            repeated = await (await http.post("/v1/events", json=held)).json()
            position = (await (await http.post("/v1/events", json=settled)).json())["position"]
            keys = "agent_name,root_job_id,label.x"
            spend = await (await http.get(f"/v1/spend?group_by={keys}&min_position={position}")).json()

    assert {limit["scope"] for limit in whole["events"][4]["limits"]} == {"ancestor", "campaign"}
    assert [limit["scope"] for limit in repeated["events"][0]["limits"]] == ["campaign"]
    assert [(item["agent_name"], item["root_job_id"], item["cost"]) for item in spend["items"]] == [(None, None, "2")]
