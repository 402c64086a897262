"""The outermost middleware: every request gets a name, is counted, and can be logged."""

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from ledger.api.services import SERVICES
from ledger.logs import ABOUT

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request by its `X-Request-ID`, or anew; count it; log it where everything is logged."""
    began = time.monotonic()
    sent = request.headers.get("X-Request-ID")
    request_id = sent if sent is not None and _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)
    # A connection serves many requests one after the other: what was said of the last must not cling to this.
    ABOUT.set({"request_id": request_id})
    answer = await handler(request)
    if not answer.prepared:
        answer.headers["X-Request-ID"] = request_id
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    request.app[SERVICES].telemetry.answered(request.method, route, answer.status)
    if log.isEnabledFor(logging.DEBUG):
        about = {
            "method": request.method,
            "path": request.path,
            "status": answer.status,
            "seconds": round(time.monotonic() - began, 6),
            "position": answer.headers.get("Ledger-Position"),
        }
        log.debug("answered", extra=about)
    return answer
