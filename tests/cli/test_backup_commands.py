"""`ledger backup`, `restore`, `upgrade-embedded`: the ledger is as it was, and verifies clean."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from ledger.embedded import EmbeddedServer, installed_binaries
from ledger.embedded.account import system_account
from ledger.embedded.cluster import UPGRADED, Cluster
from tests.cli.helpers import CommandResult, ledger, remove
from tests.log.helpers import connected

COST = b'{"type": "cost.recorded", "data": {"resource_type": "other", "cost": "0.01"}}'


async def done(*arguments: str | Path, stdin: bytes = b"") -> CommandResult:
    """Run a command that must succeed."""
    result = await ledger(*arguments, stdin=stdin)
    assert result.code == 0, result.out + result.err
    return result


async def head(home: Path) -> int:
    return int(json.loads((await done("status", "--json", "--home", home)).out)["head"])


async def test_a_backup_is_restored_beside_the_present_database_and_on_a_new_machine(
    home: Path, tmp_path: Path
) -> None:
    dump, wrong, new_home = tmp_path / "ledger.dump", tmp_path / "wrong", tmp_path / "new"
    await done("seed", "--home", home)
    await done("backup", dump, "--home", home)
    await done("events", "append", "--home", home, stdin=COST)
    wrong.write_text("not a dump")

    again = await ledger("backup", dump, "--home", home)
    refused = await ledger("restore", wrong, "--home", home)
    before = await head(home)
    restored = await done("restore", dump, "--home", home)
    try:
        elsewhere = await done("restore", dump, "--home", new_home)
        heads = (before, await head(home), await head(new_home))
    finally:
        remove(new_home)

    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    assert (again.code, "exists already" in again.err) == (1, True)
    assert (refused.code, "pg_restore failed" in refused.err, "Traceback" in refused.err) == (1, True, False)
    assert "is kept as ledger_before_" in restored.out
    assert "is kept" not in elsewhere.out
    assert all("Clean" in result.out for result in (restored, elsewhere))
    assert heads == (29, 28, 28)


async def test_a_dump_of_a_server_with_other_roles_is_restored_with_the_roles_of_a_ledger(
    home: Path, tmp_path: Path
) -> None:
    dump, new_home = tmp_path / "ledger.dump", tmp_path / "new"
    await done("seed", "--home", home)
    with EmbeddedServer.acquire(home) as server:
        async with connected(make_url(server.url).set(drivername="postgresql+asyncpg")) as connection:
            await connection.execute(
                "CREATE ROLE bookkeeper; ALTER TABLE public.campaigns OWNER TO bookkeeper;"
                "ALTER FUNCTION ledger.erase_text OWNER TO bookkeeper;"
                "CREATE ROLE dashboard; GRANT SELECT ON public.campaigns TO dashboard"
            )
    await done("backup", dump, "--home", home)

    try:
        restored = await done("restore", dump, "--home", new_home)
    finally:
        remove(new_home)

    assert "Clean" in restored.out


async def test_with_a_configured_database_the_commands_refuse(tmp_path: Path) -> None:
    result = await ledger("backup", tmp_path / "dump", database="postgresql://u@127.0.0.1:1/d")

    assert result.code == 1
    assert "use the tools of PostgreSQL" in result.err


def initialise_older(home: Path, password: str) -> None:
    """Create the data folder of PostgreSQL 16, as an earlier release did."""
    folder = home / "postgres"
    staging = folder / "staging"
    staging.mkdir(parents=True)
    for file in (folder / "password", staging / "password"):
        file.write_text(password)
    account = system_account() if os.geteuid() == 0 else None
    if account:
        account.allow_access(installed_binaries(16).parent, folder)
        account.take_ownership(staging)
    user: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    initdb = [installed_binaries(16) / "initdb", "-D", staging / "data", "--username=ledger", "--auth=scram-sha-256"]
    options = [f"--pwfile={staging / 'password'}", "--data-checksums", "--encoding=UTF8", "--locale=C"]
    subprocess.run([*map(str, initdb), *options], check=True, capture_output=True, cwd="/", **user)
    (staging / "data").rename(folder / "data")
    shutil.rmtree(staging)


async def test_the_data_of_an_older_postgresql_are_moved_to_this_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    initialise_older(home, "s3cret")
    older = Cluster(home, 16)
    url = make_url(older.url(older.ensure_running())).set(drivername="postgresql+asyncpg")
    try:
        assert (await ledger("migrate", database=url)).code == 0
        assert (await ledger("seed", database=url)).code == 0
        async with connected(url) as connection:
            await connection.execute("CREATE ROLE app LOGIN PASSWORD 'of-app' IN ROLE ledger_service")
            await connection.execute("CREATE DATABASE other")
        older.stop()

        refused = await ledger("status", "--home", home)
        moved = await done("upgrade-embedded", "--home", home)
        again = await done("upgrade-embedded", "--home", home)
        verified = await done("verify", "--home", home)
        with EmbeddedServer.acquire(home) as server:
            async with connected(make_url(server.url).set(drivername="postgresql+asyncpg")) as connection:
                version = connection.get_server_version().major
                app = await connection.fetchval("SELECT pg_has_role('app', 'ledger_service', 'USAGE')")
                others = await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'other'")

        assert (refused.code, "run `ledger upgrade-embedded`" in refused.err) == (1, True)
        assert "moved from PostgreSQL 16 to 18" in moved.out
        assert "PostgreSQL 18 already" in again.out
        assert "Clean" in verified.out
        assert (version, app, others) == (18, True, 1)
        assert (home / "postgres" / "data-16" / "PG_VERSION").read_text() == "16\n"
        assert await head(home) == 28
    finally:
        remove(home)


async def test_an_upgrade_that_was_killed_between_its_last_steps_is_completed_by_the_next_start(home: Path) -> None:
    await done("migrate", "--home", home)
    await done("seed", "--home", home)
    (home / "postgres" / "data").rename(home / "postgres" / UPGRADED)

    assert await head(home) == 28
    assert (home / "postgres" / "data").is_dir()
