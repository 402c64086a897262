"""Idempotency-Key: ids that nobody can compute, one key for one content, keys of earlier releases."""

import json
import re
from typing import Any
from uuid import UUID, uuid5

import pytest
from sqlalchemy import text

from ledger.log.idempotency import IdempotencyKey, IdempotencyKeys
from tests.api.helpers import count_calls, send, slug, without
from tests.api.hostile import request, response_to
from tests.conftest import Service
from tests.events import cost, event, job, reserve

FIRST_RELEASE = UUID("6f2a3a3e-5c0e-5b64-9f0c-2f0d6a1f6c11")
"""The namespace of the ids of the first releases."""


def first_release_id(key: str, actor: str = "local", index: int = 0) -> str:
    """Return the id that the first releases derived."""
    return str(uuid5(FIRST_RELEASE, f"{actor}\n{key}\n{index}"))


async def post(service: Service, key: str, events: Any, **parameters: str) -> tuple[int, Any]:
    """Append with an Idempotency-Key."""
    return await send(service, json.dumps(events), headers={"Idempotency-Key": key}, **parameters)


async def execute(service: Service, sql: str) -> None:
    async with service.database.engine.begin() as connection:
        await connection.execute(text(sql))


async def count(service: Service) -> int:
    async with service.database.engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM ledger.idempotency_keys")) or 0)


def test_ids_depend_on_the_secret_the_caller_the_key_and_the_index() -> None:
    keys = [
        IdempotencyKey(secret, actor, key)
        for secret in (b"a" * 32, b"b" * 32)
        for actor in ("x", "y")
        for key in ("k", "l")
    ]
    ids = {key.event_id(index) for key in keys for index in range(3)}

    assert len(ids) == len(keys) * 3
    assert {(event_id.version, event_id.variant) for event_id in ids} == {(8, "specified in RFC 4122")}
    assert keys[0].event_id(1) == keys[0].event_id(1)


async def test_two_processes_of_a_ledger_derive_the_same_ids(shared: Service) -> None:
    one = await IdempotencyKeys(shared.database).load("a", "k")
    other = await IdempotencyKeys(shared.database).load("a", "k")

    assert one.event_id(0) == other.event_id(0)
    assert len(one.secret) == 32


async def test_an_event_of_the_first_release_is_recognised(shared: Service) -> None:
    queued = job()
    settled = {**event("cost.settled", {"cost": "1"}), "stream_id": reserve()["id"]}
    opened = {**reserve(), "id": settled["stream_id"]}
    await shared.append(opened)
    sent = [{**queued, "id": first_release_id("before")}, {**settled, "id": first_release_id("before", index=1)}]
    recorded = await shared.append(*sent)

    status, answer = await post(shared, "before", [without(queued, "id"), without(settled, "id")])
    changed, problem = await post(shared, "before", [without(job(input_data={"a": 1}), "id")])

    assert status == 200
    assert [receipt["id"] for receipt in answer["events"]] == [receipt["id"] for receipt in recorded]
    assert (changed, slug(problem)) == (409, "event-id-conflict")


async def test_an_event_of_another_actor_with_a_computed_id_changes_nothing(shared: Service) -> None:
    await shared.append({**cost(), "id": first_release_id("taken")})
    await execute(shared, "ALTER TABLE ledger.events DISABLE TRIGGER ALL")
    await execute(shared, f"UPDATE ledger.events SET actor = 'mallory' WHERE id = '{first_release_id('taken')}'")
    await execute(shared, "ALTER TABLE ledger.events ENABLE TRIGGER ALL")

    status, answer = await post(shared, "taken", without(cost("2"), "id"))

    assert status == 201
    assert answer["events"][0]["id"] != first_release_id("taken")


