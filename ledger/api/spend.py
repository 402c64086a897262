"""GET /v1/spend: settled costs, summed by any keys (day, model, provider, campaign, job, label, ...)."""

import re
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.heavy_reads import turn
from ledger.api.min_position import MinPositionQuery, wait_for_read_models
from ledger.api.parameters import read_query
from ledger.api.routes import JSON, Route, always
from ledger.api.services import Services
from ledger.api.views import Money
from ledger.domain.codec import utc
from ledger.domain.errors import Malformed, ReadTooLarge
from ledger.domain.fields import Instant
from ledger.log.point_in_time import parse_point_in_time, resolve_position
from ledger.time_zones import Offsets, offsets_of, start_of_day
from projections.spend_sums import KEYS, Basis, SpendSelection, is_key, read_spend

SUMS_MAX = 50_000
"""The most sums of a response, which is in memory as a whole: about 16 MiB."""

KEYS_MAX = 20

SpendKey = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": rf"^({'|'.join(KEYS)}|label\.[a-z][a-z0-9_.-]{{0,62}})$"})
]


class SpendQuery(MinPositionQuery, kw_only=True, forbid_unknown_fields=True):
    """Which costs to sum, and by which keys."""

    group_by: tuple[SpendKey, ...] = ()
    start: str | None = msgspec.field(name="from", default=None)
    end: str | None = msgspec.field(name="to", default=None)
    campaign_id: UUID | None = None
    time_zone: str = "UTC"
    basis: Basis = "occurred"
    as_of: str | None = None


class Spend(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A sum of settled costs, with the keys of `group_by`; `label.KEY` is a member of that name."""

    hour: str | msgspec.UnsetType = msgspec.UNSET
    day: str | msgspec.UnsetType = msgspec.UNSET
    week: str | msgspec.UnsetType = msgspec.UNSET
    month: str | msgspec.UnsetType = msgspec.UNSET
    resource_type: str | None | msgspec.UnsetType = msgspec.UNSET
    model_used: str | None | msgspec.UnsetType = msgspec.UNSET
    provider: str | None | msgspec.UnsetType = msgspec.UNSET
    service_tier: str | None | msgspec.UnsetType = msgspec.UNSET
    campaign_id: UUID | None | msgspec.UnsetType = msgspec.UNSET
    campaign_name: str | None | msgspec.UnsetType = msgspec.UNSET
    agent_job_id: UUID | None | msgspec.UnsetType = msgspec.UNSET
    root_job_id: UUID | None | msgspec.UnsetType = msgspec.UNSET
    agent_type: str | None | msgspec.UnsetType = msgspec.UNSET
    agent_name: str | None | msgspec.UnsetType = msgspec.UNSET
    actor: str | msgspec.UnsetType = msgspec.UNSET
    currency: str
    cost: Money
    tokens_used: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    entries: int
    unpriced: int


class SpendPage(msgspec.Struct):
    """The sums, ordered by their keys."""

    items: list[Spend]


async def get_spend(request: web.Request, services: Services) -> web.StreamResponse:
    """Return the sums of settled costs."""
    query = read_query(request, SpendQuery)
    selection = _selection(query, request[CALLER].allowed_campaign_ids)
    if query.as_of is not None:
        async with services.read_database.connection() as connection:
            position = await resolve_position(connection, parse_point_in_time(query.as_of))
        selection = selection._replace(position=position)
        # The journal has every movement up to this position only once the read models reflect it.
        await wait_for_read_models(request, services, max(position, query.min_position or 0))
    else:
        await wait_for_read_models(request, services, query.min_position)
    async with turn(request), services.read_database.connection() as connection:
        position, number, sums = await read_spend(connection, selection, SUMS_MAX + 1)
    if number > SUMS_MAX:
        raise ReadTooLarge(
            f"there are more than {SUMS_MAX:,} sums; use fewer keys in group_by, or narrow `from`, `to` or campaign_id"
        )
    body = f'{{"items":{sums}}}'.encode()
    shown = position if selection.position is None else selection.position
    return web.Response(body=body, content_type=JSON, headers={"Ledger-Position": str(shown)})


def _selection(query: SpendQuery, allowed: frozenset[UUID] | None) -> SpendSelection:
    _require_keys(query.group_by)
    zone = offsets_of(query.time_zone)
    campaign_id = query.campaign_id
    if campaign_id is not None and allowed is not None:
        # One condition: with two, PostgreSQL might read the costs of a campaign that the caller may not see.
        campaign_id, allowed = None, allowed & {campaign_id}
    return SpendSelection(
        query.group_by,
        _read_bound("from", query.start, zone),
        _read_bound("to", query.end, zone),
        campaign_id,
        allowed,
        zone if query.time_zone != "UTC" else None,
        query.basis,
        None,
    )


def _require_keys(keys: tuple[str, ...]) -> None:
    for key in keys:
        if not is_key(key):
            raise Malformed(f"cannot group by {key[:80]!r}; the keys are {', '.join(KEYS)} and label.KEY")
    if len(set(keys)) < len(keys):
        raise Malformed("group_by has a key twice")
    if len(keys) > KEYS_MAX:
        raise Malformed(f"group_by has more than {KEYS_MAX} keys")


def _read_bound(name: str, value: str | None, zone: Offsets) -> datetime | None:
    """Read a time, or a date, which is the start of that day in the zone."""
    if value is None:
        return None
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII):
            return start_of_day(date.fromisoformat(value), zone)
        if not re.match(r"[0-9]{4}-", value, re.ASCII):
            raise ValueError
        return utc(name, msgspec.convert(value, Instant))
    except (ValueError, OverflowError, msgspec.ValidationError):
        raise Malformed(
            f"query parameter {name!r} cannot be {value[:50]!r}: send a date, such as 2025-01-31, or a time with a "
            "time zone, such as 2025-01-31T12:00:00Z"
        ) from None


ROUTES = [
    Route(
        "GET",
        "/v1/spend",
        get_spend,
        "Sum the settled costs.",
        {200: SpendPage},
        SpendQuery,
        problems=("malformed", "read-too-large", "projection-behind", "overloaded", "database-unavailable"),
        from_replica=True,
        is_heavy=always,
        description="There is a sum for each currency. By default, an adjustment counts at the time of its entry; with "
        "`basis=booked`, each movement counts when it was recorded, so a past period never changes. `as_of` shows the "
        "movements up to then; names of campaigns are those of now.",
    )
]
