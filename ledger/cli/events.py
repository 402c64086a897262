"""ledger events append, tail and erase: append to the log, print it, erase free text."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import click
import msgspec
from sqlalchemy import URL

from ledger.api import problems
from ledger.cli.databases import migrated_database, open_appender, service_url
from ledger.cli.event_loop import run_async, stop_signal
from ledger.cli.options import home_option, json_option, reason_option
from ledger.cli.output import echo, print_json, print_json_line
from ledger.cli.settings import settings_for
from ledger.cli.user import command_line_actor, user_name
from ledger.database import Database
from ledger.domain.access import Caller, Role
from ledger.domain.errors import LedgerError, Refused
from ledger.domain.event import Receipt, Request
from ledger.log.decode import read_candidate
from ledger.log.erasure import Erasure
from ledger.log.erasure import erase as erase_text
from ledger.log.event_view import EventView, view
from ledger.log.point_in_time import require_positions
from ledger.log.read import EventFilter, read_page
from ledger.log.request_body import split_body
from ledger.log.submit import append_each, decode_each

POLL_SECONDS = 0.2
"""Pause of `tail --follow` between two reads at the end of the log."""

DATA_CHARACTERS_MAX = 100
"""Characters of an event's data that `tail` prints."""


@click.group()
def events() -> None:
    """Append, print, erase, export and import events."""


@events.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--independent", is_flag=True, help="Append each event separately.  [default: all or none]")
@home_option
def append(file: BinaryIO, independent: bool, home: Path | None) -> None:
    """Append the events in FILE (default: standard input).

    FILE holds one JSON object, an array of objects, or one object per line. For each event, one line of JSON is
    printed: its receipt, or a problem document. The exit code is 1 if an event was refused.
    """
    body = file.read()
    with service_url(settings_for(home)) as url:
        answers = run_async(_append(url, body, independent))
    for answer in answers:
        print_json_line(answer)
    sys.exit(0 if all(isinstance(answer, Receipt) for answer in answers) else 1)


async def _append(url: URL, body: bytes, independent: bool) -> list[object]:
    caller = Caller(command_line_actor(), Role.ADMIN)
    try:
        # A single object may span several lines, so its first character alone does not distinguish the formats.
        ndjson = body.lstrip()[:1] == b"{" and not _is_one_document(body)
        texts, _ = split_body(body, ndjson=ndjson)
        async with migrated_database(url) as database, open_appender(database) as appender:
            if independent:
                answers = await append_each(appender, list(decode_each(texts, caller)))
                return [_receipt_or_problem(answer, index) for index, answer in enumerate(answers)]
            candidates = [read_candidate(text, index, caller.name, None) for index, text in enumerate(texts)]
            verdicts = await appender.append(Request(candidates))
        return [
            _receipt_or_problem(verdict, verdict.index if isinstance(verdict, Refused) else None)
            for verdict in verdicts
        ]
    except LedgerError as error:
        return [problems.document(error)]


def _receipt_or_problem(answer: Receipt | LedgerError, index: int | None) -> object:
    return answer if isinstance(answer, Receipt) else problems.document(answer, index)


def _is_one_document(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


@events.command()
@click.option(
    "--after", type=click.IntRange(0), metavar="POSITION", help="Print the events after POSITION instead of the last."
)
@click.option(
    "-n",
    "--number",
    type=click.IntRange(0),
    metavar="NUMBER",
    default=10,
    show_default=True,
    help="Print the last NUMBER events.",
)
@click.option("--follow", is_flag=True, help="Print new events too, until Ctrl-C.")
@home_option
@json_option
def tail(after: int | None, number: int, follow: bool, home: Path | None, as_json: bool) -> None:
    """Print the last events of the log.

    One line per event: position, time of recording, type, stream id, and the beginning of its data.
    """
    with service_url(settings_for(home)) as url:
        run_async(_tail(url, after, number, follow, as_json))


async def _tail(url: URL, after: int | None, number: int, follow: bool, as_json: bool) -> None:
    stop = stop_signal()
    async with Database(url) as database, database.connection() as connection:
        head = await require_positions(connection, after)
        position = after if after is not None else max(0, head - number)
        while not stop.is_set():
            page = await read_page(connection, EventFilter(after=position))
            for event in page:
                _print_event(view(event), as_json)
                position = event.position
            if not page:
                if not follow:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_SECONDS)


def _print_event(event: EventView, as_json: bool) -> None:
    if as_json:
        print_json_line(event)
        return
    data = bytes(event.data).decode()
    shown = data if len(data) <= DATA_CHARACTERS_MAX else f"{data[: DATA_CHARACTERS_MAX - 3]}..."
    echo(f"{event.position:>8}  {event.recorded_at}  {event.type:25}  {event.stream_id}  {shown}")


@events.command()
@click.argument("position", type=click.IntRange(1, 2**63 - 1))
@reason_option
@home_option
@json_option
def erase(position: int, reason: str, home: Path | None, as_json: bool) -> None:
    """Erase the free text of the event at POSITION. It cannot be undone.

    Names, titles, descriptions, messages and reasons are erased. Amounts, statuses, ids and hashes stay, and proofs
    remain valid. The erasure is recorded as an event, with your user name and the reason.
    """
    with service_url(settings_for(home)) as url:
        erased = run_async(_erase(url, position, reason))
    if as_json:
        print_json(erased)
    else:
        echo(
            f"Erased the free text of {erased.event_type} at position {erased.position:,}; "
            f"recorded at position {erased.recorded_position:,}."
        )
        echo("Backups, exports and schemas made by `ledger replay` still hold the text.")


async def _erase(url: URL, position: int, reason: str) -> Erasure:
    async with migrated_database(url) as database, open_appender(database) as appender:
        return await erase_text(database, appender, position, by=user_name(), reason=reason, actor=command_line_actor())
