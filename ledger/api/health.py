"""Is it alive, and is it ready?"""

import asyncio
from typing import Literal

import msgspec
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from ledger.audit import tree_store
from ledger.database import CONNECTION_ERRORS
from ledger.database.migrations import current_revision, expected_revision
from projections.queries import projection_status

READY_SECONDS_MAX = 5.0
"""Load balancers wait no longer; a pooler whose server is away lets a query wait for minutes."""

LAG_SECONDS_MAX = 60.0
"""Further behind than this, the read models are no longer what a dashboard should show."""


class Health(msgspec.Struct):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct):
    """Each check says "ok" or, in plain words, what is wrong."""

    status: Literal["ok", "unavailable"]
    database: str
    migrations: str
    projections: str
    sealer: str


async def healthz(request: web.Request, services: Services) -> web.StreamResponse:
    """The process answers; nothing else is looked at."""
    return json_response(Health())


async def readyz(request: web.Request, services: Services) -> web.StreamResponse:
    """Whether requests can be served as they should be."""
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            readiness = await _check(services)
    except (*CONNECTION_ERRORS, SQLAlchemyError, TimeoutError) as error:
        unknown = "unknown, the database does not answer"
        readiness = Readiness("unavailable", f"does not answer ({type(error).__name__})", unknown, unknown, unknown)
    return json_response(readiness, status=200 if readiness.status == "ok" else 503)


async def _check(services: Services) -> Readiness:
    async with services.database.engine.connect() as connection:
        current, expected = await current_revision(connection), expected_revision()
    if current != expected:
        trouble = f"at {current}, this release needs {expected}: run `ledger migrate`"
        return Readiness("unavailable", "ok", trouble, "unknown until migrated", "unknown until migrated")
    async with services.database.connection() as connection:
        standing = await projection_status(connection)
        sealing = await tree_store.read_seal_status(connection)
    projections = standing.trouble() or "ok"
    if projections == "ok" and standing.lag_seconds > LAG_SECONDS_MAX:
        projections = f"{standing.lag_seconds:.0f} s behind: is a worker running?"
    sealer = sealing.problem() or ("ok" if sealing.verifier_key else "not sealed: no key yet")
    is_ready = projections == "ok" and sealing.problem() is None
    return Readiness("ok" if is_ready else "unavailable", "ok", "ok", projections, sealer)


ROUTES = [
    Route("GET", "/healthz", healthz, "Is the process alive?", {200: Health}, needs=None),
    Route("GET", "/readyz", readyz, "Can it serve?", {200: Readiness, 503: Readiness}, needs=None),
]
