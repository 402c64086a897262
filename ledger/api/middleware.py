"""The outermost middleware: every request gets a name, is counted, and can be logged."""

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


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request by its `X-Request-ID`, or anew; count it; log it where everything is logged."""
    began = time.monotonic()
    sent = request.headers.get("X-Request-ID")
    request_id = sent if sent is not None and _REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"
    # A connection serves many requests one after the other: what was said of the last must not cling to this.
    REQUEST_CONTEXT.set({"request_id": request_id})
    request[REQUEST_ID] = request_id
    answer = await handler(request)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    # One label for all methods that somebody may invent: labels stay in memory.
    method = request.method if request.method in hdrs.METH_ALL else "other"
    request.app[SERVICES].telemetry.count_request(method, route, answer.status)
    if logger.isEnabledFor(logging.DEBUG):
        about = {
            "method": request.method,
            "path": request.path,
            "status": answer.status,
            "seconds": round(time.monotonic() - began, 6),
            "position": answer.headers.get("Ledger-Position"),
        }
        logger.debug("answered", extra=about)
    return answer


@web.middleware
async def answer_with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into its problem document; nothing of a bug is shown but that there was one."""
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
        return problems.response(DatabaseUnavailable("the database did not answer; try again"))
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return problems.response(LedgerError("the service failed on this request; its log says why"))


async def set_security_headers(request: web.Request, answer: web.StreamResponse) -> None:
    """What every answer says beside itself, streams included: its request's name, and nothing that helps an attacker.

    Answers are for the key that asked: no cache may give them to another, nor a browser take them for a page.
    """
    headers = answer.headers
    if REQUEST_ID in request:
        headers["X-Request-ID"] = request[REQUEST_ID]
    headers["Server"] = "ledger"
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "private, no-cache" if "ETag" in headers else "no-store")
