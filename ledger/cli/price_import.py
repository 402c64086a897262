"""ledger prices import: prices of the library genai-prices or of a file; the first start's import."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
from sqlalchemy import URL

from ledger.cli.databases import migrated_database, open_appender, service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, echo, fail, print_json
from ledger.cli.price_files import read_price_file
from ledger.cli.price_tables import change_line, loss_line
from ledger.cli.settings import settings_for
from ledger.cli.user import command_line_actor
from ledger.config import Settings
from ledger.database import Database
from ledger.domain.catalogue import type_of
from ledger.domain.errors import Refused
from ledger.domain.event import Request
from ledger.domain.price import PricePublished
from ledger.domain.price_book import PriceBook
from ledger.log.appender import Appender
from ledger.log.prepare import prepare
from ledger.log.price_cache import PriceCache
from ledger.prices.left_out import LeftOut, by_reason
from ledger.prices.price_changes import PriceChange, explicit_changes, price_changes

LIBRARY = "genai-prices"
LIBRARY_MODULE = "genai_prices"

MISSING_EXTRA = (
    "the library genai-prices is not installed: install the extra `prices` (`pip install "
    "'budget-job-ledger[prices]'`), or import prices of your own with `ledger prices import FILE`"
)

PAGE_EVENTS_MAX = 5_000
"""Prices that are appended in one request: all of the library, so that an interrupted first import left nothing."""

HAS_PRICES = "SELECT EXISTS (SELECT FROM ledger.price_events)"


class PriceList(NamedTuple):
    """The prices to import, what the source has besides, and whether they may replace prices of other sources."""

    prices: list[PricePublished]
    left_out: list[LeftOut]
    is_explicit: bool

    def changes(self, book: PriceBook) -> list[PriceChange]:
        """Return what has to be published."""
        return list((explicit_changes if self.is_explicit else price_changes)(self.prices, book))


@click.command("import")
@click.argument("source", metavar=f"{LIBRARY}|FILE")
@click.option("--dry-run", is_flag=True, help="Print what would be published, and publish nothing.")
@click.option("--first-start", is_flag=True, hidden=True)
@home_option
@json_option
def import_prices(source: str, dry_run: bool, first_start: bool, home: Path | None, as_json: bool) -> None:
    """Import prices from the library genai-prices, or from FILE (`-`: standard input).

    Only prices that the log does not have yet are published, so a second import adds nothing. The library's prices
    replace no price of another source, such as a negotiated one. What they cannot express exactly is listed and left
    out.

    FILE holds a JSON array of prices with the fields of `price.published`. They replace prices of any source from their
    `effective_from` on. A price has only its own names and prefixes; a warning says which of the replaced it lacks.
    """
    prices = _library_list() if source == LIBRARY else PriceList(read_price_file(source), [], is_explicit=True)
    with service_url(settings_for(home)) as url:
        changes = run_async(_import(url, prices, dry_run))
    if first_start:
        echo(f"Prices: {len(changes):,} imported from {LIBRARY}; see `ledger prices list`.")
    elif as_json:
        print_json(_summary(prices, changes, dry_run))
    else:
        _print_import(prices, changes, dry_run)


def _library_list() -> PriceList:
    if not is_library_installed():
        fail(MISSING_EXTRA)
    # The library takes a moment to load, and is an extra.
    from ledger.prices.genai_prices import library_prices

    library = library_prices()
    return PriceList(library.prices, library.left_out, is_explicit=False)


def is_library_installed() -> bool:
    """Whether the extra `prices` is installed; the library is not loaded."""
    return importlib.util.find_spec(LIBRARY_MODULE) is not None


async def _import(url: URL, prices: PriceList, dry_run: bool) -> list[PriceChange]:
    async with migrated_database(url) as database:
        async with database.connection() as connection:
            book = await PriceCache().current(connection)
        changes = prices.changes(book)
        if changes and not dry_run:
            async with open_appender(database) as appender:
                await _publish(appender, changes)
        return changes


async def _publish(appender: Appender, changes: Sequence[PriceChange]) -> None:
    actor = command_line_actor()
    candidates = [prepare(type_of(PricePublished), each.price, actor=actor, event_id=each.event_id) for each in changes]
    for start in range(0, len(candidates), PAGE_EVENTS_MAX):
        verdicts = await appender.append(Request(candidates[start : start + PAGE_EVENTS_MAX]))
        if isinstance(verdicts[0], Refused):
            raise verdicts[0]


def _summary(prices: PriceList, changes: Sequence[PriceChange], dry_run: bool) -> dict[str, Any]:
    summary: dict[str, Any] = {"prices": len(prices.prices), "published": 0 if dry_run else len(changes)}
    if dry_run:
        summary["changes"] = [{"price": each.price, "replaced": each.replaced} for each in changes]
    return summary | {"left_out": sorted(prices.left_out)}


def _print_import(prices: PriceList, changes: Sequence[PriceChange], dry_run: bool) -> None:
    if dry_run:
        for change in changes:
            echo(change_line(change))
    for change in changes:
        if change.lost_names:
            echo(loss_line(change))
    echo(outcome(prices.prices, len(changes), dry_run=dry_run))
    for (part, reason), items in by_reason(prices.left_out).items():
        shown = items if dry_run else items[:3]
        rest = f" and {len(items) - len(shown):,} more" if len(items) > len(shown) else ""
        echo(f"Left out {counted(len(items), part)} ({reason}): {', '.join(map(str, shown))}{rest}")


def outcome(prices: Sequence[PricePublished], published: int, *, dry_run: bool = False) -> str:
    """Return in one line what an import did.

    Args:
        prices: All prices of the source.
        published: The number of those that the log did not have.
        dry_run: Whether they were only compared.
    """
    if prices and not published:
        return f"Nothing to publish: the log has all {counted(len(prices), 'price')} of the source, or others instead."
    models = len({(price.provider, price.model) for price in prices})
    providers = len({price.provider for price in prices})
    sources = sorted({f"{price.source.name} {price.source.version}" for price in prices})
    verb = "would be published" if dry_run else "published"
    return (
        f"{counted(published, 'price')} {verb}, of {len(prices):,} for {counted(models, 'model')} of "
        f"{counted(providers, 'provider')} from {', '.join(sources) or 'an empty list'}."
    )


async def lacks_prices(database: Database) -> bool:
    """Whether the log holds no price event at all."""
    async with database.connection() as connection:
        return not await connection.fetchval(HAS_PRICES)


@asynccontextmanager
async def first_import(database: Database, settings: Settings) -> AsyncIterator[None]:
    """Import the library's prices in the background of the context, if the log holds no price event.

    Another process does it: loading the library takes as much processor time as thousands of appends. It is ended with
    the context.

    Args:
        database: Of the log.
        settings: Of this service; the other process finds the database by them.
    """
    is_first = settings.import_prices and await lacks_prices(database)
    task = asyncio.create_task(_first_import(settings.home)) if is_first else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _first_import(home: Path) -> None:
    if not is_library_installed():
        echo(f"No prices were imported: {MISSING_EXTRA}.")
        return
    command = (sys.executable, "-m", "ledger", "prices", "import", LIBRARY, "--first-start", "--home", str(home))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        answer, error = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        reason = error.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        echo(f"No prices were imported: {reason[0]}. Import them with `ledger prices import {LIBRARY}`.")
    else:
        echo(answer.decode().strip())
