"""The migration that stores entry states: equal to the folds, also beside the previous release."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import IllegalTransition
from ledger.domain.event import Request
from ledger.log.append import append
from ledger.log.appender import Appender
from ledger.log.entry_states import EntryEvent, fold_events, to_stored
from tests.events import campaign, cost, follow, reserve
from tests.log.helpers import candidate, connected, query, request
from tests.migrations.helpers import run_alembic
from tests.projections.helpers import NEWER_TYPES, NOON, append_requests, expiry_request, sample_history
from tests.projections.replaying import fold_everything, verified

pytestmark = pytest.mark.direct

BEFORE_FORMAT_1 = "0004"
BEFORE_FORMAT_2 = "0014"

AMOUNTS = ("0.0000000001", "0.0000001", "1", "10", "2.5", "100", "9999999999.9999999999")


def random_entry(choose: random.Random, campaign_id: str, *, is_plain: bool) -> list[dict[str, Any] | Request]:
    """The events of an entry that ends in any status, with any number of adjustments.

    Args:
        choose: makes the choices.
        campaign_id: the campaign of some of the entries.
        is_plain: whether the first release can read the events.
    """

    def amount() -> str:
        return choose.choice(AMOUNTS)

    def tokens() -> dict[str, Any]:
        return choose.choice(({}, {"tokens_used": choose.randrange(10**12)}))

    def said() -> dict[str, Any]:
        named = choose.choice(({}, {"provider": "openai", "model_used": "gpt"}, {"model_used": ""}))
        if is_plain:
            return named
        return {
            **named,
            **choose.choice(({}, {"service_tier": "batch"})),
            **choose.choice(({}, {"labels": {"team": "growth"}}, {"labels": {"a": "b", "team": "ops"}})),
            **choose.choice(({}, {"usage": {"input_tokens": choose.randrange(10**12), "output_tokens": 7}})),
        }

    reference = choose.choice(({}, {"campaign_id": campaign_id}, {"currency": "EUR"})) | said()
    if choose.random() < 0.3:
        opened = cost(amount(), **tokens(), **reference)
        events: list[dict[str, Any] | Request] = [opened]
    else:
        opened = reserve(amount(), expires_in=choose.choice((1, 60, 86_400, None)), **reference)
        events = [opened]
        end = choose.choice(("open", "released", "expired", "settled"))
        if end == "released":
            events.append(follow(opened, "cost.released"))
        elif end == "expired":
            events.append(expiry_request(opened))
        if end != "open" and choose.random() < 0.7:
            events.append(follow(opened, "cost.settled", {"cost": amount(), **tokens(), **said()}))
        else:
            return events
    for _ in range(choose.choice((0, 1, 2, 30))):
        correction = {"amount": amount(), "reason": "More", **tokens()}
        events.append(follow(opened, "cost.adjusted", correction))
        if choose.random() < 0.5:
            events.append(follow(opened, "cost.adjusted", correction | {"amount": f"-{correction['amount']}"}))
    return events


async def append_random_entries(database: Database, seed: int, *, is_plain: bool) -> None:
    """Append entries whose events are apart by any number of microseconds, up to days."""
    choose = random.Random(seed)
    opened = campaign("1")
    now = NOON + timedelta(days=1)
    async with database.connection() as connection:
        await append(connection, [request(opened)], now)
        for _ in range(60):
            for event in random_entry(choose, opened["id"], is_plain=is_plain):
                now += timedelta(microseconds=choose.choice((0, 1, 10, 123_456, 10**6, 10**9)))
                if isinstance(event, Request):
                    # An expiry, which must be due.
                    now += timedelta(days=1)
                await append(connection, [event if isinstance(event, Request) else request(event)], now)


STATES = "SELECT stream_id, version, state::text FROM ledger.entries"
EVENTS = """
SELECT stream_id, version, type, schema_version, data::text, text::text, campaign_id, agent_job_id, recorded_at
FROM ledger.cost_events ORDER BY position
"""


async def stored_states(database: Database) -> dict[UUID, tuple[int, list[Any]]]:
    rows = await query(database, STATES)
    return {stream_id: (version, msgspec.json.decode(state)) for stream_id, version, state in rows}


async def folded_states(database: Database) -> dict[UUID, tuple[int, list[Any]]]:
    """The states of all entries with more than one event, folded from the log."""
    streams: dict[UUID, list[EntryEvent]] = {}
    for row in await query(database, EVENTS):
        streams.setdefault(row[0], []).append(EntryEvent(*row))
    entries = {stream_id: fold_events(None, events) for stream_id, events in streams.items() if len(events) > 1}
    return {
        stream_id: (entry.version, msgspec.json.decode(msgspec.json.encode(to_stored(entry))))
        for stream_id, entry in entries.items()
        if entry is not None
    }


@pytest.mark.parametrize("before", [BEFORE_FORMAT_1, BEFORE_FORMAT_2])
@pytest.mark.parametrize("seed", range(2))
async def test_the_backfill_equals_the_fold_and_what_appends_store(
    database: Database, database_url: URL, seed: int, before: str
) -> None:
    if before == BEFORE_FORMAT_1:
        await append_requests(database, sample_history(without=NEWER_TYPES))
    await append_random_entries(database, seed, is_plain=before == BEFORE_FORMAT_1)
    appended = await stored_states(database)
    statuses = {state[1] for _, state in appended.values()}

    await run_alembic(database_url, "downgrade", before)
    at_older = await stored_states(database) if before == BEFORE_FORMAT_2 else {}
    await run_alembic(database_url, "upgrade", "head")

    assert statuses == {"settled", "released", "expired"}
    assert at_older in ({}, {key: (version, [1, *state[1:8]]) for key, (version, state) in appended.items()})
    assert await stored_states(database) == appended == await folded_states(database)
    await fold_everything(database)
    assert (await verified(database))[1] == set()


STORED_BY_PREVIOUS = """
INSERT INTO ledger.entries VALUES ($1, 3, '[1,"settled",null,null,"4",6,"0",null]')
ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version, state = excluded.state
"""

PREVIOUS_STORE = """
WITH head AS (
    UPDATE ledger.log_head SET position = position + 1, recorded_at = greatest(recorded_at, clock_timestamp())
    RETURNING position, recorded_at
), account AS (
    UPDATE ledger.accounts SET spent = spent + $4::text::numeric, held = held + $5::text::numeric
), hold AS (
    DELETE FROM ledger.holds WHERE stream_id = $1
)
INSERT INTO ledger.events (position, category, stream_id, version, id, type, schema_version, occurred_at, recorded_at,
    actor, campaign_id, agent_job_id, data, size)
