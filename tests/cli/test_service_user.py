"""Service user in DATABASE_URL, owner in DIRECT_DATABASE_URL: each command connects as the right one."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import URL

from tests.cli.helpers import key_of, ledger, plain, started
from tests.conftest import administer, as_service
from tests.events import campaign, cost, reserve
from tests.log.helpers import connected, until

# The tests depend on the users in the URLs; poolers are tested elsewhere.
pytestmark = pytest.mark.direct

IS_RUNNING = "The worker is running"
IS_MISSING = "the database user lacks a privilege"


@pytest.fixture
async def outsider(server_url: URL, database_url: URL) -> AsyncIterator[URL]:
    """A user without any granted privilege."""
    name = f"outsider_{uuid.uuid4().hex[:8]}"
    await administer(server_url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield database_url.set(username=name, password="secret")
    await administer(server_url, f"DROP ROLE {name}")


async def test_server_and_worker_work_as_the_service_user(service_url: URL, database_url: URL, tmp_path: Path) -> None:
    opened = campaign("10")
    created = await ledger("keys", "create", "agents", "--role", "admin", "--json", database=service_url)
    key = {"Authorization": f"Bearer {json.loads(created.out)['key']}"}
    events = [opened, reserve("4", campaign_id=opened["id"], expires_in=1), cost("3", campaign_id=opened["id"])]
    async with (
        started(tmp_path, "serve", "--port", "0", database=service_url) as server,
        started(tmp_path, "worker", "--home", tmp_path / "home", database=service_url) as worker,
        aiohttp.ClientSession(await server.url(), headers=key) as client,
    ):
        await worker.line(IS_RUNNING)
        async with client.post("/v1/events", json=events) as answer:
            status, body = answer.status, await answer.json()

        async def the_hold_has_expired() -> bool:
            async with client.get(f"/v1/campaigns/{opened['id']}") as answer:
                return answer.status == 200 and (await answer.json())["held"] == "0"

        await until(the_hold_has_expired)
        async with client.get(
            f"/v1/campaigns/{opened['id']}", params={"as_of": str(body["events"][1]["position"])}
        ) as answer:
            as_of = await answer.json()
        async with client.get("/readyz") as answer:
            ready = answer.status
        codes = [await worker.stop(), await server.stop()]

    assert (status, ready, codes) == (201, 200, [0, 0]), body
    assert as_of["held"] == "4"


async def test_the_service_commands_do_not_need_the_owner(service_url: URL) -> None:
    commands = [
        ["keys", "list"],
        ["seed"],
        ["events", "append"],
        ["events", "tail"],
        ["status"],
        ["projections", "retry", "read_models"],
    ]

    answers = [
        await ledger(*command, database=service_url, stdin=json.dumps(campaign()).encode()) for command in commands
    ]

    assert [(result.code, result.err) for result in answers] == [(0, "")] * len(commands)


async def test_the_owner_commands_use_the_direct_url(service_url: URL, database_url: URL, tmp_path: Path) -> None:
    await ledger("seed", database=service_url)
    commands = ["migrate", "verify", "rebuild", "replay --until 1 --schema as_it_was", "reset --yes", "migrate"]

    answers = [
        await ledger(
            *command.split(), database=service_url, DIRECT_DATABASE_URL=plain(database_url), LEDGER_HOME=str(tmp_path)
        )
        for command in commands
    ]
    seeded_again = await ledger("seed", database=service_url)

    assert [result.code for result in answers] == [0] * len(commands), answers
    assert seeded_again.code == 0, seeded_again.err


async def test_the_owner_commands_explain_that_the_service_user_lacks_privileges(
    service_url: URL, tmp_path: Path
) -> None:
    commands = ["replay --until 0 --schema as_it_was", "reset --yes"]

    answers = [await ledger(*command.split(), database=service_url, LEDGER_HOME=str(tmp_path)) for command in commands]

    for result in answers:
        assert result.code == 1
        assert IS_MISSING in result.err
        assert "DIRECT_DATABASE_URL" in result.err
        assert "Traceback" not in result.err


async def test_a_user_without_privileges_learns_which_role_it_lacks(outsider: URL) -> None:
    served, doctor = await asyncio.gather(
        ledger("serve", "--port", "0", database=outsider), ledger("doctor", database=outsider)
    )

    assert (served.code, doctor.code) == (1, 1)
    assert "must be a member of ledger_service" in served.err
    assert f'GRANT ledger_service TO "{outsider.username}"' in doctor.out
    assert "Traceback" not in served.err + doctor.err


async def test_doctor_warns_of_a_superuser_and_of_an_owner_but_accepts_the_service_user(
    service_url: URL, database_url: URL, outsider: URL, server_url: URL
) -> None:
    await administer(server_url, f"GRANT ledger_owner TO {outsider.username}")

    answers = await asyncio.gather(
        *(ledger("doctor", "--json", database=url) for url in (database_url, outsider, service_url))
    )

    assert [result.code for result in answers] == [0, 0, 0], answers
    users = [{check["name"]: check for check in json.loads(result.out)}["user"] for result in answers]
    assert [user["verdict"] for user in users] == ["warning", "warning", "ok"]
    assert "is a superuser" in users[0]["says"]
    assert "is the owner of the tables" in users[1]["says"]
    for user in users[:2]:
        assert "CREATE ROLE app LOGIN PASSWORD '…' IN ROLE ledger_service" in user["says"]


async def test_up_migrates_as_the_owner_and_serves_as_the_service_user(
    empty_database_url: URL, service_user: tuple[str, str], tmp_path: Path
) -> None:
    app = as_service(empty_database_url, service_user)
    settings = {"DIRECT_DATABASE_URL": plain(empty_database_url)}
    home = tmp_path / "home"
    async with started(tmp_path, "up", "--demo", "--port", "0", "--home", home, database=app, **settings) as running:
        url = await running.url()
        async with connected(empty_database_url) as watcher:
            users = {
                row[0]
                for row in await watcher.fetch(
                    "SELECT usename FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            }
        async with (
            aiohttp.ClientSession(url, headers=key_of(home)) as client,
            client.get("/v1/campaigns?min_position=1") as answer,
        ):
            shown = len((await answer.json())["items"])

        async def is_sealed() -> bool:
            async with connected(empty_database_url) as watcher:
                return bool(await watcher.fetchval("SELECT size > 20 FROM ledger.log_checkpoint"))

        await until(is_sealed)
        code = await running.stop()

    assert (users, shown, code) == ({app.username}, 3, 0)
