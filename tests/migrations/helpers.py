"""Run the command `alembic`, and list the objects of a database without it."""

import asyncio
import os
import sys
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL

from tests.log.helpers import connected
from tests.servers.kinds import direct_url

REPOSITORY = Path(__file__).parents[2]
REVISIONS = sorted(path.name.partition("_")[0] for path in (REPOSITORY / "alembic" / "versions").glob("*.py"))
HEAD = REVISIONS[-1]

# All objects in the database except those of PostgreSQL itself, by kind and name.
OBJECTS = """
WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$')
SELECT 'schema ' || nspname FROM ours WHERE nspname <> 'public'
UNION ALL
SELECT relkind::text || ' ' || nspname || '.' || relname FROM pg_class JOIN ours ON ours.oid = relnamespace
UNION ALL
SELECT 'function ' || nspname || '.' || proname FROM pg_proc JOIN ours ON ours.oid = pronamespace
UNION ALL
SELECT 'trigger ' || tgname || ' on ' || nspname || '.' || relname
FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN ours ON ours.oid = relnamespace WHERE NOT tgisinternal
"""


class CommandResult(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


async def alembic(url: URL, *arguments: str, configuration: Path = REPOSITORY / "alembic.ini") -> CommandResult:
    """Run the command `alembic` in a separate process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "LEDGER_"))}
    environment["DATABASE_URL"] = plain(url)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("alembic")),
        "-c",
        str(configuration),
        *arguments,
        env=environment,
        cwd=configuration.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return CommandResult(process.returncode, out.decode(), err.decode())


async def run_alembic(url: URL, *arguments: str) -> str:
    """Run the command `alembic`, which must succeed; return its output."""
    result = await alembic(url, *arguments)
    assert result.code == 0, result.err
    return result.out


def plain(url: URL) -> str:
    return direct_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def objects(url: URL) -> list[str]:
    async with connected(url) as connection:
        return sorted(row[0] for row in await connection.fetch(OBJECTS))


async def revision(url: URL) -> str | None:
    async with connected(url) as connection:
        number: str | None = await connection.fetchval("SELECT version_num FROM public.alembic_version")
        return number


async def execute(url: URL, statement: str) -> None:
    async with connected(url) as connection:
        await connection.execute(statement)
