"""The HTTP service: all routes, middleware, and the parts of a running service, wired together."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from aiohttp import web

from ledger.api import (
    append,
    budgets,
    collections,
    event_stream,
    events,
    export,
    health,
    job_trees,
    keys,
    metrics,
    openapi,
    prices,
    projections,
    spend,
    transparency_log,
)
from ledger.api.client_connections import connection_factory
from ledger.api.compression import compress_answers
from ledger.api.connection_limits import ConnectionLimits
from ledger.api.event_decoding import EventDecoding
from ledger.api.event_loop_pauses import event_loop_pauses
from ledger.api.fast_append import FastAppend
from ledger.api.fast_read import FastRead
from ledger.api.heavy_reads import HeavyReads
from ledger.api.live_feed import LiveFeed
from ledger.api.local_requests import require_local
from ledger.api.middleware import answer_with_problems, finish_writes, observe, set_security_headers
from ledger.api.rate_limits import RateLimits
from ledger.api.replica import Replica
from ledger.api.request_bodies import RequestBodies
from ledger.api.services import SERVICES, Services
from ledger.api.telemetry import Telemetry
from ledger.audit.sealer import Sealer
from ledger.config import CONNECTIONS_MAX, REVERIFY_HOURS
from ledger.database import Database
from ledger.key_ring import KeyRing
from ledger.log.idempotency import IdempotencyKeys
from ledger.log.price_cache import PriceCache
from ledger.log.request_body import BODY_BYTES_MAX
from ledger.runtime import background
from projections.positions import read_model_waiters

RESOURCES = (
    append,
    event_stream,
    events,
    collections,
    job_trees,
    budgets,
    prices,
    spend,
    projections,
    transparency_log,
    export,
    keys,
    health,
    metrics,
)

ROUTES = [route for resource in RESOURCES for route in resource.ROUTES]
ROUTES.append(openapi.route_for(ROUTES))

SHUTDOWN_SECONDS = 10.0
BACKLOG = 1024


def make_app(services: Services) -> web.Application:
    """Return the aiohttp application that serves all routes."""
    middlewares = [finish_writes, observe, compress_answers, answer_with_problems, require_local]
    app = web.Application(middlewares=middlewares, client_max_size=BODY_BYTES_MAX)
    app[SERVICES] = services
    app.on_response_prepare.append(set_security_headers)
    app.on_shutdown.append(_close_feed)
    paths = {route.path for route in ROUTES}
    app.add_routes([route.definition(paths) for route in ROUTES])
    return app


async def _close_feed(app: web.Application) -> None:
    """End the event streams, which would otherwise last forever, before aiohttp waits for every response."""
    app[SERVICES].feed.close()


def listen(host: str, port: int) -> socket.socket:
    """Bind the port before anything else is started; port 0 takes a free one.

    Raises:
        OSError: the port is in use, or binding it is not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(BACKLOG)
    return listener


@asynccontextmanager
async def serving(
    database: Database,
    listener: socket.socket,
    *,
    with_worker: bool,
    sealer: Sealer | None = None,
    key_ring: KeyRing | None = None,
    rate_limits: RateLimits | None = None,
    appends: Database | None = None,
    direct: Database | None = None,
    replica: Database | None = None,
    clock: Callable[[], datetime] | None = None,
    connections_max: int = CONNECTIONS_MAX,
    reverify_hours: float = REVERIFY_HOURS,
) -> AsyncIterator[None]:
    """Serve the API inside the context; on exit, finish the requests that were accepted.

    Args:
        database: the primary.
        listener: the bound socket, from `listen`.
        with_worker: also update the read models and expire holds in this process.
        sealer: also seal the log in this process.
        key_ring: the API keys; None: no authentication.
        rate_limits: the limit of requests per key; None: no limit.
        appends: a pool for appends alone, which readers cannot exhaust; None: `database`.
        direct: a pool that bypasses the pooler, if `database` uses one.
        replica: a streaming replica to read from.
        clock: the time of recording; None: the database server's clock.
        connections_max: the most open client connections; for a further one an idle one is closed, else it gets 503.
        reverify_hours: the time in which the whole sealed log is hashed again, if this process seals.

    Yields:
        Nothing; the service accepts connections.
    """
    telemetry = Telemetry()
    async with (
        background(
            database,
            with_worker=with_worker,
            sealer=sealer,
            appends=appends,
            direct=direct,
            on_group=telemetry.observe_group,
            clock=clock,
            reverify_hours=reverify_hours,
        ) as (appender, signal),
        LiveFeed(database, signal, max(1, connections_max * 3 // 4)) as feed,
        event_loop_pauses(telemetry.registry),
    ):
        services = Services(
            database=database,
            read_database=database,
            read_models=read_model_waiters(database),
            appender=appender,
            feed=feed,
            request_bodies=RequestBodies(),
            event_decoding=EventDecoding(appender.require_room),
            idempotency_keys=IdempotencyKeys(database),
            heavy_reads=HeavyReads(),
            telemetry=telemetry,
            prices=PriceCache(),
            keys=key_ring,
            rate_limits=rate_limits,
            replica=Replica(replica) if replica is not None else None,
            sealer=sealer,
        )
        runner = web.AppRunner(make_app(services), handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        assert runner.server is not None
        limits = ConnectionLimits(connections_max, with_keys=key_ring is not None)
        factory = connection_factory(runner.server, limits, telemetry, (FastAppend(services), FastRead(services)))
        server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=BACKLOG)
        try:
            yield
        finally:
            server.close()
            await runner.cleanup()
