"""GET /healthz (liveness) and /readyz (readiness: database, migrations, read models, sealer)."""

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
"""Timeout of the readiness check, as of load balancers. A pooler whose server is down holds a query for minutes."""

LAG_SECONDS_MAX = 60.0
"""The longest lag at which the read models count as ready."""


class Health(msgspec.Struct):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct):
    """The result of each check: `ok`, or what is wrong."""

    status: Literal["ok", "unavailable"]
    database: str
    migrations: str
    projections: str
    sealer: str


async def healthz(request: web.Request, services: Services) -> web.StreamResponse:
    """Respond without any check: the process is alive."""
    return json_response(Health())


async def readyz(request: web.Request, services: Services) -> web.StreamResponse:
    """Respond 200 if every check passes, else 503."""
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            readiness = await _check(services)
    except (*CONNECTION_ERRORS, SQLAlchemyError, TimeoutError) as error:
        unknown = "unknown: the database does not respond"
        readiness = Readiness("unavailable", f"does not respond ({type(error).__name__})", unknown, unknown, unknown)
    return json_response(readiness, status=200 if readiness.status == "ok" else 503)


async def _check(services: Services) -> Readiness:
    async with services.database.connection() as connection:
        current, expected = await current_revision(connection), expected_revision()
    if current != expected:
        problem = f"at {current}, this release needs {expected}: run `ledger migrate`"
        return Readiness("unavailable", "ok", problem, "unknown until migrated", "unknown until migrated")
    async with services.database.connection() as connection:
        status = await projection_status(connection)
        seal = await tree_store.read_seal_status(connection)
    projections = status.problem() or "ok"
    if projections == "ok" and status.lag_seconds > LAG_SECONDS_MAX:
        projections = f"{status.lag_seconds:.0f} s behind: is a worker running?"
    sealer = seal.problem() or ("ok" if seal.verifier_key else "not sealed: no key yet")
    is_ready = projections == "ok" and seal.problem() is None
    return Readiness("ok" if is_ready else "unavailable", "ok", "ok", projections, sealer)


ROUTES = [
    Route("GET", "/healthz", healthz, "Check liveness.", {200: Health}, needs=None),
    Route("GET", "/readyz", readyz, "Check readiness.", {200: Readiness, 503: Readiness}, needs=None),
]
