"""Graceful shutdown on SIGTERM: accepted requests are answered, the worker finishes its page."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import URL

from ledger.database import Database
from tests.api.hostile import raw_connections, request
from tests.cli.helpers import started
from tests.events import campaign, cost, job
from tests.log.helpers import connected, head_locked, query, record, until, value

REQUESTS = 20


@pytest.mark.direct
async def test_requests_accepted_before_sigterm_are_recorded_as_a_group_and_answered(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    opened = campaign("1000")
    async with started(tmp_path, "serve", "--no-auth", "--port", "0", database=database_url) as running:
        url = await running.url()
        async with aiohttp.ClientSession(url) as client, raw_connections(url, 2) as (idle, keeps):
            await keeps.send(request("GET", "/healthz"))
            assert (await keeps.answer()).status == 200

            async def post(sent: dict[str, Any]) -> tuple[int, Any]:
                async with client.post("/v1/events", json=sent) as answer:
                    return answer.status, await answer.json()

            assert (await post(opened))[0] == 201
            async with head_locked(database_url) as appends_wait:
                posts = [asyncio.create_task(post(cost("1", campaign_id=opened["id"]))) for _ in range(REQUESTS)]
                await appends_wait(1)
                # The first request waits for the lock, the others wait for its group to be committed.
                await asyncio.sleep(0.5)
                running.process.send_signal(signal.SIGTERM)
                await running.line("Stopping")
                await asyncio.sleep(0.5)
                assert running.process.returncode is None
                assert not any(task.done() for task in posts)
            answers = await asyncio.gather(*posts)
            closed = [await idle.is_closed(15), await keeps.is_closed(15)]
        code = await asyncio.wait_for(running.process.wait(), 30)

    assert code == 0
    assert {status for status, _ in answers} == {201}
    positions = sorted(answer["position"] for _, answer in answers)
    assert positions == list(range(2, REQUESTS + 2))
    assert await query(database, "SELECT spent FROM ledger.accounts") == [(REQUESTS,)]
    assert closed == [True, True]
    assert "Traceback" not in running.errors.read_text()


@pytest.mark.direct
async def test_a_worker_stopped_in_the_middle_of_a_page_finishes_the_page(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    await record(database, *(job() for _ in range(50)))
    async with connected(database_url) as holder, started(tmp_path, "worker", database=database_url) as running:
        async with holder.transaction():
            # The lock blocks writes to the table: the page is folded, and its transaction waits.
            await holder.execute("LOCK TABLE public.agent_jobs IN SHARE MODE")
            await running.line("The worker is running")

            async def waits() -> bool:
                return bool(
                    await value(
                        database,
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND wait_event_type = 'Lock' AND query ILIKE '%agent_jobs%'",
                    )
                )

            await until(waits)
            running.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert running.process.returncode is None
        code = await asyncio.wait_for(running.process.wait(), 30)

    assert code == 0
    assert await value(database, "SELECT count(*) FROM public.agent_jobs") == 50
    assert "Traceback" not in running.errors.read_text()
