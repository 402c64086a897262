"""Reads that compete with appends: responses are counted, abandoned requests are repeated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledger.bench.errors import MeasurementError
from ledger.bench.read_load_process import Reads, competing_reads

KEY = "a key"


class Server:
    """An HTTP server that counts requests and closed connections."""

    def __init__(self, response: bytes) -> None:
        self.heads: list[bytes] = []
        self.abandoned = 0
        self._response = response

    async def respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the head of a request; respond, or wait until the client closes the connection."""
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        if self._response:
            writer.write(self._response)
        elif await reader.read() == b"":
            self.abandoned += 1
        writer.close()


@asynccontextmanager
async def served(response: bytes) -> AsyncIterator[tuple[Server, str]]:
    """Run a server with this response; none if it is empty."""
    server = Server(response)
    async with await asyncio.start_server(server.respond, "127.0.0.1", 0) as listening:
        yield server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def until_requests(server: Server, count: int) -> None:
    """Wait until the server has received as many requests."""
    async with asyncio.timeout(30):
        while len(server.heads) < count:
            await asyncio.sleep(0.01)


async def test_each_connection_reads_again_and_the_responses_are_counted(tmp_path: Path) -> None:
    reads = Reads("items", 3, "/items", KEY, accept="text/csv")

    async with (
        served(b"HTTP/1.1 200 OK\r\n\r\none,two") as (server, url),
        competing_reads(url, reads, tmp_path) as found,
    ):
        await until_requests(server, 30)

    assert 27 <= found[200] <= len(server.heads)
    assert set(found) == {200}
    assert server.heads[0].startswith(b"GET /items HTTP/1.1\r\n")
    assert b"Authorization: Bearer a key\r\n" in server.heads[0]
    assert b"Accept: text/csv\r\n" in server.heads[0]


async def test_abandoned_requests_are_sent_at_once_each_second(tmp_path: Path) -> None:
    reads = Reads("items", 5, "/items", KEY, is_abandoned=True)

    async with served(b"") as (server, url), competing_reads(url, reads, tmp_path) as found:
        await until_requests(server, 10)

    assert found == {}
    assert server.abandoned >= 5


async def test_a_client_waits_after_503(tmp_path: Path) -> None:
    async with served(b"HTTP/1.1 503 Busy\r\n\r\n") as (server, url):
        began = asyncio.get_running_loop().time()
        async with competing_reads(url, Reads("items", 1, "/items", KEY), tmp_path) as found:
            await until_requests(server, 3)

    assert asyncio.get_running_loop().time() - began >= 1
    assert found[503] >= 2


async def test_a_request_that_the_service_does_not_serve_fails_the_measurement(tmp_path: Path) -> None:
    async with served(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (server, url):
        with pytest.raises(MeasurementError, match="GET /items was answered 400"):
            async with competing_reads(url, Reads("items", 1, "/items", KEY), tmp_path):
                await until_requests(server, 3)


async def test_a_service_that_cannot_be_reached_fails_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="reading /items failed"):
        async with competing_reads("http://127.0.0.1:9", Reads("items", 1, "/items", KEY), tmp_path):
            pytest.fail("the load has begun without a service")
