"""What the verbs share: settings, plain errors, JSON, an event loop."""

import gc
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

from ledger.audit.signing_files import SigningFiles
from ledger.cli.explain import explain
from ledger.config import ConfigError, Settings, read_settings
from ledger.database import CONNECTION_ERRORS, Database
from ledger.database.location import located_database
from ledger.database.migrations import current_revision, expected_revision
from ledger.domain.errors import LedgerError
from ledger.log.appender import Appender
from ledger.log.notifications import notify_other_processes
from ledger.logging_setup import configure as configure_logs

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

GARBAGE_THRESHOLD = 50_000
"""New objects between two looks for garbage: a group of appends makes thousands, and drops them by itself."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def home_option(command: F) -> F:
    """The option --home: where the embedded PostgreSQL and the ledger's own files are."""
    return click.option(
        "--home", type=click.Path(path_type=Path), help="Folder of the ledger's own files.  [default: .ledger]"
    )(command)


def json_option(command: F) -> F:
    """The option --json: answer for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Answer as JSON, for programs.")(command)


def reason_option(command: F) -> F:
    """The option --reason: why something is done that is recorded for good."""

    def check(context: click.Context, parameter: click.Parameter, reason: str) -> str:
        if not 1 <= len(reason) <= 500:
            raise click.BadParameter("must have 1 to 500 characters")
        if any("\ud800" <= character <= "\udfff" for character in reason):
            # What the terminal sent is not UTF-8.
            raise click.BadParameter("must be text in UTF-8")
        return reason

    return click.option("--reason", required=True, callback=check, help="Why: it is recorded.")(command)


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
    configure_logs(settings.log_level, settings.log_format)
    return settings


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    # What is loaded by now stays loaded: looking through it for garbage took a fifth of the time of an append.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
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
    except LedgerError as error:
        fail(str(error))
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, SQLAlchemyError, TimeoutError) as error:
        fail(explain(error))


@contextmanager
def reachable_database(settings: Settings) -> Iterator[URL]:
    """Yield the URL of the database, configured or embedded."""
    with plain_errors(), located_database(settings) as found:
        assert found.database_url is not None
        yield found.database_url


def signing_files(settings: Settings) -> SigningFiles:
    """The files of the audit log."""
    return SigningFiles(settings.home, settings.log_key, settings.log_origin)


class ReplayBar:
    """A progress bar of a replay on the terminal, with events a second and the time left; silent elsewhere."""

    def __init__(self, label: str, unit: str) -> None:
        self._label = label
        self._unit = unit
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
        return f"{self._done / (time.monotonic() - self._started):,.0f} {self._unit}/s"


@contextmanager
def replay_bar(label: str, unit: str = "events") -> Iterator[ReplayBar]:
    """A progress bar for what is done inside; the unit is what `begin` and `progress` count."""
    bar = ReplayBar(label, unit)
    try:
        yield bar
    finally:
        bar.end()


@contextmanager
def owners_database(settings: Settings) -> Iterator[URL]:
    """Yield the URL for the owner's work: the direct one, where the other is a pooler."""
    with reachable_database(settings) as url:
        yield settings.direct_database_url or url


@asynccontextmanager
async def appending(database: Database) -> AsyncIterator[Appender]:
    """An appender for a program that ends; the running service is told of what it did."""
    async with Appender(database) as appender:
        yield appender
    await notify_other_processes(database)


async def require_migrated(database: Database) -> None:
    """End the program where the database is not at this release's revision."""
    async with database.engine.connect() as connection:
        current, expected = await current_revision(connection), expected_revision()
    if current != expected:
        fail(f"the database is at revision {current}, this release needs {expected}; run `ledger migrate`")


def require_loopback(host: str) -> None:
    """Refuse to serve a network without keys."""
    if host not in LOOPBACK:
        raise click.UsageError(f"--no-auth on --host {host} would let anybody on the network in: use 127.0.0.1")
