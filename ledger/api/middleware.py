"""Middleware: X-Request-ID, metrics, access log, problem documents, security headers, disconnects."""

import asyncio
import logging
import random
import re
import time

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from sqlalchemy.exc import SQLAlchemyError

from ledger.api import problems
from ledger.api.services import SERVICES
from ledger.database import CONFLICT_ERRORS, CONNECTION_ERRORS, log_level
from ledger.domain.errors import DatabaseUnavailable, LedgerError
from ledger.logging_setup import REQUEST_CONTEXT

logger = logging.getLogger(__name__)

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)

SECURITY_HEADERS = {"Server": "ledger", "X-Content-Type-Options": "nosniff"}
"""Headers of every response: no server version, no sniffing."""

NO_STORE = "no-store"
"""`Cache-Control` of every response that sets none: it is meant for one API key, so no cache must keep it."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

CLIENT_CLOSED_REQUEST = 499
"""The status with which the metrics count a read that ended because its client had disconnected."""


@web.middleware
async def finish_writes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finish a request that changes something even if its client disconnects; aiohttp cancels the handlers of reads."""
    if request.method in ("GET", "HEAD"):
        return await handler(request)
    return await asyncio.shield(handler(request))


def request_id_of(sent: str | None) -> str:
    """Return the request id that the client sent, if it is valid, else a new one."""
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"


def is_access_logged() -> bool:
    """Whether every request is logged."""
    return logger.isEnabledFor(logging.DEBUG)


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Set the request id (`X-Request-ID`, else a new one), count the request, and log it at level debug."""
    began = time.monotonic()
    request_id = request_id_of(request.headers.get("X-Request-ID"))
    # A connection's requests share one context: replace what the previous request has set.
    REQUEST_CONTEXT.set({"request_id": request_id})
    request[REQUEST_ID] = request_id
    try:
        response = await handler(request)
    except asyncio.CancelledError:
        _count(request, CLIENT_CLOSED_REQUEST)
        raise
    _count(request, response.status)
    if is_access_logged():
        fields = {
            "method": request.method,
            "path": request.path,
            "status": response.status,
            "seconds": round(time.monotonic() - began, 6),
            "position": response.headers.get("Ledger-Position"),
        }
        logger.debug("responded", extra=fields)
    return response


def _count(request: web.Request, status: int) -> None:
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    # Labels stay in memory, so all unknown methods share one.
    method = request.method if request.method in hdrs.METH_ALL else "other"
    request.app[SERVICES].telemetry.count_request(method, route, status)


@web.middleware
async def answer_with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into its problem document; that of a bug contains no details."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return problems.http_exception_response(error)
    except Exception as error:  # noqa: BLE001 (every error has a problem document)
        return error_response(error, request.method, request.path)


def error_response(error: Exception, method: str, path: str) -> web.Response:
    """Return the problem document of an error that a handler raised, and log what clients must not see.

    Args:
        error: what was raised.
        method: the method of the request, for the log.
        path: the path of the request, for the log.
    """
    if isinstance(error, LedgerError):
        if error.slug == LedgerError.slug:
            logger.error("%s %s failed", method, path, exc_info=error)
        return problems.response(error)
    if isinstance(error, (*CONFLICT_ERRORS, *CONNECTION_ERRORS, SQLAlchemyError, TimeoutError)):
        logger.log(log_level(error), "%s %s: the database failed: %s", method, path, type(error).__name__)
        return problems.response(DatabaseUnavailable("the database did not respond; try again"))
    logger.error("%s %s failed", method, path, exc_info=error)
    return problems.response(LedgerError(problems.INTERNAL_ERROR))


async def set_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Set the request id and the security headers of every response, streams included."""
    headers = response.headers
    if REQUEST_ID in request:
        headers["X-Request-ID"] = request[REQUEST_ID]
    headers.update(SECURITY_HEADERS)
    headers.setdefault("Cache-Control", "private, no-cache" if "ETag" in headers else NO_STORE)
