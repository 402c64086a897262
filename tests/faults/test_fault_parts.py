"""The parts that strike: the wire that can be cut, the disk that can be full."""

import asyncio
import errno
from pathlib import Path

import pytest

from ledger.faults.disk import Disk, why_not
from ledger.faults.proxy import Proxy


async def test_the_wire_passes_bytes_loses_answers_and_is_cut() -> None:
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(line)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy(lambda: server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"first\n")
        answers = [await reader.readline()]
        losing = asyncio.create_task(proxy.cut_answers(0.2))
        await asyncio.sleep(0)
        writer.write(b"second\n")
        answers.append(await reader.readline())
        await losing
        writer.close()

        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"third\n")
        answers.append(await reader.readline())
        writer.close()
    server.close()

    assert heard == [b"first\n", b"second\n", b"third\n"]
    assert answers == [b"first\n", b"", b"third\n"]


def test_the_disk_takes_nothing_more_while_it_is_full(tmp_path: Path) -> None:
    if why := why_not():
        pytest.skip(f"NOT TESTED: {why}")
    disk = Disk(tmp_path / "disk")
    file = tmp_path / "disk" / "file"
    try:
        file.write_bytes(b"1" * 100_000)
        disk.fill()
        with pytest.raises(OSError) as full, file.open("ab") as more:
            more.write(b"2" * 100_000)
        disk.free()
        file.write_bytes(b"3" * 200_000)
        size = file.stat().st_size
    finally:
        disk.unmount()

    assert (full.value.errno, size) == (errno.ENOSPC, 200_000)
    assert list((tmp_path / "disk").iterdir()) == []
