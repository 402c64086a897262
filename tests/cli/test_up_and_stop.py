"""`ledger up`: start, graceful stop, and recovery after it or its PostgreSQL was killed under load."""

import asyncio
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from click.testing import CliRunner

from ledger.cli.main import main
from ledger.config import parse_url
from ledger.database import Database
from tests.cli.helpers import Running, get, key_of, ledger, postgres_of, remove, started
from tests.events import campaign, cost, follow, job
from tests.log.helpers import query
from tests.projections.helpers import folded, folded_up_to, stored, tables

CLIENTS = 8


async def test_serving_a_network_without_keys_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    serve = ["serve", "--no-auth", "--port", "0", "--home", str(home)]

    answers = [CliRunner().invoke(main, [*serve, "--host", host]) for host in ("0.0.0.0", "::", "192.0.2.1")]
    answers.append(CliRunner().invoke(main, serve, env={"LEDGER_HOST": "example.org"}))

    assert [answer.exit_code for answer in answers] == [2] * 4
    assert all("--no-auth" in answer.output for answer in answers)
    assert not home.exists()


async def test_a_port_in_use_is_reported_with_the_next_step(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        result = await ledger("up", "--port", str(port), "--home", tmp_path / "home")

    assert result.code == 1
    assert f"127.0.0.1:{port}" in result.err
    assert "--port" in result.err
    assert not (tmp_path / "home" / "postgres").exists()


async def test_a_stop_also_stops_postgresql_and_the_next_start_continues_with_the_data(
    home: Path, tmp_path: Path
) -> None:
    up = ["up", "--demo", "--port", "0", "--home", home]
    async with started(tmp_path, *up) as first:
        url = await first.url()
        before = await get(f"{url}/v1/campaigns", home, min_position=(await get(f"{url}/v1/events", home))["head"])
        ran = postgres_of(home)
        codes = [await first.stop(signal.SIGTERM)]
    stopped = [postgres_of(home)]

    async with started(tmp_path, *up) as second:
        after = await get(f"{await second.url()}/v1/campaigns", home)
        codes.append(await second.stop(signal.SIGINT))
    stopped.append(postgres_of(home))

    assert ran is not None
    assert (codes, stopped) == ([0, 0], [None, None])
    assert len(before["items"]) == 3
    assert after == before
    assert "Sample data: already there." in second.output
    assert "Traceback" not in first.errors.read_text()


class Load:
    """Clients that post as fast as they are answered, and the receipts they got."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = f"{url}/v1/events"
        self.key = key_of(home)
        self.opened = campaign("1000000")
        self.acknowledged: list[dict[str, Any]] = []

    async def open(self) -> None:
        async with aiohttp.ClientSession(headers=self.key) as client, client.post(self.url, json=self.opened) as answer:
            assert answer.status == 201

    async def client(self) -> None:
        with suppress(aiohttp.ClientError, ConnectionError):
            async with aiohttp.ClientSession(headers=self.key) as session:
                while True:
                    queued = job(self.opened["id"])
                    batch = [queued, follow(queued, "job.started"), cost("1", agent_job_id=queued["id"])]
                    async with session.post(self.url, json=batch) as answer:
                        if answer.status != 201:
                            return
                        self.acknowledged += (await answer.json())["events"]

    async def until(self, number: int) -> None:
        async with asyncio.timeout(30):
            while len(self.acknowledged) < number:
                await asyncio.sleep(0.005)


async def under_load(running: Running, home: Path, victim: str, number: int) -> tuple[list[dict[str, Any]], int]:
    """Post from many clients, and meanwhile send the victim a signal.

    Args:
        running: the service.
        home: its home.
        victim: "service" or "postgres".
        number: the signal.

    Returns:
        the receipts of the clients, and the exit code of the service.
    """
    load = Load(await running.url(), home)
    await load.open()
    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(load.client())
        await load.until(300)
        if victim == "postgres":
            postmaster = postgres_of(home)
            assert postmaster is not None
            psutil.Process(postmaster).send_signal(number)
            # The backends end too; the service refuses what it cannot record, and is then stopped.
            psutil.Process(postmaster).wait(30)
            code = await running.stop()
        else:
            code = await running.stop(number)
    return load.acknowledged, code


@pytest.mark.parametrize(
    ("victim", "number", "exit_code"),
    [("service", signal.SIGKILL, -signal.SIGKILL), ("service", signal.SIGTERM, 0), ("postgres", signal.SIGKILL, 0)],
)
async def test_after_a_kill_under_load_every_acknowledged_event_is_there_once_and_tables_match_the_log(
    home: Path, tmp_path: Path, victim: str, number: int, exit_code: int
) -> None:
    up = ["up", "--port", "0", "--home", home]
    async with started(tmp_path, *up) as first:
        acknowledged, code = await under_load(first, home, victim, number)

    async with started(tmp_path, *up) as second:
        database = Database(parse_url("DATABASE_URL", await second.line("DATABASE_URL=")))
        await second.url()
        events = await stored(database)
        await folded_up_to(database, len(events))
        found = await tables(database)
        balances = await query(database, "SELECT spent, held FROM ledger.accounts WHERE scope = 'campaign'")
        await database.close()

    assert code == exit_code
    assert len(acknowledged) >= 300
    recorded = {str(event.id): event.position for event in events}
    assert {receipt["id"]: receipt["position"] for receipt in acknowledged}.items() <= recorded.items()
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    assert len(recorded) == len(events)
    kinds = [event.type for event in events]
    assert kinds.count("job.queued") == kinds.count("job.started") == kinds.count("cost.recorded")
    assert balances == [(kinds.count("cost.recorded"), 0)]
    assert found == folded(events)


async def test_a_stop_during_the_start_leaves_no_postgresql_running(used_home: Path, tmp_path: Path) -> None:
    async def stopped_after(seconds: float, *, is_new: bool = False) -> tuple[int, int | None, str]:
        folder = tmp_path / f"{seconds}-{is_new}"
        folder.mkdir()
        home = folder / "home"
        if not is_new:
            subprocess.run(["cp", "-a", used_home, home], check=True)
        try:
            async with started(folder, "up", "--port", "0", "--home", home) as running:
                await asyncio.sleep(seconds)
                code = await running.stop()
                return code, postgres_of(home), running.errors.read_text()
        finally:
            remove(home)

    ended = await asyncio.gather(
        *(stopped_after(seconds) for seconds in (0.5, 0.9, 1.3, 1.7, 2.2)), stopped_after(1.5, is_new=True)
    )

    assert [postgres for _, postgres, _ in ended] == [None] * len(ended)
    assert {code for code, _, _ in ended} <= {0, 128 + signal.SIGTERM, -signal.SIGTERM}
    assert not any("Traceback" in errors for _, _, errors in ended)
