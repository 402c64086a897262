"""GET /v1/campaigns/{id}/budget: spent, held and available money of a campaign, burn rate, days left."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.heavy_reads import turn
from ledger.api.min_position import MinPositionQuery, wait_for_read_models
from ledger.api.parameters import path_uuid, read_query
from ledger.api.routes import Route, always, json_response
from ledger.api.services import Services
from ledger.api.views import Money
from ledger.domain import money
from ledger.domain.errors import NotFound
from projections import queries

DAYS = Decimal(7)


class Budget(msgspec.Struct):
    """A campaign's budget: what is spent, held and available. Without a limit, what depends on it is null."""

    budget: Money | None
    spent: Money
    held: Money
    available: Money | None
    used_percentage: Money | None
    burn_rate_per_day: Money
    days_left: Money | None
    currency: str


async def get_budget(request: web.Request, services: Services) -> web.StreamResponse:
    """Return a campaign's budget."""
    query = read_query(request, MinPositionQuery)
    campaign_id = path_uuid(request)
    if not request[CALLER].may_see(campaign_id):
        raise _not_found(campaign_id)
    await wait_for_read_models(request, services, query.min_position)
    async with turn(request), services.read_database.connection() as connection:
        row = await queries.read_budget(connection, campaign_id, datetime.now(UTC))
    if row["currency"] is None:
        raise _not_found(campaign_id)
    limit, spent, held = row["budget"], row["spend"], row["held"]
    available = None if limit is None else money.subtract(money.subtract(limit, spent), held)
    budget = Budget(
        budget=_plain(limit),
        spent=money.plain(spent),
        held=money.plain(held),
        available=_plain(available),
        used_percentage=None if limit is None else money.plain(money.percentage(spent, limit)),
        burn_rate_per_day=money.plain(money.ratio(row["last_7_days"], DAYS)),
        days_left=_days_left(available, row["last_7_days"]),
        currency=row["currency"],
    )
    return json_response(budget, position=row["checkpoint"])


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else money.plain(amount)


def _days_left(available: Decimal | None, last_7_days: Decimal) -> str | None:
    """Return for how many days the available money lasts at the rate of the last 7 days; None if it does not run out.

    It does not if there is no limit, or if nothing was spent.
    """
    if available is None or last_7_days <= 0:
        return None
    # Not divided by the rate per day, which is rounded.
    return money.plain(money.ratio(money.EXACT.multiply(max(available, money.ZERO), DAYS), last_7_days))


def _not_found(campaign_id: UUID) -> NotFound:
    return NotFound(f"there is no campaign {campaign_id}")


ROUTES = [
    Route(
        "GET",
        "/v1/campaigns/{id}/budget",
        get_budget,
        "Read a campaign's budget.",
        {200: Budget},
        MinPositionQuery,
        problems=("not-found", "malformed", "projection-behind", "overloaded", "database-unavailable"),
        from_replica=True,
        is_heavy=always,
    )
]
