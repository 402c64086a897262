"""The sealed log as an operator meets it: keys, checkpoints and refusals of real processes."""

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
RING = "SELECT pg_notify('ledger_log', '')"


async def head_of(client: aiohttp.ClientSession) -> Head | None:
    """The checkpoint that is served; None before the first."""
    async with client.get("/v1/log/checkpoint") as answer:
        if answer.status == 404:
            return None
    return await TileClient(client).head()


async def sealed_at(client: aiohttp.ClientSession, size: int, origin: str = "ledger.local/log") -> Head:
    """Wait until so many events are sealed."""

    async def is_sealed() -> Head | None:
        head = await head_of(client)
        return head if head is not None and (head.size, head.origin) == (size, origin) else None

    found: Head = await until(is_sealed)
    return found


async def test_a_killed_sealer_leaves_nothing_that_the_next_one_cannot_go_on_from(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    seen: list[Head] = []
    chance = random.Random()
    given: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}
    async with (
        started(tmp_path, "up", "--port", "0", **given) as up,
        aiohttp.ClientSession(await up.url(), headers=key_of(Path(given["LEDGER_HOME"]))) as client,
    ):
        await record(database, cost())
        await sealed_at(client, 1)
        await up.stop()

    async def write() -> None:
        while True:
            await record(database, *(cost() for _ in range(50)))
            await asyncio.sleep(0.02)

    async with (
        started(tmp_path, "serve", "--no-auth", "--port", "0", **given) as server,
        aiohttp.ClientSession(await server.url()) as client,
    ):
        writer = asyncio.create_task(write())
        for _ in range(KILLS):
            async with started(tmp_path, "worker", **given) as worker:
                await worker.line("The worker is running")
                await asyncio.sleep(chance.uniform(0, 1.2))
                await worker.stop(signal.SIGKILL)
            seen += [found for found in [await head_of(client)] if found is not None]
        writer.cancel()
        async with started(tmp_path, "worker", **given) as worker:
            head = await sealed_at(client, await value(database, "SELECT position FROM ledger.log_head"))
            await worker.stop()
        entries = await TileClient(client).walk(head, tuple(seen))
        async with client.get("/v1/log/key") as answer:
            vkey = await answer.text()

    assert entries == await entries_of(database)
    assert head.root == naive.root(naive.leaf_hashes(entries))
    assert open_checkpoint((home / "checkpoint").read_bytes(), vkey) == head


async def test_a_rollback_is_told_by_every_verb_and_accepted_while_the_service_runs(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    given: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}
    accept = ("audit", "accept-rollback", "--reason", "the disk was lost")
    async with (
        started(tmp_path, "up", "--port", "0", **given) as up,
        aiohttp.ClientSession(await up.url(), headers=key_of(Path(given["LEDGER_HOME"]))) as client,
    ):
        async with client.post("/v1/events", json=[cost() for _ in range(9)]) as answer:
            assert answer.status == 201
        await sealed_at(client, 9)
        too_early, clean = await asyncio.gather(ledger(*accept, **given), ledger("verify", **given))
        key = (home / "log.key").read_text()
        await delete_after(database, 7)
        await query(database, RING)

        async def is_refused() -> bool:
            async with client.get("/readyz") as answer:
                return answer.status == 503 and "are missing" in (await answer.json())["sealer"]

        await until(is_refused)
        verbs = ("status", "doctor", "verify")
        told = dict(zip(verbs, await asyncio.gather(*(ledger(verb, **given) for verb in verbs)), strict=True))
        accepted = await ledger(*accept, "--json", **given)
        head = await sealed_at(client, 8, "ledger.local/log/2")
        await TileClient(client).walk(head)
        async with client.get("/readyz") as answer:
            sealer = (await answer.json())["sealer"]
        await up.stop()

    assert (too_early.code, "does not refuse" in too_early.err) == (1, True)
    assert clean.code == 0
    assert {verb: said.code for verb, said in told.items()} == {"status": 0, "doctor": 1, "verify": 1}
    assert all("9 events" in said.out or "but 9 were signed" in said.out for said in told.values())
    assert "NOT SEALED" in told["status"].out
    assert "NOT SEALED" in up.errors.read_text()
    assert accepted.code == 0, accepted.err
    assert json.loads(accepted.out)["size"] == 9
    assert sealer == "ok"
    secret = key.strip().split("+", 4)[4]
    said = [
        up.said,
        up.errors.read_text(),
        *(part for one in (too_early, clean, accepted, *told.values()) for part in one[1:]),
    ]
    assert not any(secret in text for text in said)
    assert (home / "log.key").read_text() == key
    assert (home / "checkpoint.1").read_bytes().splitlines()[1] == b"9"


async def test_the_key_is_made_once_and_a_worker_seals_only_where_it_is(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
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
    for size in (1, 2):
        async with (
            started(tmp_path, "up", "--port", "0", **given) as up,
            aiohttp.ClientSession(await up.url(), headers=key_of(Path(given["LEDGER_HOME"]))) as client,
        ):
            await record(database, cost())
            await query(database, RING)
            await sealed_at(client, size, "books.example/main")
            await up.stop()
        keys.append((tmp_path / "vault" / "key").read_text())
    async with started(tmp_path, "up", "--port", "0", **elsewhere) as other:
        said = await other.line("The log is sealed elsewhere")
        await other.stop()

    assert not made_by_worker
    assert keys[0] == keys[1]
    assert stat.S_IMODE((tmp_path / "vault" / "key").stat().st_mode) == 0o600
    assert "key is not here" in said
    assert not (tmp_path / "elsewhere" / "log.key").exists()


async def test_after_a_reset_the_next_log_goes_by_another_name(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    given: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}
    names = []
    for name in ("ledger.local/log", "ledger.local/log/2", "ledger.local/log/3"):
        async with (
            started(tmp_path, "up", "--port", "0", **given) as up,
            aiohttp.ClientSession(await up.url(), headers=key_of(Path(given["LEDGER_HOME"]))) as client,
        ):
            names.append((await sealed_at(client, 0, name)).origin)
            await up.stop()
        if name.endswith("/2"):
            # Whatever the home has lost, the database knows the name that was used.
            (home / "checkpoint").unlink()
            (home / "checkpoint.1").unlink()
        await database.close()
        assert (await ledger("reset", "--yes", **given)).code == 0

    assert names == ["ledger.local/log", "ledger.local/log/2", "ledger.local/log/3"]


async def test_a_damaged_key_file_is_named_by_whatever_needs_it(database_url: URL, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "log.key").write_text("PRIVATE+KEY+secret-thing")
    given: dict[str, Any] = {"database": database_url, "LEDGER_HOME": str(home)}

    verbs = (("verify",), ("up", "--port", "0"), ("worker",))
    answers = await asyncio.gather(*(ledger(*verb, **given) for verb in verbs))

    for said in answers:
        assert said.code == 1
        assert "log.key" in said.err
        assert "secret-thing" not in said.err + said.out
        assert "Traceback" not in said.err
