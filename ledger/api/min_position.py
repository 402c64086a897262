"""min_position and Ledger-Min-Position: wait until the database that is read has reached a position."""

import msgspec
from aiohttp import web

from ledger.api.auth import CALLER
from ledger.api.parameters import Position, read_header, read_position
from ledger.api.services import Services
from ledger.log.point_in_time import require_positions

HEADER = "Ledger-Min-Position"


class MinPositionQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A read of the read models that may wait for a position."""

    min_position: Position | None = None


async def wait_for_read_models(request: web.Request, services: Services, position: int | None) -> None:
    """Wait until the read models reflect the position that the request requires.

    Args:
        request: a request that may have the header `Ledger-Min-Position`.
        services: the parts of the running service.
        position: the query parameter `min_position`; it takes precedence over the header.

    Raises:
        Malformed: the log does not reach the position.
        ProjectionBehind: the position was not reached within `services.wait_seconds_max`.
        Overloaded: too many reads of the key wait.
    """
    if position is None:
        position = _header(request)
    if position is not None:
        await services.read_models.wait(position, services.wait_seconds_max, request[CALLER].name)


async def wait_for_log(request: web.Request, services: Services, after: int = 0) -> None:
    """Wait until the replica's log reaches the positions that the client has seen; the primary's has reached them.

    Args:
        request: a request that may have the header `Ledger-Min-Position`.
        services: the parts of the running service.
        after: the position after which the client continues reading.

    Raises:
        Malformed: the primary's log does not reach the position of the header.
        ProjectionBehind: the position was not reached within `services.wait_seconds_max`.
        Overloaded: too many reads of the key wait.
    """
    header = _header(request) or 0
    if services.replica is not None and services.reads_from_replica:
        if position := max(after, header):
            await services.replica.log.wait(position, services.wait_seconds_max, request[CALLER].name)
    elif header:
        async with services.database.connection() as connection:
            await require_positions(connection, header)


def _header(request: web.Request) -> int | None:
    header = read_header(request, HEADER)
    return read_position(header, HEADER) if header is not None else None
