"""ledger events append, tail and erase: the log from the command line."""

import asyncio
import getpass
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import click
import msgspec
from sqlalchemy import URL

from ledger.api import problems
from ledger.cli.common import (
    appending,
    home_option,
    json_option,
    print_json,
    reachable_database,
    reason_option,
    require_migrated,
    run,
    settings_for,
)
from ledger.database import Database
from ledger.domain.access import LOCAL
from ledger.domain.errors import LedgerError, Refused
from ledger.domain.event import Receipt, Request
from ledger.log.decode import read_candidate, split_body
from ledger.log.erasure import Erasure
from ledger.log.erasure import erase as erase_text
from ledger.log.read import EventFilter, EventView, read_head, read_page, view
from ledger.log.submit import append_each

POLL_SECONDS = 0.2


@click.group()
def events() -> None:
    """Append to the log, read it, and erase free text from it."""


@events.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--independent", is_flag=True, help="Judge each event by itself; otherwise all or nothing.")
@home_option
def append(file: BinaryIO, independent: bool, home: Path | None) -> None:
    """Append the events of FILE: an object, an array, or an object a line. A receipt or problem a line comes back.

    Exit code 1 when an event was refused.
    """
    body = file.read()
    with reachable_database(settings_for(home)) as url:
        answers = run(_append(url, body, independent))
    for answer in answers:
        click.echo(msgspec.json.encode(answer))
    sys.exit(0 if all(isinstance(answer, Receipt) for answer in answers) else 1)


async def _append(url: URL, body: bytes, independent: bool) -> list[object]:
    database = Database(url)
    try:
        # One object may stand on many lines; several objects stand on a line each.
        ndjson = body.lstrip()[:1] == b"{" and _is_ndjson(body)
        texts, _ = split_body(body, ndjson=ndjson)
        await require_migrated(database)
        async with appending(database) as appender:
            if independent:
                answers = await append_each(appender, texts, LOCAL)
                return [_shown(answer, index) for index, answer in enumerate(answers)]
            candidates = [read_candidate(text, index, "local", None) for index, text in enumerate(texts)]
            verdict = await appender.append(Request(candidates))
        return [_shown(answer, answer.index if isinstance(answer, Refused) else None) for answer in verdict]
    except LedgerError as error:
        return [problems.document(error)]
    finally:
        await database.close()


def _shown(answer: Receipt | LedgerError, index: int | None) -> object:
    return answer if isinstance(answer, Receipt) else problems.document(answer, index)


def _is_ndjson(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        return True
    return False


@events.command()
@click.option("--after", type=click.IntRange(0), help="From this position on, not the last ones.")
@click.option("-n", "--number", type=click.IntRange(0), default=10, show_default=True, help="How many of the last.")
@click.option("--follow", is_flag=True, help="Go on with new events until Ctrl-C.")
@home_option
@json_option
def tail(after: int | None, number: int, follow: bool, home: Path | None, as_json: bool) -> None:
    """Print the last events of the log, a line each."""
    with reachable_database(settings_for(home)) as url:
        run(_tail(url, after, number, follow, as_json))


async def _tail(url: URL, after: int | None, number: int, follow: bool, as_json: bool) -> None:
    database = Database(url)
    stop = asyncio.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    try:
        async with database.connection() as connection:
            position = after if after is not None else max(0, await read_head(connection) - number)
            while not stop.is_set():
                page = await read_page(connection, EventFilter(after=position))
                for event in page:
                    _print(view(event), as_json)
                    position = event.position
                if not page:
                    if not follow:
                        return
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), POLL_SECONDS)
    finally:
        await database.close()


def _print(event: EventView, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(event))
        return
    data = bytes(event.data).decode()
    shown = data if len(data) <= 100 else f"{data[:97]}..."
    click.echo(f"{event.position:>8}  {event.recorded_at}  {event.type:24} {event.stream_id}  {shown}")


@events.command()
@click.argument("position", type=click.IntRange(1, 2**63 - 1))
@reason_option
@home_option
@json_option
def erase(position: int, reason: str, home: Path | None, as_json: bool) -> None:
    """Erase the free text of the event at POSITION, for good.

    Titles, texts, descriptions, messages and reasons go; amounts, statuses and ids stay, and so do all proofs. The
    erasure is recorded as an event, with who and why.
    """
    with reachable_database(settings_for(home)) as url:
        erased = run(_erase(url, position, reason))
    if as_json:
        print_json(erased)
    else:
        click.echo(
            f"Erased: the free text of {erased.event_type} at position {position}, "
            f"as recorded at position {erased.recorded_position}."
        )
        click.echo("Backups, exports and schemas made by `ledger replay` still hold it.")


async def _erase(url: URL, position: int, reason: str) -> Erasure:
    database = Database(url)
    try:
        await require_migrated(database)
        async with appending(database) as appender:
            return await erase_text(database, appender, position, by=getpass.getuser(), reason=reason)
    finally:
        await database.close()
