"""The composition root: routes, middleware and the parts of a running service."""

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
    keys,
    metrics,
    openapi,
    projections,
    spend,
    transparency_log,
)
from ledger.api.client_connections import connection_factory
from ledger.api.live_feed import LiveFeed
from ledger.api.middleware import answer_with_problems, observe, set_security_headers
from ledger.api.rate_limits import RateLimits
from ledger.api.replica import Replica
from ledger.api.request_bodies import RequestBodies
from ledger.api.services import SERVICES, Services
from ledger.api.telemetry import Telemetry
from ledger.audit.sealer import Sealer
from ledger.config import CONNECTIONS_MAX
from ledger.database import Database
from ledger.keys import KeyRing
from ledger.log.decode import BODY_BYTES_MAX
from ledger.runtime import background

RESOURCES = (
    append,
    event_stream,
    events,
    collections,
    budgets,
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
    """Make the aiohttp application over a running service's parts."""
    app = web.Application(middlewares=[observe, answer_with_problems], client_max_size=BODY_BYTES_MAX)
    app[SERVICES] = services
    app.on_response_prepare.append(set_security_headers)
    app.on_shutdown.append(_end_feed)
    app.add_routes([route.definition() for route in ROUTES])
    return app


async def _end_feed(app: web.Application) -> None:
    """End the answers that never end by themselves, before aiohttp waits for every answer."""
    app[SERVICES].feed.close()


def listen(host: str, port: int) -> socket.socket:
    """Bind the port before anything else is started; 0 takes a free one.

    Raises:
        OSError: it is taken, or not ours to take.
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
    direct: Database | None = None,
    replica: Database | None = None,
    clock: Callable[[], datetime] | None = None,
    connections_max: int = CONNECTIONS_MAX,
) -> AsyncIterator[None]:
    """Serve the API while inside; leaving answers what was accepted.

    Args:
        with_worker: keep the read models and expire holds in this process too.
        sealer: seal the log in this process too.
        key_ring: the keys that callers must have; None: everybody may do everything.
        rate_limits: how often a key may ask.
        direct: a way past the pooler, where `database` goes through one.
        replica: a streaming replica to read from.
        clock: what events are recorded by; the server's own when None.
        connections_max: how many clients' connections may be open; one more is answered 503 and closed.
    """
    telemetry = Telemetry()
    async with (
        background(
            database,
            with_worker=with_worker,
            sealer=sealer,
            direct=direct,
            on_group=telemetry.observe_group,
            clock=clock,
        ) as (appender, signal),
        LiveFeed(database, signal) as feed,
    ):
        services = Services(
            database=database,
            read_database=database,
            appender=appender,
            feed=feed,
            request_bodies=RequestBodies(),
            telemetry=telemetry,
            keys=key_ring,
            rate_limits=rate_limits,
            replica=Replica(replica) if replica is not None else None,
        )
        runner = web.AppRunner(
            make_app(services),
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        await runner.setup()
        assert runner.server is not None
        factory = connection_factory(runner.server, connections_max, telemetry)
        server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=BACKLOG)
        try:
            yield
        finally:
            server.close()
            await runner.cleanup()
