"""Cursors: every row exactly once and in order, for every sort and limit, also during appends."""

import random
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from yarl import URL

from tests.api.helpers import follow_pages
from tests.conftest import Service
from tests.events import campaign, content, cost, follow, job, reserve

MIB = 1024 * 1024

SORTABLE = {
    "campaigns": ("name", "status", "created_at", "spend", "id"),
    "content-assets": ("title", "content_type", "status", "campaign_id", "agent_job_id", "created_at", "id"),
    "agent-jobs": ("agent_type", "status", "campaign_id", "created_at", "cost", "id"),
    "budget-entries": (
        *("resource_type", "status", "model_used", "agent_job_id", "campaign_id"),
        *("occurred_at", "created_at", "cost", "id"),
    ),
}
# Names that sort the same under every collation.
NAMES = ("a", "b", "bb", "c", "d")
MODELS: tuple[str | None, ...] = (None, "m1", "m2", "m3, with comma")


@pytest.fixture(scope="module")
async def many_rows(shared: Service) -> None:
    """Create about thirty rows in each collection, with many ties and nulls."""
    chance = random.Random(66)
    for _ in range(3):
        campaigns = [campaign(name=chance.choice(NAMES)) for _ in range(10)]
        ids = [None, None, *(one["id"] for one in campaigns[:3])]
        jobs = [job(chance.choice(ids), agent_type=chance.choice(["analyst", "optimizer"])) for _ in range(10)]
        job_ids = [None, None, *(one["id"] for one in jobs[:3])]
        of_campaign = [{"campaign_id": one} if one else {} for one in ids]
        of_job = [{"agent_job_id": one} if one else {} for one in job_ids]
        assets = [
            content(title=chance.choice(NAMES), content_type=chance.choice(["blog", "email"]), **chance.choice(of))
            for of in (of_campaign, of_job) * 5
        ]
        entries = [
            {
                **chance.choice((cost, reserve))(
                    chance.choice(["0.1", "1", "1.5", "20"]),
                    **({"model_used": model} if (model := chance.choice(MODELS)) else {}),
                    **chance.choice(chance.choice((of_campaign, of_job))),
                ),
                "occurred_at": chance.choice(["2025-01-01T00:00:00Z", "2025-01-01T00:00:00.000001Z", None]),
            }
            for _ in range(12)
        ]
        started = [follow(one, "job.started") for one in jobs[::2]]
        await shared.append(
            *campaigns, *jobs, *assets, *started, *(follow(one, "content.submitted") for one in assets[:4])
        )
        await shared.append(*entries)


def sort_key(item: dict[str, Any], name: str) -> Any:
    """Return the sort key of a column."""
    return Decimal(item[name]) if name in ("cost", "spend") else item[name]


