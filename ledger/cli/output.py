"""Output of the commands: JSON documents, one-line errors with exit codes, progress bars."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import asyncpg
import click
import msgspec
from sqlalchemy.exc import SQLAlchemyError

from ledger.cli.explain import explain
from ledger.config import ConfigError
from ledger.control_characters import escape, escape_json
from ledger.database import CONNECTION_ERRORS
from ledger.domain.errors import LedgerError


def echo(text: str, *, err: bool = False, keep: str = "") -> None:
    """Print a line that may hold values of clients or of the database: control characters except `keep` are escaped."""
    click.echo(escape(text, keep), err=err)


def fail(message: str) -> NoReturn:
    """Print an error and exit with code 1."""
    echo(f"Error: {message}", err=True, keep="\n")
    sys.exit(1)


def print_json(answer: Any) -> None:
    """Print one JSON document, indented."""
    click.echo(escape_json(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()))


def print_json_line(answer: Any) -> None:
    """Print one JSON document on one line."""
    click.echo(escape_json(msgspec.json.encode(answer).decode()))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 event` or `2,000 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an expected error as one line and exit: code 2 for a wrong setting, 1 for the rest.

    Other exceptions are bugs and keep their traceback.
    """
    try:
        yield
    except ConfigError as error:
        echo(f"Error: {error}", err=True, keep="\n")
        sys.exit(2)
    except LedgerError as error:
        fail(str(error))
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, SQLAlchemyError, TimeoutError) as error:
        fail(explain(error))


class ProgressBar:
    """A progress bar on stderr with the rate and the remaining time; silent if stderr is not a terminal."""

    def __init__(self, label: str, unit: str) -> None:
        self._label = label
        self._unit = unit
        self._started = time.monotonic()
        self._bar: Any = None
        self._done = 0

    def begin(self, length: int) -> None:
        """Show the bar; `length` is the amount that counts as complete, in the bar's unit."""
        if sys.stderr.isatty():
            self._bar = click.progressbar(
                length=length, label=self._label, file=sys.stderr, item_show_func=lambda _: self._rate()
            )
            self._bar.__enter__()

    def progress(self, done: int) -> None:
        """Set the amount done so far."""
        if self._bar is not None:
            self._bar.update(done - self._done, done)
            self._done = done

    def end(self) -> None:
        """Finish the line, so that other output can follow."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _rate(self) -> str:
        return f"{self._done / (time.monotonic() - self._started):,.0f} {self._unit}/s"


@contextmanager
def progress_bar(label: str, unit: str = "events") -> Iterator[ProgressBar]:
    """Yield a progress bar, and end it on exit; `unit` is what `begin` and `progress` count."""
    bar = ProgressBar(label, unit)
    try:
        yield bar
    finally:
        bar.end()
