"""docs/troubleshooting.md quotes what `ledger` and `alembic` print, without a traceback."""

import asyncio
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from ledger.cli.explain import explain
from ledger.embedded import exclusive_home
from scripts.source_texts import REPOSITORY
from tests.cli.helpers import LEDGER, PYTHON, CommandResult, environment, plain, run
from tests.conftest import as_service
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

READ_ONLY = """DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
END $$"""


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


def quoted(heading: str) -> str:
    """Return a regular expression for what a chapter quotes."""
    return ".*?".join(re.escape(part) for part in QUOTES[heading].split("…"))


def require_quoted(heading: str, *results: CommandResult) -> None:
    """Require that each command failed with the sentence that the page quotes, and nothing else."""
    pattern = quoted(heading)
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
        "Not a PostgreSQL URL": f"mysql://{url.username}@{url.host}/{url.database}",
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
        "Not a PostgreSQL URL",
    ],
)
async def test_a_wrong_url_is_explained(heading: str, empty_database_url: URL, checkout: Path) -> None:
    require_quoted(heading, *await outcomes(wrong(heading, empty_database_url), checkout))


@pytest.mark.parametrize(
    ("heading", "code", "message"),
    [
        (
            "SSL is required by the server",
            "28000",
            'no pg_hba.conf entry for host "192.0.2.1", user "u", database "d", no encryption',
        ),
        (
            "This host is not allowed",
            "28000",
            'no pg_hba.conf entry for host "192.0.2.1", user "u", database "d", SSL encryption',
        ),
        ("Too many connections", "53300", "sorry, too many clients already"),
    ],
)
async def test_a_server_that_refuses_is_explained(heading: str, code: str, message: str, checkout: Path) -> None:
    async with answering(code, message) as url:
        require_quoted(heading, *await outcomes(plain(url), checkout))


async def test_a_server_that_does_not_answer_is_explained(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d?sslmode=disable&connect_timeout=1"
        require_quoted("No answer", *await outcomes(url, checkout))


def test_a_certificate_that_is_not_trusted_is_explained() -> None:
    error = ssl.SSLCertVerificationError("certificate verify failed")

    assert re.search(quoted("The certificate is not trusted"), explain(error))


async def test_a_user_who_may_not_create_tables_is_explained(
    empty_database_url: URL, service_user: tuple[str, str], checkout: Path
) -> None:
    url = plain(as_service(empty_database_url, service_user))

    require_quoted("No right to create tables", *await outcomes(url, checkout))


async def test_a_missing_privilege_is_explained(service_url: URL, checkout: Path, tmp_path: Path) -> None:
    commands = ((*LEDGER, "reset", "--yes"), (ALEMBIC[0], "downgrade", "-1"))
    settings = environment(plain(service_url), LEDGER_HOME=str(tmp_path / "home"))

    results = [await run(*command, env=settings, cwd=checkout) for command in commands]

    require_quoted("A privilege is missing", *results)


async def test_a_read_only_database_is_explained(empty_database_url: URL, checkout: Path) -> None:
    async with changed(empty_database_url, READ_ONLY) as url:
        require_quoted("A read-only database", *await outcomes(url, checkout))


async def test_the_wrong_folder_is_explained(checkout: Path, tmp_path: Path) -> None:
    settings = environment(LEDGER_HOME=str(tmp_path / "home"))
    commands = ((*LEDGER, "status"), (ALEMBIC[0], "current"))

    require_quoted("The wrong folder", *[await run(*command, env=settings, cwd=checkout) for command in commands])
    elsewhere = await run(*ALEMBIC, env=settings)

    assert elsewhere.out.strip() in PAGE
    assert elsewhere.out.startswith("FAILED: No 'script_location'")


async def test_an_address_and_a_home_that_are_in_use_are_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, exclusive_home(tmp_path / "used", "ledger up"):
        up = (*LEDGER, "up", "--port", str(other.getsockname()[1]))
        by_address = await run(*up, "--home", tmp_path / "free")
        by_home = await run(*up, "--home", tmp_path / "used")

    require_quoted("The address is in use", by_address)
    require_quoted("The home is in use", by_home)


def test_failing_installations_print_what_is_quoted() -> None:
    script = (REPOSITORY / "scripts" / "install").read_text()
    sentences = " ".join(re.findall(r'echo "(.*)" >&2', script)).replace("$0", "scripts/install")

    for quote in re.findall(r"(?ms)^(?:> .*?\n)+", PAGE.partition("## The installation fails")[2])[:2]:
        parts = " ".join(quote.replace("\n> ", " ").removeprefix("> ").split()).split("…")
        assert all(part.strip(". ") in sentences for part in parts), quote


async def test_a_database_without_tables_is_explained(empty_database_url: URL, checkout: Path) -> None:
    shown = await run(*LEDGER, "verify", env=environment(plain(empty_database_url)), cwd=checkout)

    require_quoted("Relation does not exist", shown)


async def test_a_table_of_another_program_is_explained(empty_database_url: URL, checkout: Path) -> None:
    async with changed(empty_database_url, "CREATE TABLE campaigns (id int)") as url:
        require_quoted("Already exists", *await outcomes(url, checkout))


async def test_two_heads_are_explained(empty_database_url: URL, checkout: Path) -> None:
    branch = 'revision = "branch"\ndown_revision = "0001"\n\n\ndef upgrade() -> None: ...\n'
    (checkout / "alembic" / "versions" / "branch_of_mine.py").write_text(branch)
    for package in ("ledger", "projections"):
        (checkout / package).symlink_to(REPOSITORY / package)
    settings = environment(plain(empty_database_url), PYTHONPATH=str(checkout))

    results = [await run(*command, env=settings, cwd=checkout) for command in (MIGRATE, ALEMBIC)]

    require_quoted("Multiple heads", *results)


async def test_a_database_of_a_newer_release_is_explained(database_url: URL, checkout: Path) -> None:
    async with changed(database_url, "UPDATE public.alembic_version SET version_num = '9999'") as url:
        require_quoted("A newer database", *await outcomes(url, checkout))
