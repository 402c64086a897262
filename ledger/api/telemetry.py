"""What is counted of a running service, and the name that each request goes by."""

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram
from structlog.contextvars import bind_contextvars, clear_contextvars

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

GROUP_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Telemetry:
    """The counters of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ledger_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._refusals = Counter("ledger_refusals", "Events refused, by problem.", ["problem"], registry=registry)
        self._group_events = Histogram(
            "ledger_group_events", "Events recorded in one transaction.", buckets=GROUP_BUCKETS, registry=registry
        )
        self._group_seconds = Histogram(
            "ledger_append_seconds", "Time of an append transaction.", buckets=SECONDS_BUCKETS, registry=registry
        )

    def answered(self, method: str, route: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(method, route, status).inc()

    def refused(self, problem: str) -> None:
        """Count an event that was refused."""
        self._refusals.labels(problem).inc()

    def recorded(self, events: int, seconds: float) -> None:
        """Count a group of appends."""
        self._group_events.observe(events)
        self._group_seconds.observe(seconds)


def observed_by(telemetry: Telemetry) -> "Middleware":
    """The middleware that names, counts and logs requests."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        sent = request.headers.get("X-Request-ID", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        # A connection serves many requests one after the other: what was said of the last must not cling to this.
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        answer = await handler(request)
        if not answer.prepared:
            answer.headers["X-Request-ID"] = request_id
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        telemetry.answered(request.method, route, answer.status)
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

    return observe
