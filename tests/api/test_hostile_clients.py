"""Slow, endless and lying clients: a real `ledger serve` keeps serving others, within bounded memory."""

import asyncio
import gzip
import json
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import psutil
import pytest
from sqlalchemy import URL

from ledger.api import client_connections
from ledger.api.app import listen, serving
from ledger.api.client_connections import HEAD_SECONDS_MAX
from ledger.api.request_bodies import BODY_SECONDS_MAX
from ledger.database import Database
from ledger.log.request_body import BODY_BYTES_MAX
from tests.api.hostile import ANSWER_SECONDS_MAX, RawConnection, raw_connections, request, response_to, slowest_read
from tests.cli.helpers import Running, started
from tests.conftest import Service
from tests.events import cost, job
from tests.log.helpers import record

MIB = 1024 * 1024
RSS_BYTES_MAX = 300 * MIB
SLOW_CLIENTS = 1_000
CLOSING_SECONDS = 15.0
"""Allowance after a timeout: aiohttp reads on for a while, and the machine may be busy."""

POST = "Content-Type: application/json"


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Raise the open-file limit of this process to its hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Served:
    """A service in another process."""

    def __init__(self, running: Running, url: str) -> None:
        self.running, self.url = running, url

    @property
    def rss(self) -> int:
        return int(psutil.Process(self.running.process.pid).memory_info().rss)

    async def append(self) -> None:
        body = json.dumps(cost()).encode()
        answer = await response_to(
            self.url, request("POST", "/v1/events", POST, f"Content-Length: {len(body)}", body=body)
        )
        assert answer.status == 201, answer


@pytest.fixture
async def served(database_url: URL, tmp_path: Path) -> AsyncIterator[Served]:
    async with started(tmp_path, "serve", "--no-auth", "--port", "0", database=database_url) as running:
        served = Served(running, await running.url())
        await served.append()
        yield served
        assert "Traceback" not in running.errors.read_text()


async def trickle(connection: RawConnection, data: bytes) -> None:
    """Send the data byte by byte, with pauses, until the service closes the connection."""
    with suppress(ConnectionError):
        for byte in data:
            await connection.send(bytes([byte]))
            await asyncio.sleep(1)


async def test_a_thousand_slow_clients_delay_nobody_and_are_disconnected_in_time(served: Served) -> None:
    head = request("GET", "/healthz", "X-Filler: " + "x" * 1_000)
    long_body = request("POST", "/v1/events", POST, "Content-Length: 60000", body=b" " * 1_000)
    chunks = request("POST", "/v1/events", POST, "Transfer-Encoding: chunked", body=b"3e8\r\n" + b" " * 100)
    async with raw_connections(served.url, SLOW_CLIENTS) as connections, asyncio.TaskGroup() as group:
        trickling, half, chunked, idle = (
            connections[:400],
            connections[400:600],
            connections[600:700],
            connections[700:],
        )
        tasks = [group.create_task(trickle(connection, head)) for connection in trickling]
        for batch, sent in ((half, long_body), (chunked, chunks), (idle, request("GET", "/healthz"))):
            for connection in batch:
                await connection.send(sent)
        were_answered = [(await connection.answer()).status for connection in idle]

        worst = await slowest_read(served.url, "/v1/campaigns", 50)
        for _ in range(20):
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await served.append()
        rss = served.rss
        heads = asyncio.gather(*(connection.is_closed(HEAD_SECONDS_MAX + CLOSING_SECONDS) for connection in trickling))
        seconds = BODY_SECONDS_MAX + CLOSING_SECONDS
        bodies = await asyncio.gather(*(connection.answer(seconds) for connection in half + chunked))
        closed = await heads + await asyncio.gather(
            *(connection.is_closed(CLOSING_SECONDS) for connection in half + chunked)
        )
        for task in tasks:
            task.cancel()

    assert were_answered == [200] * len(idle)
    assert worst < ANSWER_SECONDS_MAX
    assert rss < RSS_BYTES_MAX
    assert {(answer.status, answer.problem) for answer in bodies} == {(400, "malformed")}
    assert closed == [True] * 700


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/v1/campaigns?name=" + "x" * 10_000),
        request("GET", "/" + "x" * 100_000),
        request("GET", "/healthz", "X-Long: " + "x" * 10_000),
        request("GET", "/healthz", "X" * 10_000 + ": long"),
        request("GET", "/healthz", *(f"X-{number}: x" for number in range(500))),
        request("GET", "/healthz", "X-Bad: a\x00b"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, this is TLS\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        request("POST", "/v1/events", POST, "Content-Length: -1"),
        request("POST", "/v1/events", POST, "Content-Length: 1e3"),
        request("POST", "/v1/events", POST, "Content-Length: 5", "Content-Length: 6", body=b"hello"),
        request("POST", "/v1/events", POST, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ],
    ids=lambda sent: repr(sent[:40]),
)
async def test_an_unparsable_request_gets_a_problem_and_its_connection_is_closed(shared: Service, sent: bytes) -> None:
    async with raw_connections(str(shared.client._base_url)) as (connection,):
        await connection.send(sent)
        answer = await connection.answer()
        is_closed = await connection.is_closed(5)

    assert (answer.status, answer.problem, is_closed) == (400, "malformed", True)
    assert b"Traceback" not in answer.body
    assert b"xxxx" not in answer.body


