"""The fast path of POST /v1/events: the same errors, limits, metrics and log lines as through aiohttp."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import limits
import pytest

from ledger import key_ring
from ledger.api import fast_append, middleware
from ledger.api.connection_limits import ConnectionLimits
from ledger.api.event_decoding import LARGE_EVENTS_MIN
from ledger.api.fast_append import FastAppend
from ledger.api.rate_limits import RateLimits
from ledger.database import Database
from ledger.domain.errors import DatabaseUnavailable, Overloaded
from ledger.log import submit
from ledger.log.append_queue import AppendQueue
from ledger.log.appender import Appender
from ledger.logging_setup import REQUEST_CONTEXT
from tests.api.helpers import count_calls
from tests.api.hostile import Answer, raw_connections, request, response_to
from tests.api.test_fast_append import comparable, record_taken
from tests.api.test_keys import key_header, served
from tests.conftest import Service
from tests.events import campaign, cost, reserve


@pytest.fixture(autouse=True)
def cached_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the keys that were loaded once be used without end: only the first request of a test loads them."""
    monkeypatch.setattr(key_ring, "REFRESH_SECONDS", 1e9)


def post(events: Any, *headers: str) -> bytes:
    """Encode a request."""
    body = json.dumps(events).encode()
    typed = "Content-Type: application/json"
    return request("POST", "/v1/events", typed, *headers, f"Content-Length: {len(body)}", body=body)


async def by_both_ways(url: str, sent: bytes) -> tuple[Answer, Answer]:
    """Send a request; return the responses of the fast path and of aiohttp."""
    with pytest.MonkeyPatch.context() as patch:
        taken = record_taken(patch)
        fast = await response_to(url, sent)
        assert taken == [True]
        patch.setattr(FastAppend, "take", lambda *_: False)
        return fast, await response_to(url, sent)


async def authorization(database: Database, name: str = "agent", role: str = "agent") -> str:
    """Create a key; return its header."""
    return f"Authorization: {(await key_header(database, name, role))['Authorization']}"


class Line(NamedTuple):
    """A record, and the context in which it was logged."""

    level: str
    message: str
    context: dict[str, str] | None


