"""The sealed log from the command line: keys, checkpoints, refusals, `ledger audit accept-rollback`."""

import asyncio
import json
import random
import signal
import stat
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import URL

from ledger.database import Database
from tests.audit import naive
from tests.audit.sealing import delete_after, entries_of
from tests.audit.tlog_client import Head, TileClient, open_checkpoint
from tests.cli.helpers import key_of, ledger, started
from tests.events import cost
from tests.log.helpers import query, record, until, value

KILLS = 2
NOTIFY = "SELECT pg_notify('ledger_log', '')"


async def head_of(client: aiohttp.ClientSession) -> Head | None:
    """Return the checkpoint that is served; None before the first."""
    async with client.get("/v1/log/checkpoint") as answer:
        if answer.status == 404:
            return None
    return await TileClient(client).head()


async def sealed_at(client: aiohttp.ClientSession, size: int, origin: str = "ledger.local/log") -> Head:
    """Wait until `size` events are sealed; return that checkpoint."""

    async def is_sealed() -> Head | None:
        head = await head_of(client)
        return head if head is not None and (head.size, head.origin) == (size, origin) else None

    sealed: Head = await until(is_sealed)
    return sealed


async def test_after_a_sealer_is_killed_the_next_one_continues_its_log(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    seen: list[Head] = []
    chance = random.Random()
    settings: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}
    async with (
        started(tmp_path, "up", "--port", "0", **settings) as up,
        aiohttp.ClientSession(await up.url(), headers=key_of(Path(settings["LEDGER_HOME"]))) as client,
    ):
        await record(database, cost())
        # The first event is that of the admin key.
        await sealed_at(client, 2)
        await up.stop()

    async def write() -> None:
        while True:
            await record(database, *(cost() for _ in range(50)))
            await asyncio.sleep(0.02)

    async with (
        started(tmp_path, "serve", "--no-auth", "--port", "0", **settings) as server,
        aiohttp.ClientSession(await server.url()) as client,
    ):
        writer = asyncio.create_task(write())
        for _ in range(KILLS):
            async with started(tmp_path, "worker", **settings) as worker:
                await worker.line("The worker is running")
                await asyncio.sleep(chance.uniform(0, 1.2))
                await worker.stop(signal.SIGKILL)
            seen += [found for found in [await head_of(client)] if found is not None]
        writer.cancel()
        async with started(tmp_path, "worker", **settings) as worker:
            head = await sealed_at(client, await value(database, "SELECT position FROM ledger.log_head"))
            await worker.stop()
        entries = await TileClient(client).walk(head, tuple(seen))
        async with client.get("/v1/log/key") as answer:
            vkey = await answer.text()

    assert entries == await entries_of(database)
    assert head.root == naive.root(naive.leaf_hashes(entries))
    assert open_checkpoint((home / "checkpoint").read_bytes(), vkey) == head


async def test_every_command_reports_a_rollback_and_it_can_be_accepted_while_the_service_runs(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    settings: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}
    accept = ("audit", "accept-rollback", "--reason", "the disk was lost")
    async with (
        started(tmp_path, "up", "--port", "0", **settings) as up,
        aiohttp.ClientSession(await up.url(), headers=key_of(Path(settings["LEDGER_HOME"]))) as client,
    ):
        async with client.post("/v1/events", json=[cost() for _ in range(9)]) as answer:
            assert answer.status == 201
        await sealed_at(client, 10)
        too_early, clean = await asyncio.gather(ledger(*accept, **settings), ledger("verify", **settings))
        key = (home / "log.key").read_text()
        await delete_after(database, 7)
        await query(database, NOTIFY)

        async def is_refused() -> bool:
            async with client.get("/readyz") as answer:
                return answer.status == 503 and "are missing" in (await answer.json())["sealer"]

        await until(is_refused)
        commands = ("status", "doctor", "verify")
        reports = dict(
            zip(commands, await asyncio.gather(*(ledger(command, **settings) for command in commands)), strict=True)
        )
        accepted = await ledger(*accept, "--json", **settings)
        head = await sealed_at(client, 8, "ledger.local/log/2")
        await TileClient(client).walk(head)
        async with client.get("/readyz") as answer:
            sealer = (await answer.json())["sealer"]
        await up.stop()

    assert (too_early.code, "does not refuse" in too_early.err) == (1, True)
    assert clean.code == 0
    assert {command: result.code for command, result in reports.items()} == {"status": 0, "doctor": 1, "verify": 1}
    assert all("10 events" in result.out or "but 10 were signed" in result.out for result in reports.values())
    assert "NOT SEALED" in reports["status"].out
    assert "NOT SEALED" in up.errors.read_text()
    assert accepted.code == 0, accepted.err
    assert json.loads(accepted.out)["size"] == 10
    assert sealer == "ok"
    secret = key.strip().split("+", 4)[4]
    outputs = [
        up.output,
        up.errors.read_text(),
        *(part for one in (too_early, clean, accepted, *reports.values()) for part in one[1:]),
    ]
    assert not any(secret in text for text in outputs)
    assert (home / "log.key").read_text() == key
    assert (home / "checkpoint.1").read_bytes().splitlines()[1] == b"10"


