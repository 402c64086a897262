"""The fast path of POST /v1/events on a connection: segments, pipelining, order, shutdown."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ledger.api import client_connections
from ledger.api.app import listen, serving
from ledger.api.client_connections import EARLY_BYTES_MAX, ClientConnection
from ledger.database import Database
from ledger.log.appender import Appender
from tests.api.helpers import eventually, log
from tests.api.hostile import RawConnection, raw_connections, request
from tests.api.test_fast_append import comparable, record_taken
from tests.api.test_fast_append_errors import post
from tests.conftest import Service
from tests.events import cost, job


class Gate:
    """Holds back the verdicts of the appender until it is opened."""

    def __init__(self) -> None:
        self.submitted = 0
        self._is_open = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        self._is_open.set()

    def hold_back(self, answer: "asyncio.Future[Any]") -> "asyncio.Future[Any]":
        held: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def pass_on() -> None:
            await self._is_open.wait()
            held.set_result(await answer)

        self.submitted += 1
        task = asyncio.create_task(pass_on())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return held


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate for all appends of the test."""
    gate, submit = Gate(), Appender.submit
    monkeypatch.setattr(Appender, "submit", lambda self, request: gate.hold_back(submit(self, request)))
    return gate


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The results of `FastAppend.take`."""
    return record_taken(monkeypatch)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[ClientConnection]:
    """The connections that the service has accepted in the test."""
    connections: list[ClientConnection] = []
    made = ClientConnection.connection_made

    def recorded(self: ClientConnection, transport: asyncio.BaseTransport) -> None:
        connections.append(self)
        made(self, transport)

    monkeypatch.setattr(ClientConnection, "connection_made", recorded)
    return connections


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[RawConnection]:
    async with raw_connections(str(service.client._base_url)) as (connection,):
        yield connection


async def is_true(condition: Any) -> None:
    """Wait until a condition without awaits is true."""

    async def check() -> bool:
        return bool(condition())

    await eventually(check)


async def test_a_request_cut_at_any_byte_has_the_same_response(
    shared: Service, monkeypatch: pytest.MonkeyPatch, taken: list[bool]
) -> None:
    sent = post(cost(), "X-Request-ID: a")
    received = ClientConnection.data_received
    async with connected(shared) as connection:
        await connection.send(sent)
        assert (await connection.answer()).status == 201
        await connection.send(sent)
        whole = await connection.answer()
        for place in range(1, len(sent)):

            def cut(self: ClientConnection, data: bytes, place: int = place) -> None:
                received(self, data[:place])
                received(self, data[place:])

            with monkeypatch.context() as patch:
                patch.setattr(ClientConnection, "data_received", cut)
                await connection.send(sent)
                assert comparable(await connection.answer()) == comparable(whole), place
        taken.clear()
        for _ in range(2):
            await connection.send(sent)
            assert comparable(await connection.answer()) == comparable(whole)

    assert whole.status == 200
    # aiohttp's parser is known to hold nothing only after a request that it got whole.
    assert taken == [True]


async def test_pipelined_requests_are_answered_in_order(shared: Service, taken: list[bool]) -> None:
    events = [cost() for _ in range(40)]
    async with connected(shared) as connection:
        await connection.send(post(events[0]) + request("GET", "/healthz") + b"".join(map(post, events[1:])))
        answers = [await connection.answer() for _ in range(41)]

    health = answers.pop(1)
    assert health.status == 200
    assert [json.loads(answer.body)["events"][0]["id"] for answer in answers] == [event["id"] for event in events]
    assert True not in taken


async def test_a_request_followed_by_the_start_of_another_is_answered_before_its_end(shared: Service) -> None:
    first, second = cost(), cost()
    for place in (1, 10, 30, 60, len(post(second)) - 1):
        first, second = cost(), cost()
        async with connected(shared) as connection:
            await connection.send(post(first) + post(second)[:place])
            assert json.loads((await connection.answer()).body)["events"][0]["id"] == first["id"]
            await connection.send(post(second)[place:])
            assert json.loads((await connection.answer()).body)["events"][0]["id"] == second["id"]


@pytest.mark.parametrize(
    "start",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ",
        b"POST /v1/events HTTP/1.1\r\nX-A: b\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n "
        % (1 + len(post(job()))),
        b"G",
    ],
    ids=repr,
)
async def test_data_that_continues_a_started_request_is_not_a_request(
    shared: Service, taken: list[bool], start: bytes
) -> None:
    """aiohttp's parser holds the start of a request that was sent while another one was handled."""
    smuggled = job()
    async with connected(shared) as connection:
        await connection.send(request("GET", "/healthz") + start)
        assert (await connection.answer()).status == 200
        await connection.send(post(smuggled))
        assert (await connection.answer()).status == 400

    assert True not in taken
    assert await log(shared, stream_id=smuggled["id"]) == []


async def test_responses_keep_the_order_of_fast_and_ordinary_requests(
    shared: Service, gate: Gate, taken: list[bool]
) -> None:
    body = json.dumps(cost()).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    independent = request("POST", "/v1/events?mode=independent", *headers, body=body)
    async with connected(shared) as connection:
        await connection.send(independent)
        await is_true(lambda: gate.submitted == 1)
        await connection.send(post(cost()))
        await asyncio.sleep(0.05)
        assert gate.submitted == 1
        gate.open()
        answers = [json.loads((await connection.answer()).body) for _ in range(2)]
        assert ["results" in answers[0], "events" in answers[1]] == [True, True]
        assert True not in taken

        await connection.send(post(cost()))
        await connection.answer()
        await connection.send(post(cost()))
        await connection.send(request("GET", "/healthz"))
        assert (await connection.answer()).status == 201
        assert (await connection.answer()).status == 200

    assert True in taken


