"""The composition root: routes, middleware and the parts of a running service."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.api import append, collections, events, figures, health, keys, listener, log, metrics, openapi
from ledger.api.feed import Feed
from ledger.api.intake import BODY_BYTES_MAX, Intake
from ledger.api.problems import answer_with_problems
from ledger.api.rates import Rates
from ledger.api.services import SERVICES, Services
from ledger.audit.sealer import Sealer
from ledger.keys import KeyRing
from projections.background import background

RESOURCES = (append, listener, events, collections, figures, log, keys, health, metrics)

ROUTES = [route for resource in RESOURCES for route in resource.ROUTES]
ROUTES.append(openapi.route_for(ROUTES))

SHUTDOWN_SECONDS = 10.0
KEEPALIVE_SECONDS = 75.0


def make_app(services: Services) -> web.Application:
    """Make the aiohttp application over a running service's parts."""
    app = web.Application(middlewares=[answer_with_problems], client_max_size=BODY_BYTES_MAX)
    app[SERVICES] = services
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
    listener.listen(1024)
    return listener


@asynccontextmanager
async def serving(
    engine: AsyncEngine,
    listener: socket.socket,
    *,
    with_worker: bool,
    sealer: Sealer | None = None,
    key_ring: KeyRing | None = None,
    rates: Rates | None = None,
    clock: Callable[[], datetime] | None = None,
) -> AsyncIterator[None]:
    """Serve the API while inside; leaving answers what was accepted.

    Args:
        with_worker: keep the read models and expire holds in this process too.
        sealer: seal the log in this process too.
        key_ring: the keys that callers must have; None: everybody may do everything.
        rates: how often a key may ask.
        clock: what events are recorded by; the server's own when None.
    """
    async with (
        background(engine, with_worker=with_worker, sealer=sealer, clock=clock) as (appender, bell),
        Feed(engine, bell) as feed,
    ):
        runner = web.AppRunner(
            make_app(Services(engine, appender, feed, Intake(), key_ring, rates)),
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        await runner.setup()
        await web.SockSite(runner, listener).start()
        try:
            yield
        finally:
            await runner.cleanup()
