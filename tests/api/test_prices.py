"""Prices over HTTP: costs by usage, the price book as a collection, quotes, and repricing."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from ledger.api import repricing
from ledger.api.app import listen, serving
from ledger.api.repricing import TRY_LOCK_REPRICING, Repriced, reprice_page
from ledger.cli.databases import open_appender
from ledger.database import Database
from ledger.domain.price import price_stream
from ledger.log.price_cache import PriceCache
from ledger.log.request_body import REQUEST_EVENTS_MAX
from projections import entries_to_reprice
from projections.entries_to_reprice import PRICED_ENTRIES, UNPRICED_ENTRIES, Selection, read_entries
from projections.verify import verify
from tests.api.helpers import slug, without
from tests.api.test_keys import key_header, served
from tests.conftest import Service
from tests.events import campaign, event, follow
from tests.log.helpers import query

USAGE = {"input_tokens": 1000, "output_tokens": 100}

MANY_ENTRIES = """
INSERT INTO budget_entries (id, resource_type, status, currency, occurred_at, actor, usage, unpriced, price_position,
    created_at, updated_at, position)
SELECT gen_random_uuid(), 'llm_api', 'settled', 'USD', now(), 'local', '{"input_tokens": 1}', number % 1000 = 0,
    CASE number % 1000 WHEN 1 THEN 1 END, now(), now(), number FROM generate_series(1, 20000) AS number