class Lines(logging.Handler):
    """Keeps every record with its context."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(Line(record.levelname, record.getMessage(), REQUEST_CONTEXT.get()))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[list[Line]]:
    """The lines that the API logs; the middleware's at level debug too, but without the line of every request."""
    for module in (middleware, fast_append):
        monkeypatch.setattr(module, "is_access_logged", lambda: False)
    handler = Lines()
    logger = logging.getLogger("ledger.api")
    logger.addHandler(handler)
    with caplog.at_level(logging.DEBUG, middleware.logger.name):
        yield handler.seen
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("error", "status", "levels"),
    [
        (DatabaseUnavailable("the database did not respond; try again"), 503, []),
        # The connection pool has logged the outage once, for all requests.
        (ConnectionRefusedError("secret"), 503, ["DEBUG"]),
        (TimeoutError(), 503, ["DEBUG"]),
        (RuntimeError("secret"), 500, ["ERROR"]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_while_judging_has_the_same_response_and_log_line(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[Line],
    error: Exception,
    status: int,
    levels: list[str],
) -> None:
    def fail(*_: Any) -> "asyncio.Future[Any]":
        answer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(answer.set_exception, error)
        return answer

    monkeypatch.setattr(Appender, "submit", fail)
    key = await authorization(database)
    async with served(database, RateLimits(limits.parse("1000/day"))) as url:
        await response_to(url, request("GET", "/v1/campaigns", key))
        lines.clear()
        fast, ordinary = await by_both_ways(url, post(cost(), key, "X-Request-ID: mine"))

    assert comparable(fast) == comparable(ordinary)
    assert fast.status == status
    assert b"secret" not in fast.body
    assert [line.level for line in lines] == levels * 2
    assert lines[: len(levels)] == lines[len(levels) :]
    assert all(line.context == {"request_id": "mine", "key": "agent"} for line in lines)


async def test_a_full_queue_has_the_same_response(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> "asyncio.Future[Any]":
        raise Overloaded("too many events are waiting to be recorded; retry in 1 s")

    monkeypatch.setattr(Appender, "submit", refuse)
    key = await authorization(database)
    async with served(database, RateLimits(limits.parse("1000/day"))) as url:
        await response_to(url, request("GET", "/v1/campaigns", key))
        fast, ordinary = await by_both_ways(url, post(cost(), key))

    assert comparable(fast) == comparable(ordinary)
    assert (fast.status, fast.problem, fast.headers["retry-after"]) == (503, "overloaded", "1")


async def test_each_request_counts_once_against_the_rate_limit_and_those_over_it_are_not_decoded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await authorization(database)
    decoded = count_calls(monkeypatch, submit, "read_candidate")
    async with served(database, RateLimits(limits.parse("4/day"))) as url, raw_connections(url) as (connection,):
        await response_to(url, request("GET", "/v1/campaigns", key))
        taken = record_taken(monkeypatch)
        answers = []
        for _ in range(5):
            await connection.send(post(cost(), key))
            answers.append(await connection.answer())

    assert [answer.status for answer in answers] == [201, 201, 201, 429, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0", "r=0"]
    assert answers[-1].problem == "rate-limited"
    assert int(answers[-1].headers["retry-after"]) > 0
    assert taken == [True] * 3 + [False] * 2
    assert len(decoded) == 3


async def test_a_key_with_its_share_of_the_connections_gets_503(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await authorization(database)
    original = ConnectionLimits.__init__

    def with_few(self: ConnectionLimits, total: int, *, with_keys: bool) -> None:
        original(self, 40, with_keys=with_keys)

    monkeypatch.setattr(ConnectionLimits, "__init__", with_few)
    async with served(database) as url, raw_connections(url, 25) as connections:
        await connections[0].send(request("GET", "/v1/campaigns", key))
        assert (await connections[0].answer()).status == 200
        taken = record_taken(monkeypatch)
        answers = []
        for connection in connections[1:]:
            await connection.send(post(cost(), key))
            answers.append(await connection.answer())

    assert [answer.status for answer in answers] == [201] * 19 + [503] * 5
    assert taken == [True] * 19 + [False] * 5


async def test_a_batch_with_an_invalid_event_is_decoded_once_by_aiohttp(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding ends at the first error: the event loop is not kept by a batch that aiohttp will decode in slices."""
    decoded = count_calls(monkeypatch, submit, "read_candidate")
    answer = await response_to(str(shared.client._base_url), post([cost("-1"), *(cost() for _ in range(100))]))

    assert (answer.status, len(decoded)) == (422, 1 + 101)


async def test_a_large_batch_of_small_events_is_decoded_in_turns(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = record_taken(monkeypatch)
    statuses = [
        (await response_to(str(shared.client._base_url), post([cost() for _ in range(events)]))).status
        for events in (LARGE_EVENTS_MIN - 1, LARGE_EVENTS_MIN)
    ]

    assert (statuses, taken) == ([201, 201], [True, False])


async def test_a_large_batch_that_the_queue_would_refuse_is_not_decoded(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise Overloaded("too many events are waiting to be recorded; retry in 1 s")

    monkeypatch.setattr(AppendQueue, "require_room", refuse)
    decoded = count_calls(monkeypatch, submit, "read_candidate")
    sent = post([cost() for _ in range(LARGE_EVENTS_MIN)])
    answer = await response_to(str(shared.client._base_url), sent)

    assert (answer.status, answer.problem, len(decoded)) == (503, "overloaded", 0)


async def test_metrics_count_each_request_and_each_refusal_once(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(shared.client._base_url)
    opened = campaign("1")
    sent = [post(opened), post(opened), post(reserve("9", campaign_id=opened["id"])), post(cost(amount="-1"))]

    async def counts() -> dict[str, float]:
        body = (await response_to(url, request("GET", "/metrics"))).body.decode()
        lines = (line.rpartition(" ") for line in body.splitlines() if not line.startswith("#"))
        wanted = ('ledger_requests_total{method="POST"', "ledger_refusals_total")
        return {name: float(value) for name, _, value in lines if name.startswith(wanted)}

    before = await counts()
    taken = record_taken(monkeypatch)
    for data in sent:
        await response_to(url, data)
    after = await counts()

    assert taken[: len(sent)] == [True, True, True, False]
    changes = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert changes == {
        'ledger_requests_total{method="POST",route="/v1/events",status="201"}': 1,
        'ledger_requests_total{method="POST",route="/v1/events",status="200"}': 1,
        'ledger_requests_total{method="POST",route="/v1/events",status="402"}': 1,
        'ledger_requests_total{method="POST",route="/v1/events",status="422"}': 1,
        'ledger_refusals_total{problem="budget-exceeded"}': 1,
    }


async def test_at_level_debug_aiohttp_handles_every_request_and_logs_it(
    shared: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = record_taken(monkeypatch)
    with caplog.at_level(logging.DEBUG, "ledger.api.middleware"):
        await response_to(str(shared.client._base_url), post(cost()))

    assert taken == [False]
    assert [record.message for record in caplog.records if record.name == "ledger.api.middleware"] == ["responded"]
