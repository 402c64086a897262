"""Random requests get the same verdicts from the pipeline as one by one from the locked path."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded, Refused
from ledger.domain.event import Receipt, Request
from ledger.domain.judge import Verdict
from ledger.log import resident_state
from ledger.log.append import append
from ledger.log.appender import Appender
from tests.conftest import administer, url_for_test
from tests.log.helpers import query, turns
from tests.log.log_checks import check_positions, check_resident_state
from tests.log.random_requests import RandomRequests

NOW = datetime(2026, 1, 1, tzinfo=UTC)

STORED = [
    """
    SELECT event.stream_id, event.version, event.type, event.actor, event.over_budget,
        regexp_replace(event.data::text, '"price":[0-9]+', '"price":0'), price.stream_id, price.version
    FROM ledger.events AS event
    LEFT JOIN ledger.price_events AS price ON price.position = (event.data ->> 'price')::bigint
    ORDER BY event.stream_id, event.version
    """,
    "SELECT * FROM ledger.accounts ORDER BY account_id, scope",
    "SELECT * FROM ledger.holds ORDER BY stream_id",
    "SELECT stream_id, version, state::text FROM ledger.streams ORDER BY stream_id, category",
    "SELECT stream_id, version, state::text FROM ledger.entries ORDER BY stream_id",
]
"""Everything but positions, and ids that are derived from them: a group records its denials after its other events."""


@pytest.fixture
async def other_database(request: pytest.FixtureRequest, server_url: URL, template: str) -> AsyncIterator[Database]:
    """A second database, for the locked path."""
    name = f"other_{uuid.uuid4().hex[:12]}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    async with Database(url_for_test(server_url, request).set(database=name)) as database:
        yield database
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def without_position(answer: Receipt | Refused) -> tuple[Any, ...]:
    if isinstance(answer, Receipt):
        return answer.id, answer.stream_id, answer.version, answer.duplicate, answer.over_budget
    return type(answer), answer.index, answer.scopes if isinstance(answer, BudgetExceeded) else None


async def through_pipeline(appender: Appender, requests: Sequence[Request], random: Random) -> list[Verdict]:
    """Send requests in order; now and then, wait for a moment or for an answer, so that groups of all sizes form."""
    answers: list[asyncio.Future[Verdict]] = []
    for request in requests:
        answers.append(appender.submit(request))
        match random.randrange(6):
            case 0:
                await turns(random.randrange(20))
            case 1:
                await random.choice(answers)
    return await asyncio.gather(*answers)


async def through_locked_path(database: Database, requests: Sequence[Request]) -> list[Verdict]:
    async with database.connection() as connection:
        return [(await append(connection, [request], NOW))[0][0] for request in requests]


@pytest.mark.parametrize("is_small", [False, True])
async def test_the_pipeline_answers_as_the_locked_path_does(
    database: Database, other_database: Database, monkeypatch: pytest.MonkeyPatch, is_small: bool
) -> None:
    """With a small working state it is dropped often, and identities are forgotten at once."""
    if is_small:
        monkeypatch.setattr(resident_state, "STATES_MAX", 12)
        monkeypatch.setattr(resident_state, "IDENTITIES_KEPT", 0)
    for seed in range(6):
        drawn = RandomRequests(seed)
        requests = [drawn.next() for _ in range(80)]

        async with Appender(database, clock=lambda: NOW) as appender:
            verdicts = await through_pipeline(appender, requests, Random(seed))
            await check_resident_state(database, appender)
        expected = await through_locked_path(other_database, requests)

        for verdict, expected_verdict in zip(verdicts, expected, strict=True):
            assert list(map(without_position, verdict)) == list(map(without_position, expected_verdict))
    for statement in STORED:
        assert await query(database, statement) == await query(other_database, statement)
    priced = "SELECT DISTINCT type FROM ledger.events WHERE data ->> 'price' IS NOT NULL"
    assert {type_ for (type_,) in await query(database, priced)} >= {"cost.recorded", "cost.reserved", "cost.settled"}
    await check_positions(database)
