"""ledger prices reprice: price unpriced entries, and adjust costs by prices published later."""

import asyncio
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import click
import msgspec
from sqlalchemy import URL

from ledger.api.repricing import TRY_LOCK_REPRICING, Repriced, reprice_page
from ledger.cli.databases import migrated_database, open_appender, service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import echo, fail, print_json
from ledger.cli.settings import settings_for
from ledger.cli.user import command_line_actor
from ledger.database import Connection
from ledger.domain import money
from ledger.log.price_cache import PriceCache
from projections.catch_up import fold_new_events
from projections.entries_to_reprice import Selection

LOCK_ATTEMPTS = 100
"""How often this command tries to begin a page while another run is repricing."""

LOCK_PAUSE_SECONDS = 0.3
"""The pause after each attempt."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Print what would be done, and record nothing.")
@click.option("--adjust", is_flag=True, help="Also adjust computed costs if another price now applies to the call.")
@click.option("--campaign", type=click.UUID, metavar="ID", help="Only entries of this campaign.")
@home_option
@json_option
def reprice(dry_run: bool, adjust: bool, campaign: UUID | None, home: Path | None, as_json: bool) -> None:
    """Give unpriced entries their cost by the prices that the log has now.

    With --adjust, costs that were computed are adjusted to the prices that were published later for the time of the
    call. Costs that were sent are never changed. The movements are recorded as of now.
    """
    selection = Selection(adjust, campaign, None, None, None)
    with service_url(settings_for(home)) as url:
        repriced = run_async(_reprice(url, selection, dry_run))
    if as_json:
        print_json(repriced)
    else:
        _print_repriced(repriced, dry_run)


async def _reprice(url: URL, selection: Selection, dry_run: bool) -> Repriced:
    """Reprice page by page, and return the sum of all pages."""
    total, prices = Repriced(0, 0, 0, 0, 0, {}, None), PriceCache()
    async with migrated_database(url) as database, open_appender(database) as appender:
        while True:
            async with database.connection() as connection, connection.transaction():
                await _lock(connection)
                if (await fold_new_events(database)).lag_events:
                    fail("the tables are behind the log, see `ledger status`; run this command again")
                actor = command_line_actor()
                page = await reprice_page(connection, appender, prices, selection, actor=actor, dry_run=dry_run)
            total = _sum(total, page)
            if page.next is None:
                return total
            selection = selection._replace(after=page.next)


async def _lock(connection: Connection) -> None:
    """Take the lock of repricing for the transaction; requests to the service have it for a page at a time."""
    for _ in range(LOCK_ATTEMPTS):
        if await connection.fetchval(TRY_LOCK_REPRICING):
            return
        await asyncio.sleep(LOCK_PAUSE_SECONDS)
    fail("another run is repricing entries; run this command again after it")


def _sum(total: Repriced, page: Repriced) -> Repriced:
    counts = {
        name: getattr(total, name) + getattr(page, name)
        for name in ("examined", "priced", "adjusted", "still_unpriced", "refused")
    }
    amounts = dict(total.amounts)
    for currency, amount in page.amounts.items():
        before = Decimal(amounts.get(currency, "0"))
        amounts[currency] = money.plain(money.add(before, Decimal(amount)))
    return msgspec.structs.replace(total, **counts, amounts=amounts, position=page.position or total.position)


def _print_repriced(repriced: Repriced, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    amounts = ", ".join(f"{amount} {currency}" for currency, amount in repriced.amounts.items()) or "0"
    echo(
        f"{repriced.priced:,} of {repriced.examined:,} entries {would}priced, {repriced.adjusted:,} adjusted, "
        f"by {amounts} in all; {repriced.still_unpriced:,} have no price yet."
    )
    if repriced.refused:
        echo(f"{repriced.refused:,} {would}refused: changed meanwhile, or the new cost is not possible.")
