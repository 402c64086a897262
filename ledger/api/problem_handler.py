"""Problem documents for errors that occur outside all routes, in aiohttp's protocol of a connection."""

import logging
from typing import Any

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from ledger.api import problems
from ledger.api.middleware import SECURITY_HEADERS
from ledger.domain.errors import LedgerError, Malformed

logger = logging.getLogger(__name__)

VERSIONS = (HttpVersion11, HttpVersion10)


class ProblemHandler(RequestHandler):
    """Parses requests and writes responses."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Parse data; refuse HTTP versions other than 1.0 and 1.1, which aiohttp would echo."""
        requests = self._request_count
        super().data_received(data)
        for index in range(requests - self._request_count, 0):
            if getattr(self._messages[index][0], "version", HttpVersion11) not in VERSIONS:
                error = _ErrInfo(status=400, exc=BadHttpMessage("another version of HTTP"), message="")
                self._messages[index] = (error, EMPTY_PAYLOAD)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write a response; one that aiohttp raised outside the middleware becomes a problem document.

        Args:
            request: the request.
            resp: its response.
            start_time: when the request began.

        Returns:
            the response, and whether the client has disconnected.
        """
        if isinstance(resp, web.HTTPException):
            resp = problems.http_exception_response(resp)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log an error outside all routes, unless the client is at fault: otherwise any client could fill the log."""
        if not isinstance(kw.get("exc_info"), RequestPayloadError | ConnectionError):
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond to a request that aiohttp cannot parse, or to a bug outside all routes.

        aiohttp's `message` quotes the line at fault, which may hold an API key: it is neither logged nor sent.

        Args:
            request: the request, as far as it was read.
            status: the HTTP status; below 500 the request is at fault.
            exc: the error.
            message: aiohttp's message.

        Returns:
            A problem document, after which the connection is closed.

        Raises:
            ConnectionError: a response was already begun.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("a response was already begun; no other can be sent")
        if status < 500:
            logger.debug("a request could not be parsed: %s", type(exc).__name__)
            error: LedgerError = Malformed(
                "this is not a valid HTTP/1.1 request, or its URL or a header is longer than 8 KiB"
            )
        else:
            logger.error("a request failed outside all routes: %s", type(exc).__name__)
            error = LedgerError(problems.INTERNAL_ERROR)
        response = problems.response(error)
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response