def in_order(items: Iterable[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Return the rows in the specified order: nulls last in both directions, ties by id."""
    ordered = list(items)
    parts = sort.split(",")
    for part in reversed(parts if parts[-1] in ("id", "-id") else [*parts, "id"]):
        name = part.removeprefix("-")
        known = [item for item in ordered if item[name] is not None]
        unknown = [item for item in ordered if item[name] is None]
        ordered = sorted(known, key=lambda item: sort_key(item, name), reverse=part.startswith("-")) + unknown
    return ordered


SORTS = [
    (name, direction + column) for name, columns in SORTABLE.items() for column in columns for direction in ("", "-")
]
SORTS += [
    ("campaigns", "-spend,name"),
    ("campaigns", "status,-name,-created_at"),
    ("content-assets", "campaign_id,-agent_job_id,title"),
    ("agent-jobs", "-campaign_id,status,-id"),
    ("budget-entries", "model_used,-campaign_id,cost"),
    ("budget-entries", "-occurred_at,-model_used,-agent_job_id"),
]


@pytest.mark.parametrize(("name", "sort"), SORTS)
async def test_following_the_cursors_returns_each_row_once_and_in_order(
    shared: Service, many_rows: None, name: str, sort: str
) -> None:
    everything = (await shared.get(f"/v1/{name}", limit=500))["items"]

    found = await follow_pages(shared, f"/v1/{name}", sort=sort, limit=7)

    assert len(everything) >= 30
    assert found == in_order(everything, sort)


@pytest.mark.parametrize("limit", [1, 2, 29, 30, 31, 35, 36, 37, 500])
async def test_no_limit_loses_or_repeats_a_row(shared: Service, many_rows: None, limit: int) -> None:
    everything = (await shared.get("/v1/budget-entries", limit=500))["items"]

    found = await follow_pages(shared, "/v1/budget-entries", limit=limit, sort="model_used,-campaign_id")

    assert found == in_order(everything, "model_used,-campaign_id")


async def test_the_last_page_has_no_cursor_and_an_empty_collection_has_one_page(
    shared: Service, many_rows: None
) -> None:
    count = len((await shared.get("/v1/campaigns", limit=500))["items"])

    exact = await shared.get("/v1/campaigns", limit=count)
    less = await shared.get("/v1/campaigns", limit=count - 1)
    empty = await shared.get("/v1/campaigns", name="nobody")

    assert (len(exact["items"]), exact["next"]) == (count, None)
    assert (len(less["items"]), less["next"] is None) == (count - 1, False)
    assert empty == {"items": [], "next": None}


async def test_a_page_has_fifty_rows_by_default(shared: Service, many_rows: None) -> None:
    await shared.append(*(content(title="z") for _ in range(30)))

    assert len((await shared.get("/v1/content-assets"))["items"]) == 50
    assert len((await shared.get("/v1/content-assets", limit=500))["items"]) >= 60


async def test_the_link_of_the_next_page_keeps_the_filters_and_works(shared: Service, many_rows: None) -> None:
    awkward = 'a\\, b+c & d=e;f/g?h#i%20<j> "k" \'ü\\'
    named = [campaign(name=awkward.replace("\\,", ",")) for _ in range(5)]
    await shared.append(*named)
    head = await shared.head()
    address = URL("/v1/campaigns").with_query(name=awkward, status="draft,active", limit="2", min_position=str(head))

    found: list[str] = []
    pages = 0
    while True:
        async with shared.client.get(address) as answer:
            page = await answer.json()
            link = answer.headers.get("Link")
        assert answer.status == 200, page
        found += [item["id"] for item in page["items"]]
        pages += 1
        if link is None:
            break
        (target,) = re.findall('^<([^>]+)>; rel="next"$', link)
        address = URL(target, encoded=True)

    assert page["next"] is None
    assert pages == 3
    assert sorted(found) == sorted(one["id"] for one in named)


@pytest.mark.parametrize("sort", ["-created_at,id", "created_at", "name", "-name", "spend"])
async def test_rows_created_meanwhile_neither_hide_nor_repeat_others(
    shared: Service, many_rows: None, sort: str
) -> None:
    before = (await shared.get("/v1/campaigns", limit=500))["items"]

    found: list[str] = []
    parameters: dict[str, Any] = {"sort": sort, "limit": 5}
    while True:
        page = await shared.get("/v1/campaigns", **parameters)
        found += [item["id"] for item in page["items"]]
        if page["next"] is None or len(found) > 1000:
            break
        parameters["cursor"] = page["next"]
        if len(found) < 40:
            await shared.append(*(campaign(name=name) for name in NAMES))

    assert len(found) == len(set(found))
    old = {item["id"] for item in before}
    assert [one for one in found if one in old] == [item["id"] for item in in_order(before, sort)]


async def test_pages_of_large_texts_are_bounded_in_size_and_lose_no_row(service: Service) -> None:
    assets = [content(content="x" * 900_000, metadata={"m": "y" * 300_000}) for _ in range(16)]
    jobs = [job(input_data={"text": "z" * (3 * MIB)}) for _ in range(6)]
    for one in (*assets, *jobs):
        await service.append(one)

    for name, rows in (("content-assets", assets), ("agent-jobs", jobs)):
        found: list[str] = []
        sizes: list[int] = []
        parameters: dict[str, Any] = {"limit": 500}
        await service.get(f"/v1/{name}", limit=1)
        while True:
            async with service.client.get(f"/v1/{name}", params=parameters) as answer:
                sizes.append(len(await answer.read()))
                page = await answer.json()
            found += [item["id"] for item in page["items"]]
            if page["next"] is None:
                break
            parameters["cursor"] = page["next"]

        assert sorted(found) == sorted(row["id"] for row in rows)
        assert len(found) == len(rows)
        # A page ends with the row that exceeds 8 MiB.
        assert max(sizes) < 12 * MIB
        assert len(sizes) >= 3