"""


def published(model: str, rate: str = "2", since: str = "2025-01-01T00:00:00Z", **data: Any) -> dict[str, Any]:
    return event(
        "price.published",
        {
            "provider": "openai",
            "model": model,
            "rates": {"input_tokens": rate, "output_tokens": "8"},
            "effective_from": since,
            "source": {"name": "test", "version": "1"},
            **data,
        },
    )


def used(model: str, type_: str = "cost.recorded", **data: Any) -> dict[str, Any]:
    call = {"resource_type": "llm_api", "provider": "openai", "model_used": model, "usage": USAGE}
    return event(type_, call | data)


def new_model() -> str:
    return f"model-{uuid4().hex[:8]}"


async def post(service: Service, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with service.client.post(path, json=body) as answer:
        return answer.status, await answer.json(content_type=None)


async def entry_of(service: Service, sent: dict[str, Any]) -> Any:
    return await service.get(f"/v1/budget-entries/{sent.get('stream_id', sent['id'])}")


async def test_a_cost_by_usage_is_priced_and_its_entry_names_the_price(shared: Service) -> None:
    model = new_model()
    (receipt,) = await shared.append(published(model))
    sent = used(model)
    hold = used(model, "cost.reserved")

    await shared.append(sent, hold, follow(hold, "cost.settled", {"usage": {"input_tokens": 500}}))

    entry, settled = await entry_of(shared, sent), await entry_of(shared, hold)
    assert (entry["cost"], entry["price_position"], entry["unpriced"]) == ("0.0028", receipt["position"], False)
    assert (settled["cost"], settled["price_position"]) == ("0.001", receipt["position"])
    assert receipt["stream_id"] == str(price_stream("openai", model, None, None))


async def test_a_retry_after_a_new_price_is_answered_with_the_first_receipt(shared: Service) -> None:
    model = new_model()
    sent = used(model)
    await shared.append(published(model))
    (first,) = await shared.append(sent)
    await shared.append(published(model, "4"))

    (again,) = await shared.append(sent)

    assert again == first | {"duplicate": True}
    assert (await entry_of(shared, sent))["cost"] == "0.0028"


async def test_a_hold_without_a_price_is_a_problem_that_names_the_call(shared: Service) -> None:
    model = new_model()

    status, problem = await shared.post(used(model, "cost.reserved"))

    assert (status, slug(problem)) == (422, "unpriced")
    assert without(problem, "type", "title", "status", "detail") == {
        "provider": "openai",
        "model_used": model,
        "service_tier": "standard",
        "currency": "USD",
    }


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (used("m", price=1, cost="1"), "$.data.price"),
        (used("m", usage=None), "$.data.cost"),
        ({**published("m"), "stream_id": str(uuid4())}, "$.stream_id"),
        (published("m", "0x1"), "$.data.rates"),
    ],
    ids=["price", "no cost and no usage", "other stream", "no number"],
)
async def test_what_the_service_decides_cannot_be_sent(shared: Service, sent: dict[str, Any], path: str) -> None:
    status, problem = await shared.post(sent)

    assert (status, slug(problem)) == (422, "invalid-event")
    assert [error["path"].split(".input")[0] for error in problem["errors"]] == [path]


async def test_the_price_book_is_a_collection_of_periods(shared: Service) -> None:
    model = new_model()
    first, later, between = (
        published(model),
        published(model, "4", "2025-03-01T00:00:00Z", names=["alias"]),
        published(model, "3", "2025-02-01T00:00:00Z"),
    )
    receipts = await shared.append(first, later, between)
    end = event("price.withdrawn", {"effective_from": "2025-04-01T00:00:00Z"}, stream_id=receipts[0]["stream_id"])
    await shared.append(end)

    page = await shared.get("/v1/prices", model=model, sort="effective_from")

    assert [(row["rates"].get("input_tokens"), row["effective_to"], row["withdrawn"]) for row in page["items"]] == [
        ("2", "2025-02-01T00:00:00.000000Z", False),
        ("3", "2025-03-01T00:00:00.000000Z", False),
        ("4", "2025-04-01T00:00:00.000000Z", False),
        (None, None, True),
    ]
    assert [row["price_position"] for row in page["items"][:3]] == [receipts[index]["position"] for index in (0, 2, 1)]
    assert await shared.get(f"/v1/prices/{page['items'][1]['id']}") == page["items"][1]


async def test_a_withdrawal_keeps_the_names_of_the_price_that_it_ends(shared: Service) -> None:
    model, other = new_model(), new_model()
    names = {"names": [f"{model}-alias"], "prefixes": [f"{model}-20"]}
    withdrawn = (await shared.append(published(model, **names), published(other, prefixes=[model[:-1]])))[0]
    end = event("price.withdrawn", {"effective_from": "2025-04-01T00:00:00Z"}, stream_id=withdrawn["stream_id"])
    await shared.append(end)

    for called in (f"{model}-alias", f"{model}-2026"):
        sent = used(called)
        await shared.append(sent)
        assert (await entry_of(shared, sent))["unpriced"]

    async def last_row() -> Any:
        return (await shared.get("/v1/prices", model=model, sort="effective_from"))["items"][-1]

    assert (await last_row()).items() >= {"withdrawn": True, **names}.items()
    new_names = {"names": [f"{model}-new"], "prefixes": []}
    await shared.append(published(model, "3", "2025-03-01T00:00:00Z", **new_names))
    assert (await last_row()).items() >= {"withdrawn": True, **new_names}.items()


async def test_a_quote_is_what_an_append_would_compute(shared: Service) -> None:
    model = new_model()
    (receipt,) = await shared.append(published(model))
    asked = {"provider": "openai", "model_used": model, "usage": USAGE}

    status, quote = await post(shared, "/v1/prices/quote", asked)
    assert (status, quote["cost"], quote["price_position"]) == (200, "0.0028", receipt["position"])

    for missing in ({"at": "2024-01-01T00:00:00Z"}, {"currency": "EUR"}, {"service_tier": "batch"}):
        status, problem = await post(shared, "/v1/prices/quote", asked | missing)
        assert (status, slug(problem)) == (422, "unpriced")
    for wrong in ({"more": 1}, {"usage": {}}):
        assert (await post(shared, "/v1/prices/quote", asked | wrong))[0] == 400


async def test_a_quote_refuses_longer_names_than_a_cost(shared: Service) -> None:
    asked = {"provider": "openai", "model_used": "m", "usage": USAGE}

    for field in ("provider", "model_used"):
        for name in ("", "m" * 256):
            status, problem = await post(shared, "/v1/prices/quote", asked | {field: name})
            assert (status, slug(problem)) == (400, "malformed")
            assert f"$.{field}" in problem["detail"]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00Z"])
async def test_times_outside_the_calendar_are_refused(shared: Service, time: str) -> None:
    quote = {"provider": "openai", "model_used": "m", "usage": USAGE}

    for path, body in (("quote", quote | {"at": time}), ("reprice", {"from": time}), ("reprice", {"to": time})):
        status, problem = await post(shared, f"/v1/prices/{path}", body)
        assert (status, slug(problem)) == (400, "malformed")
        assert "calendar" in problem["detail"]


async def test_a_quote_names_the_rate_that_the_price_lacks(shared: Service) -> None:
    model = new_model()
    await shared.append(published(model))
    asked = {"provider": "openai", "model_used": model, "usage": USAGE | {"images": 1}}

    status, problem = await post(shared, "/v1/prices/quote", asked)

    assert (status, slug(problem)) == (422, "unpriced")
    assert "has no rate for images" in problem["detail"]


async def test_an_unpriced_call_with_audio_that_may_be_cached_says_so(shared: Service) -> None:
    model = new_model()
    price = published(model)
    price["data"]["rates"] |= {"cache_read_tokens": "0.1", "input_audio_tokens": "9"}
    await shared.append(price)
    usage = {"input_tokens": 10, "cache_read_tokens": 4, "input_audio_tokens": 5}
    call = {"provider": "openai", "model_used": model, "usage": usage}

    status, problem = await post(shared, "/v1/prices/quote", call)
    hold_status, hold_problem = await shared.post(event("cost.reserved", call | {"resource_type": "llm_api"}))

    why = f"the usage does not say which of its input_audio_tokens are cached, and the price of {model} of openai has"
    assert (status, problem["detail"]) == (422, f"{why} a rate for each; send the cost with the call")
    assert (hold_status, hold_problem["detail"]) == (422, f"{why} a rate for each; send the amount")


async def test_a_quote_too_large_for_an_amount_is_refused(shared: Service) -> None:
    model = new_model()
    await shared.append(published(model, "9999999999"))
    asked = {"provider": "openai", "model_used": model, "usage": {"input_tokens": 10**12}}

    status, problem = await post(shared, "/v1/prices/quote", asked)

    assert (status, slug(problem)) == (400, "malformed")
    assert "at most 10 digits" in problem["detail"]


async def test_unpriced_entries_get_their_cost_when_they_are_repriced(shared: Service) -> None:
    model, owner = new_model(), campaign("0.001")
    sent = [used(model, campaign_id=owner["id"]) for _ in range(3)]
    await shared.append(owner, *sent)
    assert (await entry_of(shared, sent[0]))["unpriced"]
    status, problem = await shared.post(follow(sent[0], "cost.adjusted", {"amount": "1", "reason": "x"}))
    assert (status, slug(problem)) == (409, "illegal-transition")
    (receipt,) = await shared.append(published(model))
    of_campaign = {"campaign_id": owner["id"]}

    dry = await post(shared, "/v1/prices/reprice", of_campaign | {"dry_run": True})
    done = await post(shared, "/v1/prices/reprice", of_campaign)
    again = await post(shared, "/v1/prices/reprice", of_campaign)

    assert dry == (200, done[1] | {"position": None})
    assert done[1] == {
        "examined": 3,
        "priced": 3,
        "adjusted": 0,
        "still_unpriced": 0,
        "refused": 0,
        "amounts": {"USD": "0.0084"},
        "next": None,
        "position": receipt["position"] + 3,
    }
    assert (again[1]["examined"], again[1]["position"]) == (0, None)
    entry = await entry_of(shared, sent[0])
    assert (entry["cost"], entry["unpriced"], entry["price_position"]) == ("0.0028", False, receipt["position"])
    assert (await shared.get(f"/v1/campaigns/{owner['id']}"))["spend"] == "0.0084"


async def test_a_back_dated_price_changes_nothing_until_costs_are_adjusted(shared: Service) -> None:
    model, owner = new_model(), campaign()
    sent = used(model, campaign_id=owner["id"])
    await shared.append(owner, published(model), sent)
    (back_dated,) = await shared.append(published(model, "3", "2025-06-01T00:00:00Z"))
    assert (await entry_of(shared, sent))["cost"] == "0.0028"
    asked = {"campaign_id": owner["id"], "adjust": True}

    status, repriced = await post(shared, "/v1/prices/reprice", asked)
    _, again = await post(shared, "/v1/prices/reprice", asked)

    assert (status, repriced["adjusted"], repriced["amounts"]) == (200, 1, {"USD": "0.001"})
    assert again["adjusted"] == 0
    entry = await entry_of(shared, sent)
    assert (entry["cost"], entry["adjusted"]) == ("0.0038", "0.001")
    assert entry["price_position"] == back_dated["position"]


async def test_one_run_reprices_at_a_time_and_another_request_does_not_wait_for_it(shared: Service) -> None:
    asked = {"campaign_id": str(uuid4()), "dry_run": True}
    async with shared.database.connection() as connection, connection.transaction():
        assert await connection.fetchval(TRY_LOCK_REPRICING)
        async with asyncio.timeout(5):
            status, problem = await post(shared, "/v1/prices/reprice", asked)
        assert (status, slug(problem)) == (503, "overloaded")
        assert "another run is repricing" in problem["detail"]

    assert (await post(shared, "/v1/prices/reprice", asked))[0] == 200


async def test_pages_of_unpriced_and_of_priced_entries_continue_each_other(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries_to_reprice, "PAGE_ENTRIES_MAX", 2)
    monkeypatch.setattr(repricing, "PAGE_ENTRIES_MAX", 2)
    model, late, owner = new_model(), new_model(), campaign()
    sent = [used(each, campaign_id=owner["id"]) for each in (model, late, late, model, late)]
    await shared.append(owner, published(model), *sent, published(model, "3", "2025-06-01T00:00:00Z"), published(late))
    asked = {"campaign_id": owner["id"], "adjust": True}

    pages = []
    while not pages or asked["after"] is not None:
        _, page = await post(shared, "/v1/prices/reprice", asked)
        pages.append((page["examined"], page["priced"] + page["adjusted"]))
        asked["after"] = page["next"]

    assert pages == [(2, 2), (2, 2), (1, 1)]
    assert [(await entry_of(shared, each))["cost"] for each in sent] == ["0.0038"] + 2 * ["0.0028"] + [
        "0.0038",
        "0.0028",
    ]


async def test_entries_to_reprice_are_found_by_their_indexes(database: Database) -> None:
    async with database.connection() as connection, connection.transaction():
        await connection.execute(MANY_ENTRIES)
        await connection.execute("ANALYZE budget_entries")
        for statement, index in ((UNPRICED_ENTRIES, "unpriced"), (PRICED_ENTRIES, "priced")):
            arguments = (None, None, None, UUID(int=0), 500)
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *arguments))
            assert f"budget_entries_{index}_idx" in plan, plan


async def test_unpriced_entries_can_be_listed(shared: Service) -> None:
    model, owner = new_model(), campaign()
    priced, late = (used(each, campaign_id=owner["id"]) for each in (model, new_model()))
    await shared.append(owner, published(model), priced, late)
    query = {"campaign_id": owner["id"]}

    async def listed(value: str) -> list[str]:
        return [row["id"] for row in (await shared.get("/v1/budget-entries", unpriced=value, **query))["items"]]

    assert await listed("true") == [late["id"]]
    assert await listed("false") == [priced["id"]]
    for value in ("1", "True", "null", "true,false", ""):
        async with shared.client.get("/v1/budget-entries", params={"unpriced": value}) as answer:
            assert answer.status == 400, value


@pytest.mark.parametrize("is_priced", [False, True])
async def test_a_run_that_read_the_entries_before_another_one_changes_nothing(
    shared: Service, monkeypatch: pytest.MonkeyPatch, is_priced: bool
) -> None:
    model, owner = new_model(), campaign()
    sent = used(model, campaign_id=owner["id"])
    await shared.append(owner, *([published(model)] if is_priced else []), sent)
    await shared.append(published(model, "3", "2025-06-01T00:00:00Z"))
    await entry_of(shared, sent)
    selection = Selection(True, UUID(owner["id"]), None, None, None)
    async with (
        Database(shared.database_url) as database,
        open_appender(database) as appender,
        database.connection() as connection,
    ):
        stale = await read_entries(connection, selection)

        async def read_before(*_: object) -> Any:
            return stale

        monkeypatch.setattr(repricing, "read_entries", read_before)

        async def run() -> Repriced:
            cache = PriceCache()
            return await reprice_page(connection, appender, cache, selection, actor="local", dry_run=False)

        first, same = await run(), await run()
        await shared.append(published(model, "5", "2025-07-01T00:00:00Z"))
        other = await run()
    monkeypatch.undo()

    assert [(run.priced + run.adjusted, run.refused) for run in (first, same, other)] == [(1, 0), (0, 1), (0, 1)]
    assert (await entry_of(shared, sent))["cost"] == "0.0038"
    _, fresh = await post(shared, "/v1/prices/reprice", {"campaign_id": owner["id"], "adjust": True})
    assert fresh["amounts"] == {"USD": "0.002"}
    assert (await verify(shared.database, lambda difference: None)).faults == []


async def test_a_cost_too_large_for_an_amount_is_refused_and_not_counted_as_unpriced(shared: Service) -> None:
    model, owner = new_model(), campaign()
    usage = {"input_tokens": 10**12}
    sent = [used(model, campaign_id=owner["id"], usage=usage), used(new_model(), campaign_id=owner["id"])]
    await shared.append(owner, *sent, published(model, "9999999999"))
    of_campaign = {"campaign_id": owner["id"]}

    dry = await post(shared, "/v1/prices/reprice", of_campaign | {"dry_run": True})
    done = await post(shared, "/v1/prices/reprice", of_campaign)

    assert dry == (200, done[1] | {"position": None})
    counts = {name: done[1][name] for name in ("examined", "priced", "still_unpriced", "refused")}
    assert counts == {"examined": 2, "priced": 0, "still_unpriced": 1, "refused": 1}


async def test_a_dry_run_refuses_what_repricing_refuses(shared: Service) -> None:
    model, owner = new_model(), campaign()
    calls = [used(model, campaign_id=owner["id"]) for _ in range(2)]
    paid_back = follow(calls[0], "cost.adjusted", {"amount": "-0.0028", "reason": "a refund"})
    await shared.append(owner, published(model), *calls, paid_back, published(model, "1", "2025-06-01T00:00:00Z"))
    asked = {"campaign_id": owner["id"], "adjust": True}

    dry = await post(shared, "/v1/prices/reprice", asked | {"dry_run": True})
    done = await post(shared, "/v1/prices/reprice", asked)

    assert dry == (200, done[1] | {"position": None})
    assert (done[1]["adjusted"], done[1]["refused"], done[1]["amounts"]) == (1, 1, {"USD": "-0.001"})


async def test_a_price_of_one_process_counts_at_once_in_another(shared: Service) -> None:
    model = new_model()
    await shared.append(published(model), used(model))
    listener = listen("127.0.0.1", 0)

    async with Database(shared.database_url) as database, serving(database, listener, with_worker=False):
        port = listener.getsockname()[1]
        other = f"http://127.0.0.1:{port}/v1/events"
        positions = []
        for rate in ("3", "4", "5"):
            async with shared.client.post(other, json=published(model, rate)) as answer:
                positions.append((await answer.json())["position"])
            sent = used(model)
            await shared.append(sent)
            positions.append((await entry_of(shared, sent))["price_position"])

    assert positions[::2] == positions[1::2]


async def test_each_cost_of_the_largest_batch_uses_the_price_before_it(shared: Service) -> None:
    model = new_model()
    rates = range(1, REQUEST_EVENTS_MAX // 2 + 1)
    usage = {"input_tokens": 10**6}

    await shared.append(*(each for rate in rates for each in (published(model, str(rate)), used(model, usage=usage))))

    statement = "SELECT data ->> 'cost', position - (data ->> 'price')::bigint FROM ledger.cost_events WHERE "
    async with Database(shared.database_url) as database:
        stored = await query(database, statement + "data ->> 'model_used' = $1 ORDER BY position", model)
    assert stored == [(str(rate), 1) for rate in rates]


@pytest.mark.direct
async def test_verify_finds_a_tampered_price_and_a_tampered_cost(service: Service) -> None:
    hold = used("m", "cost.reserved")
    late = used("late")
    await service.append(published("m"), used("m"), hold, follow(hold, "cost.settled", {"usage": USAGE}), late)
    await service.append(published("late"))
    await post(service, "/v1/prices/reprice", {})
    poor = campaign("0.001")
    await service.append(poor)
    assert (await service.post(used("m", "cost.reserved", campaign_id=poor["id"])))[0] == 402
    await service.get("/v1/prices")

    async def faults() -> list[str]:
        return (await verify(service.database, lambda difference: None)).faults

    assert await faults() == []
    for position, old, new in (
        (2, "0.0028", "0.0027"),
        (7, "0.0028", "0.002"),
        (6, '"late"', '"other"'),
        (9, "0.0028", "0.0029"),
    ):
        async with Database(service.database_url) as owner, owner.connection() as connection:
            await connection.execute("SET session_replication_role = replica")
            change = "UPDATE ledger.events SET data = replace(data::text, $2, $3)::json WHERE position = $1"
            await connection.execute(change, position, old, new)
            found = [fault for fault in await faults() if "price" in fault]
            assert found, (position, await faults())
            await connection.execute(change, position, new, old)
    assert await faults() == []


@pytest.mark.parametrize(
    ("role", "campaign_ids", "status"),
    [
        ("viewer", None, 403),
        ("agent", None, 403),
        ("manager", None, 201),
        ("admin", None, 201),
        ("manager", [uuid4()], 403),
        ("admin", [uuid4()], 403),
    ],
)
async def test_only_unrestricted_managers_and_admins_publish_prices_and_reprice(
    database: Database, role: str, campaign_ids: list[UUID] | None, status: int
) -> None:
    header = await key_header(database, "someone", role, campaign_ids=campaign_ids)

    async with served(database) as url, aiohttp.ClientSession(url, headers=header) as client:
        async with client.post("/v1/events", json=published("m")) as answer:
            detail = await answer.text()
            assert answer.status == status, detail
            assert ("restricted to certain campaigns" in detail) == (campaign_ids is not None)
        async with client.post("/v1/prices/reprice", json={}) as answer:
            assert answer.status == (403 if status == 403 else 200)
        quote = {"provider": "openai", "model_used": "m", "usage": USAGE}
        async with client.post("/v1/prices/quote", json=quote) as answer:
            assert answer.status == (422 if status == 403 else 200)
