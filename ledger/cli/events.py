"""ledger events append and tail: the log from the command line."""

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import click
import msgspec
from sqlalchemy import URL

from ledger.api import problems
from ledger.api.append import judge_each
from ledger.api.decode import read_candidate, split_body
from ledger.cli.common import (
    appending,
    home_option,
    json_option,
    reachable_database,
    require_migrated,
    run,
    settings_for,
)
from ledger.database import driver_connection, make_engine
from ledger.domain.access import LOCAL
from ledger.domain.errors import LedgerError
from ledger.domain.event import Receipt, Request
from ledger.log.read import EventFilter, EventView, read_head, read_page, view

POLL_SECONDS = 0.2


@click.group()
def events() -> None:
    """Append to the log and read it."""


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
    engine = make_engine(url)
    try:
        # One object may stand on many lines; several objects stand on a line each.
        ndjson = body.lstrip()[:1] == b"{" and _is_ndjson(body)
        texts, _ = split_body(body, ndjson=ndjson)
        await require_migrated(engine)
        async with appending(engine) as appender:
            if independent:
                return await judge_each(appender, texts, LOCAL, None)
            candidates = [read_candidate(text, index, "local", None) for index, text in enumerate(texts)]
            verdict = await appender.append(Request(candidates))
        return [
            answer if isinstance(answer, Receipt) else problems.document(answer, answer.index) for answer in verdict
        ]
    except LedgerError as error:
        return [problems.document(error)]
    finally:
        await engine.dispose()


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
    engine = make_engine(url)
    stop = asyncio.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    try:
        async with driver_connection(engine) as connection:
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
        await engine.dispose()


def _print(event: EventView, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(event))
        return
    data = bytes(event.data).decode()
    shown = data if len(data) <= 100 else f"{data[:97]}..."
    click.echo(f"{event.position:>8}  {event.recorded_at}  {event.type:24} {event.stream_id}  {shown}")
