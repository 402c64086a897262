"""ledger prices list, show and quote: the price book of the log."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click
import msgspec
from sqlalchemy import URL

from ledger.cli.databases import migrated_database, service_url
from ledger.cli.event_loop import run_async
from ledger.cli.options import home_option, json_option
from ledger.cli.output import counted, echo, fail, print_json
from ledger.cli.price_import import import_prices
from ledger.cli.price_tables import price_view, table_lines
from ledger.cli.reprice import reprice
from ledger.cli.settings import settings_for
from ledger.domain import money
from ledger.domain.codec import InvalidFieldError, utc
from ledger.domain.cost import ServiceTier
from ledger.domain.price import DEFAULT_TIER
from ledger.domain.price_book import BookPrice, PriceBook
from ledger.domain.priced_cost import Call, compute_cost, look_up, unpriced_error
from ledger.domain.usage import COUNTERS, Usage
from ledger.log.price_cache import PriceCache


class Instant(click.ParamType):  # type: ignore[type-arg]  # generic only in recent releases of click
    """A time with a zone, or a date, which is its midnight in UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse an argument.

        Args:
            value: The argument, or a default.
            param: The option.
            ctx: Of the command.

        Raises:
            click.BadParameter: It is no such time.
        """
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(str(value))
            if len(str(value)) == len("2026-01-31"):
                at = at.replace(tzinfo=UTC)
            return utc("", at)
        except ValueError:
            self.fail(f"{value!r} is not a time with a time zone, such as 2026-01-31T12:00:00Z, or a date", param, ctx)


provider_option = click.option("--provider", metavar="NAME", help="Only this provider, such as openai.")
at_option = click.option("--at", type=Instant(), metavar="TIME", help="The prices of calls at TIME.  [default: now]")


@click.group()
def prices() -> None:
    """Import, list and show prices, and compute costs by them."""


for command in (import_prices, reprice):
    prices.add_command(command)


@prices.command("list")
@provider_option
@at_option
@home_option
@json_option
def list_prices(provider: str | None, at: datetime | None, home: Path | None, as_json: bool) -> None:
    """List the prices in force: one line for each model, service tier and currency, for a million units."""
    with service_url(settings_for(home)) as url:
        book = run_async(_read(url))
    found = [price for price in _in_force(book, at or datetime.now(UTC)) if provider in (None, price.key.provider)]
    if as_json:
        print_json([price_view(price) for price in found])
        return
    _print_table(found)
    echo(f"{counted(len(found), 'price')} in force.")


def _in_force(book: PriceBook, at: datetime) -> list[BookPrice]:
    streams = {price.stream_id for price in book.values()}
    found = (book.in_force(stream_id, at) for stream_id in streams)
    return sorted((price for price in found if price is not None and price.price is not None), key=lambda one: one.key)


@prices.command()
@click.argument("model")
@provider_option
@click.option("--at", type=Instant(), metavar="TIME", help="Only the prices of calls at TIME.  [default: all]")
@home_option
@json_option
def show(model: str, provider: str | None, at: datetime | None, home: Path | None, as_json: bool) -> None:
    """Show the prices of MODEL, found as for a call: by its exact name, or by the longest prefix.

    All prices are shown, also earlier and later ones, for each provider, service tier and currency.
    """
    with service_url(settings_for(home)) as url:
        book = run_async(_read(url))
    found = _prices_of(book, model, provider, at)
    if not found:
        fail(f"no price of {model}{f' of {provider}' if provider else ''}; `ledger prices list` shows all")
    if as_json:
        print_json([price_view(price) for price in found])
    else:
        _print_table(found)


def _prices_of(book: PriceBook, model: str, provider: str | None, at: datetime | None) -> list[BookPrice]:
    """Return the prices of the streams that a call of the model would find, by time."""
    keys = {price.key._replace(model=model) for price in book.values() if provider in (None, price.key.provider)}
    in_force = [book.find(key, at or datetime.now(UTC)) for key in sorted(keys)]
    found = [price for price in in_force if price is not None]
    if at is not None:
        return found
    streams = {price.stream_id for price in found}
    return sorted(
        (price for price in book.values() if price.stream_id in streams), key=lambda price: (price.key, price.order)
    )


@prices.command()
@click.argument("provider")
@click.argument("model")
@click.argument("usage", nargs=-1, required=True, metavar="COUNTER=NUMBER...")
@click.option("--tier", type=click.Choice(get_args(ServiceTier)), default=DEFAULT_TIER, help="The service tier.")
@click.option("--currency", default=money.DEFAULT_CURRENCY, show_default=True, help="The currency of the price.")
@at_option
@home_option
@json_option
def quote(
    provider: str,
    model: str,
    usage: tuple[str, ...],
    tier: str,
    currency: str,
    at: datetime | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Compute what a call of MODEL at PROVIDER costs; nothing is recorded.

    COUNTER is one of the counters of `usage`, such as input_tokens or output_tokens.
    """
    counters = _usage(usage)
    call = Call(provider, model, tier, currency, at or datetime.now(UTC))
    with service_url(settings_for(home)) as url:
        book = run_async(_read(url))
    found = look_up(book, call)
    try:
        computed = compute_cost(found, counters)
    except InvalidFieldError as error:
        fail(f"the call cannot be priced: {error}")
    if computed is None:
        fail(str(unpriced_error(found, call, counters)))
    if as_json:
        quoted = {"cost": money.plain(computed.cost), "currency": currency, "price": computed.price.position}
        print_json(quoted)
    else:
        echo(f"{money.plain(computed.cost)} {currency}, by the price at position {computed.price.position:,}.")


_is_count = re.compile("[0-9]{1,15}").fullmatch


def _usage(pairs: tuple[str, ...]) -> Usage:
    counts: dict[str, int] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in COUNTERS or _is_count(number) is None:
            raise click.UsageError(f"{pair!r}: expected COUNTER=NUMBER with one of {', '.join(COUNTERS)}")
        counts[name] = int(number)
    try:
        return msgspec.convert(counts, Usage)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from None


def _print_table(found: list[BookPrice]) -> None:
    for line in table_lines(found):
        echo(line)


async def _read(url: URL) -> PriceBook:
    async with migrated_database(url) as database, database.connection() as connection:
        return await PriceCache().current(connection)
