"""What the verbs share: settings, plain errors, JSON, an event loop."""

import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import asyncpg
import click
import msgspec
import uvloop
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.audit.checkpoint import CheckpointError
from ledger.audit.home import LogHome
from ledger.audit.note import NoteError
from ledger.config import ConfigError, Settings, read_settings
from ledger.database import CONNECTION_ERRORS, database
from ledger.domain.errors import LedgerError
from ledger.embedded import EmbeddedError
from ledger.log.appender import Appender
from ledger.log.bell import tell_others
from ledger.schema import current_revision, expected_revision

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def home_option(command: F) -> F:
    """The option --home: where the embedded PostgreSQL and the ledger's own files are."""
    return click.option(
        "--home", type=click.Path(path_type=Path), help="Folder of the ledger's own files.  [default: .ledger]"
    )(command)


def json_option(command: F) -> F:
    """The option --json: answer for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Answer as JSON, for programs.")(command)


def settings_for(home: Path | None = None, host: str | None = None, port: int | None = None) -> Settings:
    """The settings, with what the command line says put over them; a wrong one ends the program in plain words."""
    with plain_errors():
        return read_settings_for(home, host, port)


def read_settings_for(home: Path | None = None, host: str | None = None, port: int | None = None) -> Settings:
    """The settings, with what the command line says put over them; raises `ConfigError`."""
    settings = read_settings()
    changes: dict[str, Any] = {"home": home, "host": host, "port": port}
    settings = msgspec.structs.replace(
        settings, **{name: value for name, value in changes.items() if value is not None}
    )
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Alembic tells of every migration; what is worth telling the verbs tell themselves.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return settings


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    return uvloop.run(main)


def fail(message: str) -> NoReturn:
    """End with exit code 1 and a message in plain words."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


def print_json(answer: Any) -> None:
    """Print one JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say in plain words, with the next step, what went wrong outside this program."""
    try:
        yield
    except ConfigError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except (EmbeddedError, LedgerError, NoteError, CheckpointError) as error:
        fail(str(error))
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, SQLAlchemyError, TimeoutError) as error:
        fail(explain(error))


@contextmanager
def reachable_database(settings: Settings) -> Iterator[URL]:
    """Yield the URL of the database, configured or embedded."""
    with reachable_databases(settings) as (url, _):
        yield url


@contextmanager
def reachable_databases(settings: Settings) -> Iterator[tuple[URL, URL]]:
    """Yield the URL of the database for the service's work, and the one for the owner's."""
    with plain_errors(), database(settings) as found:
        assert found.database_url is not None
        yield found.database_url, found.direct_database_url or found.database_url


def log_home(settings: Settings) -> LogHome:
    """The files of the audit log."""
    return LogHome(settings.home, settings.log_key, settings.log_origin)


class ReplayBar:
    """A progress bar of a replay on the terminal, with events a second and the time left; silent elsewhere."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._bar: Any = None
        self._done = 0

    def begin(self, events: int) -> None:
        """Show the bar, for so many events."""
        if sys.stderr.isatty():
            self._bar = click.progressbar(
                length=events, label=self._label, file=sys.stderr, item_show_func=lambda _: self._rate()
            )
            self._bar.__enter__()

    def progress(self, position: int) -> None:
        """Move it to a position."""
        if self._bar is not None:
            self._bar.update(position - self._done, position)
            self._done = position

    def end(self) -> None:
        """Leave the line to what comes after."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _rate(self) -> str:
        return f"{self._done / (time.monotonic() - self._started):,.0f} events/s"


@contextmanager
def replay_bar(label: str) -> Iterator[ReplayBar]:
    """A progress bar for what is done inside."""
    bar = ReplayBar(label)
    try:
        yield bar
    finally:
        bar.end()


@contextmanager
def owners_database(settings: Settings) -> Iterator[URL]:
    """Yield the URL for the owner's work: the direct one, where the other is the service's, or a pooler's."""
    with reachable_databases(settings) as (_, direct):
        yield direct


@asynccontextmanager
async def appending(engine: AsyncEngine) -> AsyncIterator[Appender]:
    """An appender for a program that ends; the running service is told of what it did."""
    async with Appender(engine) as appender:
        yield appender
    await tell_others(engine)


async def require_migrated(engine: AsyncEngine) -> None:
    """End the program where the database is not at this release's revision."""
    async with engine.connect() as connection:
        current, expected = await current_revision(connection), expected_revision()
    if current != expected:
        fail(f"the database is at revision {current}, this release needs {expected}; run `ledger migrate`")


def require_loopback(host: str) -> None:
    """Refuse to serve a network without keys."""
    if host not in LOOPBACK:
        raise click.UsageError(f"--no-auth on --host {host} would let anybody on the network in: use 127.0.0.1")


def explain(error: BaseException) -> str:
    """What a failed connection means, and what to do."""
    cause = error.__cause__ or getattr(error, "orig", None)
    original = cause if isinstance(error, SQLAlchemyError) and isinstance(cause, BaseException) else error
    original = original.__cause__ or original
    for kinds, meaning in _MEANINGS:
        if isinstance(original, kinds):
            return f"{meaning} ({_said_by(original)})"
    return f"the database failed: {_said_by(original)}"


def _said_by(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((asyncpg.InvalidPasswordError,), "the database refuses the user or the password; check DATABASE_URL"),
    (
        (asyncpg.InvalidAuthorizationSpecificationError,),
        "the database does not let this user in; check the user, and whether it asks for TLS (?sslmode=require)",
    ),
    ((asyncpg.InvalidCatalogNameError,), "there is no such database on the server; create it, or correct the name"),
    (
        (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError),
        "the database is not migrated; run `ledger migrate`",
    ),
    (
        (asyncpg.InsufficientPrivilegeError,),
        "the database user lacks a privilege: the service's must be a member of ledger_service (`ledger doctor`), and "
        "migrate, reset, verify, rebuild, replay need the owner in DIRECT_DATABASE_URL",
    ),
    ((asyncpg.TooManyConnectionsError,), "the database takes no more connections; close some or raise the limit"),
    (
        (socket.gaierror,),
        "the database's host is not known; check the host name, and an unencoded @ or / in a password",
    ),
    ((ConnectionRefusedError,), "nothing answers at the database's host and port; is it running, is the port right?"),
    ((TimeoutError,), "the database does not answer in time; a paused project has to be resumed, a firewall opened"),
    ((OSError,), "the database cannot be reached"),
)
