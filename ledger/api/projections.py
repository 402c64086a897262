"""GET /v1/projections: position, lag and last error of each read model."""

from typing import Literal

import msgspec
from aiohttp import web

from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from projections import queries
from projections.checkpoint import Failure
from projections.tables import NAMES


class Projection(msgspec.Struct):
    """The status of one read model. All of them share one checkpoint."""

    name: str
    status: Literal["running", "failing", "paused"]
    position: int
    head: int
    lag_events: int
    lag_seconds: float
    last_error: Failure | None


class Projections(msgspec.Struct):
    """The status of every read model."""

    items: list[Projection]


async def get_projections(request: web.Request, services: Services) -> web.StreamResponse:
    """Return the status of the read models."""
    async with services.database.connection() as connection:
        status = await queries.projection_status(connection)
    items = [
        Projection(
            name,
            status.status,
            status.position,
            status.head,
            status.lag_events,
            status.lag_seconds,
            status.failure,
        )
        for name in NAMES
    ]
    return json_response(Projections(items), position=status.position)


ROUTES = [
    Route(
        "GET",
        "/v1/projections",
        get_projections,
        "Read the status of the read models.",
        {200: Projections},
        problems=("malformed", "database-unavailable"),
    )
]