SELECT head.position, 'cost', $1, last.version + 1, gen_random_uuid(), $2, 1, head.recorded_at, head.recorded_at,
    'previous', last.campaign_id, last.agent_job_id, $3::text::json, length($3)
FROM head, (SELECT * FROM ledger.cost_events WHERE stream_id = $1 ORDER BY version DESC LIMIT 1) AS last
"""


async def append_as_previous_release(url: URL, opened: dict[str, Any], type_: str, data: str, *money: str) -> Any:
    """Append an event of a budget entry with the functions and tables of the previous release; return what it loads.

    Args:
        url: of the database.
        opened: the event that opened the entry.
        type_: of the event.
        data: of the event, as stored.
        money: by how much the event changes what is spent and held.
    """
    async with connected(url) as connection, connection.transaction():
        loaded = await connection.fetchrow(
            "SELECT * FROM ledger.lock_and_load('{}', '{}', $1, '{}', NULL)", [UUID(opened["id"])]
        )
        await connection.execute(PREVIOUS_STORE, UUID(opened["id"]), type_, data, *money)
    return loaded


@pytest.fixture(params=["running", "started"])
async def append_one(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Any]:
    """Appends an event by an appender that keeps states in memory, or by a new one for each event."""
    running = Appender(database)
    async with running:

        async def append_(event: dict[str, Any]) -> Any:
            if request.param == "running":
                (verdict,) = await running.append(Request([candidate(event)]))
                return verdict
            async with Appender(database) as started:
                (verdict,) = await started.append(Request([candidate(event)]))
            return verdict

        yield append_


async def test_events_of_the_previous_release_are_seen_while_both_append(
    database: Database, database_url: URL, append_one: Any
) -> None:
    opened = campaign("100")
    spent, held = cost("1", campaign_id=opened["id"]), reserve("10", campaign_id=opened["id"])

    def adjusted() -> dict[str, Any]:
        return follow(spent, "cost.adjusted", {"amount": "1", "tokens_used": 1, "reason": "More"})

    for event in (opened, spent, held, adjusted()):
        await append_one(event)
    seen = await append_as_previous_release(
        database_url, spent, "cost.adjusted", '{"amount":"2","tokens_used":5}', "2", "0"
    )
    await query(database, STORED_BY_PREVIOUS, UUID(spent["id"]))
    stored_behind = await query(database, "SELECT version FROM ledger.entries")
    after = await append_one(adjusted())
    await append_as_previous_release(database_url, held, "cost.settled", '{"cost":"7"}', "7", "-10")
    refusal = await append_one(follow(held, "cost.released"))

    assert len(msgspec.json.decode(seen["entries"])) == 2
    assert (stored_behind, after.version) == ([(2,)], 4)
    assert isinstance(refusal, IllegalTransition)
    assert refusal.status == "settled"
    assert await query(database, "SELECT spent, held FROM ledger.accounts") == [(1 + 1 + 2 + 1 + 7, 0)]
    assert (await stored_states(database))[UUID(spent["id"])] == (
        4,
        [2, "settled", opened["id"], None, "5", 7, "0", None, False, False, *[None] * 4, "llm_api", None],
    )
    await fold_everything(database)
    assert (await verified(database))[1] == set()
