"""GET /healthz (liveness) and /readyz (readiness: database, migrations, read models, sealer, log)."""

import asyncio
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from ledger.api.routes import Route, json_response
from ledger.api.services import Services
from ledger.api.views import Time
from ledger.audit import tree_store
from ledger.audit.reverification import read_reverification
from ledger.database import CONNECTION_ERRORS
from ledger.database.migrations import current_revision, running_problem
from ledger.database.singleton import MissingRowError
from ledger.domain.codec import time_text
from projections.queries import projection_status

READY_SECONDS_MAX = 5.0
"""Timeout of the readiness check, as of load balancers. A pooler whose server is down holds a query for minutes."""

LAG_SECONDS_MAX = 60.0
"""The longest lag at which the read models count as ready."""


UNMIGRATED = "unknown until migrated"


class Health(msgspec.Struct):
    """The process is alive."""

    status: Literal["ok"]


class ReverificationProgress(msgspec.Struct):
    """How far the background re-verification has hashed the sealed log again, and when it last reached its end."""

    position: Annotated[int, msgspec.Meta(description="The position that the current pass has reached.")]
    last_full_pass: Annotated[
        Time | None, msgspec.Meta(description="When a pass last reached the end of the sealed log; null if never.")
    ]


class Readiness(msgspec.Struct):
    """The result of each check: `ok`, or what is wrong. `log-changed`: a sealed event differs from the seal."""

    status: Literal["ok", "unavailable", "log-changed"]
    database: str
    migrations: str
    projections: str
    sealer: str
    log: Annotated[str, msgspec.Meta(description="Whether the sealed events still match the seal.")]
    reverification: Annotated[
        ReverificationProgress | None, msgspec.Meta(description="Progress of the background re-verification.")
    ] = None


async def healthz(request: web.Request, services: Services) -> web.StreamResponse:
    """Respond without any query: on a fault that only a restart can fix, the process ends by itself."""
    return json_response(Health("ok"))


async def readyz(request: web.Request, services: Services) -> web.StreamResponse:
    """Respond 200 if every check passes, else 503."""
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            readiness = await _check(services)
    except (*CONNECTION_ERRORS, SQLAlchemyError, TimeoutError) as error:
        unknown = "unknown: the database does not respond"
        readiness = Readiness(
            "unavailable", f"does not respond ({type(error).__name__})", unknown, unknown, unknown, unknown
        )
    except MissingRowError as error:
        unknown = "unknown: a row is missing"
        readiness = Readiness("unavailable", str(error), "ok", unknown, unknown, unknown)
    return json_response(readiness, status=200 if readiness.status == "ok" else 503)


async def _check(services: Services) -> Readiness:
    async with services.database.connection() as connection:
        problem = running_problem(await current_revision(connection))
    if problem is not None:
        return Readiness("unavailable", "ok", problem, UNMIGRATED, UNMIGRATED, UNMIGRATED)
    async with services.database.connection() as connection:
        status = await projection_status(connection)
        seal = await tree_store.read_seal_status(connection)
        reverification = await read_reverification(connection)
    projections = status.problem() or "ok"
    if projections == "ok" and status.lag_seconds > LAG_SECONDS_MAX:
        projections = f"{status.lag_seconds:.0f} s behind: is a worker running?"
    # A key that cannot seal this log concerns this process alone.
    seal_problem = seal.problem() or (services.sealer.problem if services.sealer is not None else None)
    sealer = seal_problem or ("ok" if seal.verifier_key else "not sealed: no key yet")
    append_problem = services.appender.problem()
    is_ready = projections == "ok" and seal_problem is None and append_problem is None
    last_full_pass = reverification.last_full_pass_at
    return Readiness(
        "log-changed" if reverification.problem() else "ok" if is_ready else "unavailable",
        database=f"does not record events: {append_problem}" if append_problem else "ok",
        migrations="ok",
        projections=projections,
        sealer=sealer,
        log=reverification.problem() or "ok",
        reverification=ReverificationProgress(
            reverification.position, time_text(last_full_pass) if last_full_pass else None
        ),
    )


ROUTES = [
    Route("GET", "/healthz", healthz, "Check liveness.", {200: Health}, needs=None),
    Route("GET", "/readyz", readyz, "Check readiness.", {200: Readiness, 503: Readiness}, needs=None),
]
