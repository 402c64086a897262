"""min_position and Ledger-Min-Position: wait until the database that is read has reached a position."""

import asyncio
import time
from typing import Annotated

import msgspec
from aiohttp import web

from ledger.api.parameters import Position, read_position
from ledger.api.services import Services
from ledger.database import Database
from ledger.domain.errors import ProjectionBehind
from ledger.log.read import read_head
from projections import queries

HEADER = "Ledger-Min-Position"

POLL_SECONDS = 0.01


class MinPositionQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A read of the read models that may wait for a position."""

    min_position: Annotated[
        Position | None,
        msgspec.Meta(description="Answer only once the read models reflect this position; waits for at most 5 s."),
    ] = None


async def wait_for_read_models(request: web.Request, services: Services, position: int | None) -> None:
    """Wait until the read models reflect the position that the request requires.

    Args:
        request: a request that may have the header `Ledger-Min-Position`.
        services: the parts of the running service.
        position: the query parameter `min_position`; it takes precedence over the header.

    Raises:
        ProjectionBehind: the position was not reached within `services.wait_seconds_max`.
    """
    if position is None:
        position = _header(request)
    if position is not None:
        await queries.wait_for_position(services.read_database, position, services.wait_seconds_max)


async def wait_for_log(request: web.Request, services: Services, after: int = 0) -> None:
    """Wait until the replica's log reaches the positions that the client has seen. The primary's log always has.

    Args:
        request: a request that may have the header `Ledger-Min-Position`.
        services: the parts of the running service.
        after: the position after which the client continues reading.

    Raises:
        ProjectionBehind: the position was not reached within `services.wait_seconds_max`.
    """
    position = max(after, _header(request) or 0)
    if position and services.reads_from_replica:
        await _wait_for_head(services.read_database, position, services.wait_seconds_max)


def _header(request: web.Request) -> int | None:
    header = request.headers.get(HEADER)
    return read_position(header, HEADER) if header is not None else None


async def _wait_for_head(database: Database, position: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        async with database.connection() as connection:
            head = await read_head(connection)
        if head >= position:
            return
        if time.monotonic() >= deadline:
            raise ProjectionBehind(f"the replica's log is at position {head}, not yet at {position}")
        await asyncio.sleep(POLL_SECONDS)
