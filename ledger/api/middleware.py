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
from ledger.database import CONNECTION_ERRORS
from ledger.domain.errors import DatabaseUnavailable, LedgerError
from ledger.logging_setup import REQUEST_CONTEXT

logger = logging.getLogger(__name__)

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

CLIENT_CLOSED_REQUEST = 499
"""The status with which the metrics count a read that ended because its client had disconnected."""


@web.middleware
async def finish_writes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finish a request that changes something even if its client disconnects; aiohttp cancels the handlers of reads."""
    if request.method in ("GET", "HEAD"):
        return await handler(request)
    return await asyncio.shield(handler(request))


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Set the request id (`X-Request-ID`, else a new one), count the request, and log it at level debug."""
    began = time.monotonic()
    sent = request.headers.get("X-Request-ID")
    request_id = sent if sent is not None and _REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"
    # A connection's requests share one context: replace what the previous request has set.
    REQUEST_CONTEXT.set({"request_id": request_id})
    request[REQUEST_ID] = request_id
    try:
        response = await handler(request)
    except asyncio.CancelledError:
        _count(request, CLIENT_CLOSED_REQUEST)
        raise
    _count(request, response.status)
    if logger.isEnabledFor(logging.DEBUG):
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
    """Turn every error into its problem document; of a bug, clients see only that it happened."""
    try:
        return await handler(request)
    except LedgerError as error:
        if error.slug == LedgerError.slug:
            logger.exception("%s %s failed", request.method, request.path)
        return problems.response(error)
    except web.HTTPException as error:
        return problems.http_exception_response(error)
    except (*CONNECTION_ERRORS, SQLAlchemyError, TimeoutError) as error:
        logger.warning("%s %s: the database failed: %s", request.method, request.path, type(error).__name__)
        return problems.response(DatabaseUnavailable("the database did not respond; try again"))
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return problems.response(LedgerError(problems.INTERNAL_ERROR))


async def set_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Set headers of every response, streams included: request id, no sniffing, no shared caching, no server version.

    A response is meant for one API key: a cache must not serve it to another.
    """
    headers = response.headers
    if REQUEST_ID in request:
        headers["X-Request-ID"] = request[REQUEST_ID]
    headers["Server"] = "ledger"
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "private, no-cache" if "ETag" in headers else "no-store")