async def test_a_key_that_is_used_for_another_stream_is_a_conflict(shared: Service) -> None:
    one, other = reserve(), reserve()
    await shared.append(one, other)
    settled = [without(event("cost.settled", {"cost": "1"}, stream_id=opened["id"]), "id") for opened in (one, other)]

    first, _ = await post(shared, "two streams", settled[0])
    second, problem = await post(shared, "two streams", settled[1])
    again, _ = await post(shared, "two streams", settled[0])

    assert (first, second, again) == (201, 409, 200)
    assert slug(problem) == "event-id-conflict"
    assert "Idempotency-Key" in problem["detail"]


async def test_the_first_event_that_the_key_was_not_used_for_is_named(shared: Service) -> None:
    events = [without(cost(str(number)), "id") for number in range(1, 4)]
    assert (await post(shared, "grows", events[:2]))[0] == 201

    fewer, _ = await post(shared, "grows", events[:1])
    more, problem = await post(shared, "grows", events)
    separately, answer = await post(shared, "grows", events, mode="independent")

    assert (fewer, more, separately) == (200, 409, 200)
    assert problem["index"] == 2
    assert [result.get("duplicate", result.get("status")) for result in answer["results"]] == [True, True, 409]


async def test_events_with_an_id_of_their_own_are_content_too(shared: Service) -> None:
    assert (await post(shared, "own ids", cost()))[0] == 201
    assert (await post(shared, "own ids", cost()))[0] == 409


async def test_a_request_that_was_not_recorded_may_be_repeated_in_another_spelling(shared: Service) -> None:
    queued = without(job(input_data={"a": 1, "b": 2}, campaign_id=cost()["id"]), "id")
    respelt = json.dumps(queued).replace('{"a": 1, "b": 2}', '{"b": 2.0, "a": 1}')

    _, first = await post(shared, "refused", queued)
    _, second = await send(shared, respelt, headers={"Idempotency-Key": "refused"})
    _, other = await post(shared, "refused", without(job(), "id"))

    assert [slug(problem) for problem in (first, second, other)] == [
        "unknown-reference",
        "unknown-reference",
        "event-id-conflict",
    ]


async def test_a_key_is_kept_for_a_day_and_old_ones_are_deleted_in_steps(shared: Service) -> None:
    await execute(shared, "DELETE FROM ledger.idempotency_keys")
    sent = without(cost(), "id")
    await post(shared, "of yesterday", sent)
    old = "sha256(number::text::bytea), '', now() - interval '25 hours' FROM generate_series(1, 25) AS number"
    await execute(shared, f"INSERT INTO ledger.idempotency_keys SELECT {old}")

    left = []
    for key in ("a", "b", "b", "c", "d"):
        await post(shared, f"cleaning {key}", without(cost(amount="3"), "id") | {"correlation_id": cost()["id"]})
        left.append(await count(shared))
    await execute(shared, "UPDATE ledger.idempotency_keys SET first_used_at = now() - interval '25 hours'")
    reused, _ = await post(shared, "of yesterday", [sent, without(cost("9"), "id")])

    assert left == [17, 8, 8, 4, 5]
    assert reused == 201


async def test_no_key_is_stored_in_a_form_that_can_be_read(shared: Service) -> None:
    await post(shared, "a secret key", without(cost(description="a secret text"), "id"))

    async with shared.database.engine.connect() as connection:
        rows = (await connection.execute(text("SELECT key, content FROM ledger.idempotency_keys"))).all()

    assert {len(value) for row in rows for value in row} == {32}
    assert not re.search(b"secret", b"".join(value for row in rows for value in row))


async def test_a_request_without_a_key_claims_nothing_and_one_with_a_key_once(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = count_calls(monkeypatch, IdempotencyKeys, "load")
    claimed = count_calls(monkeypatch, IdempotencyKey, "claim")
    url = str(shared.client._base_url)
    body = json.dumps(without(cost(), "id")).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")

    without_key = await response_to(url, request("POST", "/v1/events", *headers, body=body))
    assert (without_key.status, loaded, claimed) == (201, [], [])
    with_key = request("POST", "/v1/events", "Idempotency-Key: once", *headers, body=body)
    answers = [await response_to(url, with_key) for _ in range(3)]

    assert [answer.status for answer in answers] == [201, 200, 200]
    assert len(claimed) == 3