async def test_the_key_is_created_once_and_a_worker_without_it_does_not_seal(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "database": database_url,
        "LEDGER_HOME": str(tmp_path / "home"),
        "LEDGER_LOG_KEY": str(tmp_path / "vault" / "key"),
        "LEDGER_LOG_ORIGIN": "books.example/main",
    }
    elsewhere = {"database": database_url, "LEDGER_HOME": str(tmp_path / "elsewhere")}
    async with started(tmp_path, "worker", **elsewhere) as worker:
        await worker.line("The worker is running")
        await worker.stop()
    made_by_worker = (tmp_path / "elsewhere" / "log.key").exists()
    keys = []
    for size in (2, 3):
        async with (
            started(tmp_path, "up", "--port", "0", **settings) as up,
            aiohttp.ClientSession(await up.url(), headers=key_of(Path(settings["LEDGER_HOME"]))) as client,
        ):
            await record(database, cost())
            await query(database, NOTIFY)
            await sealed_at(client, size, "books.example/main")
            await up.stop()
        keys.append((tmp_path / "vault" / "key").read_text())
    async with started(tmp_path, "up", "--port", "0", **elsewhere) as other:
        rest_of_line = await other.line("This process does not seal the log")
        await other.stop()

    assert not made_by_worker
    assert keys[0] == keys[1]
    assert stat.S_IMODE((tmp_path / "vault" / "key").stat().st_mode) == 0o600
    assert "it has no signing key" in rest_of_line
    assert not (tmp_path / "elsewhere" / "log.key").exists()


async def test_after_a_reset_the_next_log_has_another_origin(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    settings: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}
    names = []
    for name in ("ledger.local/log", "ledger.local/log/2", "ledger.local/log/3"):
        async with (
            started(tmp_path, "up", "--port", "0", **settings) as up,
            aiohttp.ClientSession(await up.url(), headers=key_of(Path(settings["LEDGER_HOME"]))) as client,
        ):
            names.append((await sealed_at(client, 1, name)).origin)
            await up.stop()
        if name.endswith("/2"):
            # Even if the home has lost its files, the database knows the origin that was used.
            (home / "checkpoint").unlink()
            (home / "checkpoint.1").unlink()
        await database.close()
        assert (await ledger("reset", "--yes", **settings)).code == 0

    assert names == ["ledger.local/log", "ledger.local/log/2", "ledger.local/log/3"]


async def test_every_command_that_needs_the_key_names_a_damaged_key_file(database_url: URL, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "log.key").write_text("PRIVATE+KEY+secret-thing")
    settings: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}

    commands = (("verify",), ("up", "--port", "0"), ("worker",))
    answers = await asyncio.gather(*(ledger(*command, **settings) for command in commands))

    for result in answers:
        assert result.code == 1
        assert "log.key" in result.err
        assert "secret-thing" not in result.err + result.out
        assert "Traceback" not in result.err
