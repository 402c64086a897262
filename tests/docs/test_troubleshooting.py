"""docs/troubleshooting.md quotes what `ledger` and `alembic` print, without a traceback."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from scripts.source_texts import REPOSITORY
from tests.cli.helpers import LEDGER, PYTHON, CommandResult, environment, plain, run
from tests.connections.test_explained import answering
from tests.log.helpers import connected

ALEMBIC = (Path(PYTHON).with_name("alembic"), "upgrade", "head")
MIGRATE = (*LEDGER, "migrate")

PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
QUOTES = {
    heading: " ".join(re.findall(r"(?m)^> ?(.*)$", text))
    for heading, text in re.findall(r"(?ms)^## (.*?)\n(.*?)(?=^## |\Z)", PAGE)
}
"""What each chapter of the page quotes."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that `alembic` needs, in a folder without a `.env`."""
    shutil.copy(REPOSITORY / "alembic.ini", tmp_path)
    shutil.copytree(REPOSITORY / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


async def outcomes(url: str, checkout: Path) -> list[CommandResult]:
    """Run `ledger migrate` and `alembic upgrade head`."""
    running = [run(*command, env=environment(url), cwd=checkout) for command in (MIGRATE, ALEMBIC)]
    return await asyncio.gather(*running)


def require_quoted(heading: str, *results: CommandResult) -> None:
    """Require that each command failed with the sentence that the page quotes, and nothing else."""
    pattern = ".*?".join(re.escape(part) for part in QUOTES[heading].split("…"))
    for result in results:
        printed = " ".join((result.out + result.err).split())
        assert result.code != 0
        assert re.search(pattern, printed), f"{heading}: expected\n{QUOTES[heading]}\nbut got\n{printed}"
        assert "Traceback" not in printed


@asynccontextmanager
async def changed(url: URL, statement: str) -> AsyncIterator[str]:
    """Run a statement in a database; yield its URL."""
    async with connected(url) as connection:
        await connection.execute(statement)
    yield plain(url)


def wrong(heading: str, url: URL) -> str:
    """Return a URL with the mistake of a chapter."""
    text = {
        "Wrong password": plain(url.set(password="wrong")),
        "Unknown database": plain(url.set(database="nowhere")),
        "Unknown host": plain(url.set(host="nowhere.invalid")),
        "Connection refused": plain(url.set(port=1)),
        "SSL is required but not offered": plain(url.set(query={"sslmode": "require"})),
        "Special characters in the password": f"postgresql://{url.username}:p@ss#word@{url.host}/{url.database}",
        "A placeholder in the URL": f"postgresql://{url.username}:[YOUR-PASSWORD]@{url.host}/{url.database}",
    }
    return text[heading]


@pytest.mark.parametrize(
    "heading",
    [
        "Wrong password",
        "Unknown database",
        "Unknown host",
        "Connection refused",
        "SSL is required but not offered",
        "Special characters in the password",
        "A placeholder in the URL",
    ],
)
async def test_a_wrong_url_is_explained(heading: str, empty_database_url: URL, checkout: Path) -> None:
    require_quoted(heading, *await outcomes(wrong(heading, empty_database_url), checkout))


async def test_a_server_that_requires_ssl_is_explained(checkout: Path) -> None:
    refusal = 'no pg_hba.conf entry for host "192.0.2.1", user "u", database "d", no encryption'
    async with answering("28000", refusal) as url:
        require_quoted("SSL is required by the server", *await outcomes(plain(url), checkout))


async def test_a_database_without_tables_is_explained(empty_database_url: URL, checkout: Path) -> None:
    shown = await run(*LEDGER, "verify", env=environment(plain(empty_database_url)), cwd=checkout)

    require_quoted("Relation does not exist", shown)


async def test_a_table_of_another_program_is_explained(empty_database_url: URL, checkout: Path) -> None:
    async with changed(empty_database_url, "CREATE TABLE campaigns (id int)") as url:
        require_quoted("Already exists", *await outcomes(url, checkout))


async def test_two_heads_are_explained(empty_database_url: URL, checkout: Path) -> None:
    branch = 'revision = "branch"\ndown_revision = "0001"\n\n\ndef upgrade() -> None: ...\n'
    (checkout / "alembic" / "versions" / "branch_of_mine.py").write_text(branch)

    result = await run(*ALEMBIC, env=environment(plain(empty_database_url)), cwd=checkout)

    require_quoted("Multiple heads", result)


async def test_a_database_of_a_newer_release_is_explained(database_url: URL, checkout: Path) -> None:
    async with changed(database_url, "UPDATE public.alembic_version SET version_num = '9999'") as url:
        require_quoted("A newer database", *await outcomes(url, checkout))