async def test_what_arrives_before_the_response_is_answered_after_it(
    shared: Service, gate: Gate, taken: list[bool]
) -> None:
    events = [cost() for _ in range(20)]
    async with connected(shared) as connection:
        await connection.send(post(events[0]))
        await is_true(lambda: gate.submitted == 1)
        for event in events[1:]:
            await connection.send(post(event))
        await asyncio.sleep(0.05)
        assert gate.submitted == 1
        gate.open()
        answers = [json.loads((await connection.answer()).body) for _ in events]

    assert [answer["events"][0]["id"] for answer in answers] == [event["id"] for event in events]
    assert taken[0] is True


async def test_early_bytes_are_bounded_and_none_is_lost(
    shared: Service, gate: Gate, opened: list[ClientConnection]
) -> None:
    event = cost(description="x" * 400)
    pipelined = 20_000
    async with connected(shared) as connection:
        await connection.send(post(event))
        await is_true(lambda: gate.submitted == 1)
        sending = asyncio.create_task(connection.send(post(event) * pipelined))
        (served,) = opened
        assert served.transport is not None
        transport: Any = served.transport
        await is_true(lambda: not transport.is_reading())
        await asyncio.sleep(0.05)
        held = len(served._early)
        assert not sending.done()
        gate.open()
        statuses = [(await connection.answer()).status for _ in range(100)]
        sending.cancel()

    # The last read of a transport adds at most 256 KiB.
    assert EARLY_BYTES_MAX < held <= EARLY_BYTES_MAX + 256 * 1024
    assert statuses == [201] + [200] * 99


async def test_a_connection_that_pipelines_thousands_of_requests_does_not_keep_others_waiting(shared: Service) -> None:
    event = cost()
    async with connected(shared) as greedy, connected(shared) as modest:
        answered = 0

        async def count_answers() -> None:
            nonlocal answered
            for _ in range(2_000):
                await greedy.answer(60)
                answered += 1

        counting = asyncio.create_task(count_answers())
        sending = asyncio.create_task(greedy.send(post(event) * 2_000))
        await is_true(lambda: answered > 0)
        for _ in range(5):
            await modest.send(post(cost()))
            assert (await modest.answer()).status == 201
        answered_before = answered
        await asyncio.gather(counting, sending)

    assert answered_before < 2_000


async def test_an_append_is_recorded_and_counted_once_if_its_client_disconnects(
    service: Service, gate: Gate, opened: list[ClientConnection], caplog: pytest.LogCaptureFixture
) -> None:
    event = job()
    async with connected(service) as connection:
        await connection.send(post(event))
        await is_true(lambda: gate.submitted == 1)
        await connection.send(post(job()))
        connection.close()
        await is_true(lambda: opened[0].transport is None)
    gate.open()

    async def metric() -> bool:
        async with service.client.get("/metrics") as answer:
            return 'ledger_requests_total{method="POST",route="/v1/events",status="201"} 1.0' in await answer.text()

    await eventually(metric)
    assert len(await log(service)) == 1
    assert (await log(service, stream_id=event["id"]))[0]["type"] == "job.queued"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_does_not_read_is_left_to_aiohttp(
    shared: Service, taken: list[bool], opened: list[ClientConnection]
) -> None:
    """aiohttp waits for the client; the fast path would add one response after the other to the buffer."""
    async with connected(shared) as connection:
        await connection.send(post(cost()))
        await connection.answer()
        opened[0].pause_writing()
        await connection.send(post(cost()))
        await is_true(lambda: opened[0]._drain_waiter is not None)
        opened[0].resume_writing()
        assert (await connection.answer()).status == 201

    assert taken == [True]


async def test_a_connection_is_closed_after_its_keep_alive_time(
    shared: Service, monkeypatch: pytest.MonkeyPatch, opened: list[ClientConnection]
) -> None:
    monkeypatch.setattr(client_connections, "KEEPALIVE_SECONDS", 0.2)
    async with connected(shared) as connection:
        for _ in range(3):
            await connection.send(post(cost()))
            assert (await connection.answer()).status == 201
        idle_seconds = opened[0].idle_seconds()
        assert idle_seconds is not None
        assert idle_seconds >= 0
        assert await connection.is_closed(10)


async def test_a_fast_append_in_progress_is_not_idle(
    shared: Service, gate: Gate, opened: list[ClientConnection]
) -> None:
    async with connected(shared) as connection:
        await connection.send(post(cost()))
        await is_true(lambda: gate.submitted == 1)
        assert opened[0].idle_seconds() is None
        gate.open()
        await connection.answer()


async def test_on_shutdown_fast_appends_are_answered_and_later_requests_are_not(database: Database, gate: Gate) -> None:
    listener = listen("127.0.0.1", 0)
    service = serving(database, listener, with_worker=False)
    async with raw_connections(f"http://127.0.0.1:{listener.getsockname()[1]}", 3) as connections:
        await service.__aenter__()
        for connection in connections:
            await connection.send(post(cost()))
        await is_true(lambda: gate.submitted == 3)
        stopping = asyncio.create_task(service.__aexit__(None, None, None))
        await asyncio.sleep(0.1)
        await connections[0].send(post(cost()))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        gate.open()
        statuses = [(await connection.answer()).status for connection in connections]
        closed = [await connection.is_closed(10) for connection in connections]
        await stopping

    assert statuses == [201] * 3
    assert closed == [True] * 3
    assert gate.submitted == 3
