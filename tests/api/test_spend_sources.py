"""Spend from entries and from postings: time zones, further keys, basis, as_of."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from projections.spend_sums import KEYS
from tests.api.helpers import adjust
from tests.conftest import Service
from tests.events import campaign, cost, event, follow, job, price, reserve
from tests.log.erasures import erased

Items = list[dict[str, Any]]

LABELS = ("label.team", "label.kind")


async def spend(service: Service, **parameters: str) -> Items:
    """Return the sums."""
    items: Items = (await service.get("/v1/spend", **parameters))["items"]
    return items


def drawn_history(seed: int) -> list[dict[str, Any]]:
    """Two campaigns, four jobs and thirty costs of any kind, at any time of two weeks."""
    draw = random.Random(seed)
    campaigns = [campaign("1000000000", labels={"team": name}) for name in ("a", "b")]
    jobs = [
        job(draw.choice(campaigns)["id"], agent_type=kind, agent_name=draw.choice(["x", "y"]), labels={"kind": kind})
        for kind in ("analyst", "coder", "researcher", "support")
    ]
    events = [*campaigns, *jobs]
    for _ in range(30):
        counts_for = draw.choice(
            [{}, {"campaign_id": draw.choice(campaigns)["id"]}, {"agent_job_id": draw.choice(jobs)["id"]}]
        )
        fields = {
            "provider": draw.choice(["p", "q"]),
            "model_used": draw.choice(["m", "n"]),
            "service_tier": draw.choice(["standard", "batch"]),
            "usage": {"input_tokens": draw.randrange(9, 99), "cache_read_tokens": 3, "output_tokens": 5},
            **counts_for,
        }
        amount = f"{draw.randrange(10**6)}.{draw.randrange(10**18):018}"
        at = datetime(2025, 3, 24, tzinfo=UTC) + timedelta(seconds=draw.randrange(14 * 86400))
        time = {"occurred_at": at.isoformat()}
        if draw.random() < 0.3:
            held = reserve("1", **dict(counts_for.items()))
            events.append(held)
            settle = {"cost": amount, **{name: fields[name] for name in ("provider", "model_used", "usage")}}
            opened = held
            events.append({**follow(held, "cost.settled", settle), **time})
        else:
            opened = {**cost(amount, **fields), **time}
            events.append(opened)
        if draw.random() < 0.4:
            events.append(adjust(opened, f"-0.{draw.randrange(10**9):018}", tokens_used=-1))
    return events


@pytest.fixture(scope="module")
async def drawn(shared: Service) -> int:
    """Append a drawn history; return its last position."""
    await shared.append(*drawn_history(1))
    return await shared.head()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("key", [*KEYS, *LABELS, "", "agent_name,week", "campaign_id,label.team,day"])
async def test_the_postings_give_the_same_sums_as_the_entries(shared: Service, drawn: int, key: str, zone: str) -> None:
    parameters = {"group_by": key, "time_zone": zone} if key else {}

    by_entries = await spend(shared, **parameters)
    by_postings = await spend(shared, **parameters, as_of=str(drawn))

    assert by_entries == by_postings
    assert sum(item["entries"] for item in by_entries) == 30


async def test_booked_and_occurred_have_the_same_total(shared: Service, drawn: int) -> None:
    (occurred,) = await spend(shared)
    (booked,) = await spend(shared, basis="booked")

    assert occurred == booked


async def test_each_position_shows_the_sums_as_they_were_then(service: Service) -> None:
    events = drawn_history(2)
    shown = []
    for each in events:
        await service.append(each)
        shown.append(await spend(service, group_by="agent_job_id,day"))

    for position, items in list(enumerate(shown, 1))[:: len(shown) // 8]:
        assert await spend(service, group_by="agent_job_id,day", as_of=str(position)) == items


async def test_a_booked_period_never_changes(service: Service) -> None:
    created = campaign("1000")
    spent = {**cost("8", campaign_id=created["id"]), "occurred_at": "2025-03-31T12:00:00Z"}
    await service.append(created, spent, cost("1", campaign_id=created["id"]))
    last = (await service.get("/v1/events", after="2"))["events"][0]["recorded_at"]
    end = (datetime.fromisoformat(last) + timedelta(microseconds=1)).isoformat()
    closed = {"to": end, "group_by": "campaign_id,month"}
    before = [await spend(service, basis=basis, **closed) for basis in ("booked", "occurred")]

    late = {**cost("4", campaign_id=created["id"]), "occurred_at": "2025-03-31T12:00:00Z"}
    await service.append(adjust(spent, "-2.5"), late)
    await erased(service.database, 4)

    after = [await spend(service, basis=basis, **closed) for basis in ("booked", "occurred")]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert [item["cost"] for item in await spend(service, basis="booked", **{"from": end})] == ["1.5"]


async def test_an_entry_priced_later_stays_unpriced_where_it_was_booked(service: Service) -> None:
    published = price("mystery-1")
    call = {"provider": published["data"]["provider"], "model_used": "mystery-1", "usage": {"input_tokens": 10}}
    unpriced = event("cost.recorded", {"resource_type": "llm_api", **call})
    (receipt,) = await service.append(unpriced)
    await service.append(published)
    async with service.client.post("/v1/prices/reprice", json={}) as answer:
        assert answer.status == 200, await answer.text()

    sums = {basis: await spend(service, basis=basis) for basis in ("booked", "occurred")}
    then = await spend(service, as_of=str(receipt["position"]))

    assert [item["unpriced"] for item in sums["booked"]] == [1]
    assert [item["unpriced"] for item in sums["occurred"]] == [0]
    assert [(item["unpriced"], item["cost"]) for item in then] == [(1, "0")]
    assert sums["booked"][0]["cost"] == sums["occurred"][0]["cost"] != "0"


async def test_keys_of_labels_that_differ_only_at_their_ends_are_distinguished(shared: Service) -> None:
    keys = ["a" * 62 + end for end in "xy"]
    created = campaign(labels={keys[0]: "one", keys[1]: "two"})
    await shared.append(created, cost("3", campaign_id=created["id"]))

    (item,) = await spend(shared, group_by=",".join(f"label.{key}" for key in keys), campaign_id=created["id"])

    assert {f"label.{keys[0]}": "one", f"label.{keys[1]}": "two", "cost": "3"}.items() <= item.items()


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", {"2025-03-29": "1", "2025-03-30": "14"}),
        ("Europe/Berlin", {"2025-03-30": "7", "2025-03-31": "8"}),
        ("Asia/Kathmandu", {"2025-03-30": "3", "2025-03-31": "12"}),
        ("America/Los_Angeles", {"2025-03-29": "3", "2025-03-30": "12"}),
    ],
)
async def test_days_and_dates_are_those_of_the_zone(
    shared: Service, zoned: dict[str, Any], zone: str, expected: dict[str, str]
) -> None:
    of = {"campaign_id": zoned["id"], "time_zone": zone}

    assert {item["day"]: item["cost"] for item in await spend(shared, group_by="day", **of)} == expected
    for day, amount in expected.items():
        following = (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()
        assert [item["cost"] for item in await spend(shared, **of, **{"from": day, "to": following})] == [amount]


@pytest.fixture(scope="module")
async def zoned(shared: Service) -> dict[str, Any]:
    """Costs around the day of 23 hours in Berlin (30 March 2025); returns their campaign."""
    created = campaign("1000")
    times = {"1": "2025-03-29T23:30:00Z", "2": "2025-03-30T00:30:00Z", "4": "2025-03-30T21:59:59Z",
             "8": "2025-03-30T22:00:00Z"}  # fmt: skip
    costs = [{**cost(amount, campaign_id=created["id"]), "occurred_at": time} for amount, time in times.items()]
    await shared.append(created, *costs)
    return created


async def test_the_hour_that_comes_twice_is_two_hours(shared: Service) -> None:
    created = campaign("1000")
    times = ("2025-10-26T00:30:00Z", "2025-10-26T01:30:00Z", "2025-10-26T02:30:00Z")
    await shared.append(created, *({**cost("1", campaign_id=created["id"]), "occurred_at": time} for time in times))

    async def hours(zone: str) -> list[str]:
        items = await spend(shared, group_by="hour", time_zone=zone, campaign_id=created["id"])
        return sorted(item["hour"] for item in items)

    assert await hours("Europe/Berlin") == [
        "2025-10-26T02:00:00+01:00",
        "2025-10-26T02:00:00+02:00",
        "2025-10-26T03:00:00+01:00",
    ]
    assert await hours("UTC") == [f"2025-10-26T0{number}:00:00Z" for number in range(3)]
    assert await hours("Asia/Kathmandu") == [f"2025-10-26T0{number}:00:00+05:45" for number in (6, 7, 8)]


async def test_weeks_and_months(shared: Service, zoned: dict[str, Any]) -> None:
    of = {"campaign_id": zoned["id"]}

    assert [item["week"] for item in await spend(shared, group_by="week", **of)] == ["2025-W13"]
    assert [item["month"] for item in await spend(shared, group_by="month", **of)] == ["2025-03"]


async def test_a_campaign_has_its_name_unless_it_was_erased_or_deleted(service: Service) -> None:
    kept, unnamed, deleted = (campaign("10", name=name) for name in ("Kept", "Erased", "Deleted"))
    costs = [cost("1", campaign_id=each["id"]) for each in (kept, unnamed, deleted)]
    await service.append(kept, unnamed, deleted, *costs, adjust(costs[2], "-1"), follow(deleted, "campaign.deleted"))
    await erased(service.database, 2)

    async def names(**parameters: str) -> dict[str, str | None]:
        items = await spend(service, group_by="campaign_id", **parameters)
        return {item["campaign_id"]: item["campaign_name"] for item in items}

    assert await names() == {kept["id"]: "Kept", unnamed["id"]: None, None: None}
    assert await names(basis="booked") == {kept["id"]: "Kept", unnamed["id"]: None, deleted["id"]: None}


async def test_as_of_waits_for_the_journal(service: Service) -> None:
    await service.append(cost("1"))
    async with service.client.get("/v1/spend", params={"as_of": "1"}) as answer:
        body = await answer.json()

    assert (body["items"][0]["cost"], answer.headers["Ledger-Position"]) == ("1", "1")


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"time_zone": "Mars/Base"}, "time zone"),
        ({"time_zone": "../UTC"}, "time zone"),
        ({"from": "2025-13-01"}, "'from'"),
        ({"to": "2025-01-01T00:00:00"}, "'to'"),
        ({"from": "1"}, "'from'"),
        ({"from": "0001-01-01", "time_zone": "Asia/Tokyo"}, "'from'"),
        ({"group_by": "day,years"}, "cannot group by 'years'"),
        ({"group_by": "label.Team"}, "cannot group by 'label.Team'"),
        ({"group_by": "label.a' OR 1=1"}, "cannot group by"),
        ({"group_by": "day,day"}, "twice"),
        ({"basis": "guessed"}, "basis"),
        ({"as_of": "999999"}, "the log ends at position"),
        ({"as_of": "yesterday"}, "neither a position nor a time"),
    ],
)
async def test_what_cannot_be_shown_is_refused(
    shared: Service, drawn: int, parameters: dict[str, str], complaint: str
) -> None:
    status, problem = await shared.problem("/v1/spend", **parameters)

    assert (status, problem["type"]) == (400, "/problems/malformed")
    assert complaint in problem["detail"]
