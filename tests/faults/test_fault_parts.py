"""The proxy whose connections can be cut, and the disk that can be filled."""

import asyncio
import errno
from pathlib import Path

import pytest

from ledger.bench.faults.disk import Disk, reason_unavailable
from ledger.bench.faults.proxy import Proxy


async def test_the_proxy_forwards_bytes_drops_responses_and_cuts_connections() -> None:
    received: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            received.append(line)
            writer.write(line)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy(lambda: server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"first\n")
        answers = [await reader.readline()]
        cutting = asyncio.create_task(proxy.cut_responses(0.2))
        await asyncio.sleep(0)
        writer.write(b"second\n")
        answers.append(await reader.readline())
        await cutting
        writer.close()

        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"third\n")
        answers.append(await reader.readline())
        writer.close()
    server.close()

    assert received == [b"first\n", b"second\n", b"third\n"]
    assert answers == [b"first\n", b"", b"third\n"]


def test_a_full_disk_accepts_no_more_bytes_until_it_is_freed(tmp_path: Path) -> None:
    if reason := reason_unavailable():
        pytest.skip(f"NOT TESTED: {reason}")
    disk = Disk(tmp_path / "disk")
    file = tmp_path / "disk" / "file"
    try:
        file.write_bytes(b"1" * 100_000)
        disk.fill()
        with pytest.raises(OSError) as full, file.open("ab") as appended:
            appended.write(b"2" * 100_000)
        disk.free()
        file.write_bytes(b"3" * 200_000)
        size = file.stat().st_size
    finally:
        disk.unmount()

    assert (full.value.errno, size) == (errno.ENOSPC, 200_000)
    assert list((tmp_path / "disk").iterdir()) == []
