"""`ledger reset` and scripts/db_reset.py: delete everything, after a yes, and only on this machine."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.database import Database
from tests.cli.helpers import LEDGER, PYTHON, REPOSITORY, CommandResult, environment, ledger, run
from tests.events import campaign, cost
from tests.log.helpers import query, record, value

EVENTS = "SELECT count(*) FROM ledger.events"
COMMANDS = {"ledger reset": [*LEDGER, "reset"], "db_reset.py": [PYTHON, str(REPOSITORY / "scripts" / "db_reset.py")]}


async def reset(
    command: str, url: URL | None, tmp_path: Path, *options: str, answer: str = "", **more: str
) -> CommandResult:
    settings = environment(url, LEDGER_HOME=str(tmp_path / "home"), **more)
    return await run(*COMMANDS[command], *options, env=settings, stdin=answer.encode())


@pytest.fixture
async def filled(database: Database) -> Database:
    """A ledger with two events."""
    await record(database, campaign(), cost())
    return database


async def test_anything_but_yes_cancels(filled: Database, database_url: URL, tmp_path: Path) -> None:
    inputs = [("ledger reset", "no\n"), ("ledger reset", "\n"), ("db_reset.py", "YES please\n")]

    answers = await asyncio.gather(
        *(reset(command, database_url, tmp_path, answer=answer) for command, answer in inputs)
    )

    for result in answers:
        assert (result.code, "Cancelled." in result.out) == (0, True)
        assert "It cannot be undone" in result.out
    assert await value(filled, EVENTS) == 2


async def test_a_closed_standard_input_cancels(filled: Database, database_url: URL, tmp_path: Path) -> None:
    result = await reset("ledger reset", database_url, tmp_path, answer="")

    assert "Cancelled." in result.out
    assert await value(filled, EVENTS) == 2


@pytest.mark.parametrize(
    ("command", "options", "answer"), [("ledger reset", ["--yes"], ""), ("db_reset.py", [], "yes\n")]
)
async def test_after_a_yes_the_ledger_is_empty_and_accepts_events_again(
    filled: Database, database_url: URL, tmp_path: Path, command: str, options: list[str], answer: str
) -> None:
    result = await reset(command, database_url, tmp_path, *options, answer=answer)

    assert (result.code, "The ledger is empty." in result.out, "Cancelled" in result.out) == (0, True, False)
    assert await value(filled, EVENTS) == 0
    (receipt,) = await record(filled, cost())
    assert receipt.position == 1
    assert await query(filled, "SELECT position, status FROM ledger.projection_checkpoints") == [(0, "running")]


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"DATABASE_URL": "postgresql://u:p@db.invalid:5432/ledger"},
        {"DATABASE_URL": "postgresql://u:p@/ledger?host=db.invalid"},
        {"DB_HOST": "db.invalid"},
        {
            "DATABASE_URL": "postgresql://u:p@localhost:6543/ledger",
            "DIRECT_DATABASE_URL": "postgresql://u:p@db.invalid:5432/ledger",
        },
    ],
    ids=["by url", "by query", "by host", "direct behind a local pooler"],
)
async def test_a_database_on_another_machine_is_refused_without_force(
    tmp_path: Path, elsewhere: dict[str, str]
) -> None:
    result = await reset("ledger reset", None, tmp_path, "--yes", **elsewhere)

    assert result.code == 1
    assert "--force" in result.err
    assert "db.invalid" in result.err


async def test_force_connects_to_another_machine(tmp_path: Path) -> None:
    result = await reset("db_reset.py", None, tmp_path, "--yes", "--force", DB_HOST="db.invalid")

    assert (result.code, "host is not known" in result.err, "--force" in result.err) == (1, True, False)


async def test_the_embedded_database_is_reset_too(home: Path) -> None:
    seeded = [await ledger("migrate", "--home", home), await ledger("seed", "--home", home)]

    result = await ledger("reset", "--yes", "--home", home)

    assert [one.code for one in (*seeded, result)] == [0, 0, 0]
    again = await ledger("status", "--json", "--home", home)
    assert '"head": 0' in again.out