async def test_a_wrong_content_length_does_not_turn_the_rest_into_an_event(shared: Service) -> None:
    url, body = str(shared.client._base_url), json.dumps(job()).encode()
    head = await shared.head()

    short = await response_to(url, request("POST", "/v1/events", POST, f"Content-Length: {len(body) - 1}", body=body))
    huge = await response_to(url, request("POST", "/v1/events", POST, f"Content-Length: {2**40}", body=body))
    async with raw_connections(url) as (connection,):
        await connection.send(request("POST", "/v1/events", POST, f"Content-Length: {len(body) + 1}", body=body))

    assert (short.status, short.problem) == (400, "malformed")
    assert (huge.status, huge.problem) == (413, "too-large")
    assert await shared.head() == head


async def endless(url: str) -> tuple[int, int]:
    """Send chunks without end; return the status of the response, and the bytes sent until then."""
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    sent = 0
    async with raw_connections(url) as (connection,):
        await connection.send(request("POST", "/v1/events", POST, "Transfer-Encoding: chunked"))
        answering = asyncio.create_task(connection.answer(60))
        with suppress(ConnectionError):
            while not answering.done():
                await connection.send(chunk)
                sent += 65_536
                await asyncio.sleep(0)
        return (await answering).status, sent


async def test_endless_bodies_and_compression_bombs_are_refused_in_bounded_memory(
    served: Served,
) -> None:
    bomb = gzip.compress(gzip.compress(b" " * 512 * MIB, 1), 1)
    once = gzip.compress(b" " * 256 * MIB, 1)
    headers = (POST, "Content-Encoding: gzip", f"Content-Length: {len(once)}")
    worst_rss = served.rss

    async def watch() -> None:
        nonlocal worst_rss
        while True:
            worst_rss = max(worst_rss, served.rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    streams = asyncio.gather(*(endless(served.url) for _ in range(20)))
    waited = await slowest_read(served.url, "/healthz", 20)
    statuses, sizes = zip(*await streams, strict=True)
    bombs = await asyncio.gather(
        *(response_to(served.url, request("POST", "/v1/events", *headers), once) for _ in range(20))
    )
    twice = await response_to(
        served.url, request("POST", "/v1/events", *headers[:2], f"Content-Length: {len(bomb)}"), bomb
    )
    watching.cancel()
    await served.append()

    # 503 if the total of all bodies exceeds its limit first.
    assert set(statuses) <= {413, 503}
    assert 413 in statuses
    assert {answer.status for answer in bombs} <= {413, 503}
    assert twice.status in (400, 413)
    assert max(sizes) < 4 * BODY_BYTES_MAX
    assert waited < ANSWER_SECONDS_MAX
    assert worst_rss < RSS_BYTES_MAX


async def test_a_connection_over_the_limit_gets_503_with_retry_after(database_url: URL, tmp_path: Path) -> None:
    most = {"LEDGER_CONNECTIONS_MAX": "30"}
    async with (
        started(tmp_path, "serve", "--no-auth", "--port", "0", database=database_url, **most) as running,
        raw_connections(await running.url(), 30) as connections,
    ):
        url = running.output.split("The ledger is at ")[1].split()[0]
        half = request("POST", "/v1/events", POST, "Content-Length: 60000", body=b" ")
        for connection in connections[1:]:
            await connection.send(half)
        await connections[0].send(request("GET", "/healthz"))
        within = await connections[0].answer()
        async with raw_connections(url, 20) as more:
            await more[0].send(request("GET", "/healthz"))
            refused = [await connection.answer() for connection in more]
            closed = [await connection.is_closed(5) for connection in more]
        await connections[0].send(request("GET", "/metrics"))
        metrics = (await connections[0].answer()).body.decode()
        connections[1].close()

        async def is_taken() -> bool:
            return (await response_to(url, request("GET", "/healthz"))).status == 200

        async with asyncio.timeout(5):
            while not await is_taken():
                await asyncio.sleep(0.05)

    assert within.status == 200
    assert {(answer.status, answer.problem, answer.headers["retry-after"]) for answer in refused} == {
        (503, "overloaded", "1")
    }
    assert closed == [True] * 20
    assert "ledger_connections 30.0" in metrics
    assert "ledger_connections_turned_away_total 20.0" in metrics


async def test_a_client_that_does_not_read_is_disconnected_and_a_slow_one_is_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_connections, "READ_SECONDS_MAX", 1.0)
    await record(database, *(job(input_data={"text": "x" * 900_000}) for _ in range(12)))
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # Compressed, the jobs would fit into the buffers of the sockets.
    headers = {"Accept": "application/x-ndjson", "Accept-Encoding": "identity"}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(database, listener, with_worker=False))
        client = await stack.enter_async_context(aiohttp.ClientSession(url, read_bufsize=4_096, headers=headers))
        deaf = await stack.enter_async_context(client.get("/v1/events"))
        slow = await stack.enter_async_context(client.get("/v1/events"))
        lines = 0
        async for part in slow.content.iter_chunked(262_144):
            lines += part.count(b"\n")
            await asyncio.sleep(0.05)
        await asyncio.sleep(3)
        with pytest.raises(aiohttp.ClientError):
            await deaf.content.read()

    assert lines == 12
