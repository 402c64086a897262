"""Requests to a service without keys (`--no-auth`): only from this machine, no foreign web pages.

Without keys, a web page that is open in a browser on this machine could reach the service: by a host name that its
owner points to 127.0.0.1 (DNS rebinding), or by a request whose answer it cannot read, such as a form (CSRF).
"""

import re
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from ledger.api.services import SERVICES
from ledger.domain.errors import Forbidden, UnsupportedMediaType

_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether the value of the header `Host` names this machine: `localhost` or a loopback address, with any port."""
    return _LOOPBACK.fullmatch(host) is not None


def is_plainly_local(headers: Mapping[bytes, bytes], *, has_body: bool) -> bool:
    """Whether a request is allowed without keys and does not come from a browser.

    Args:
        headers: by their names in lower case.
        has_body: whether it needs a Content-Type.
    """
    from_browser = b"origin" in headers or b"sec-fetch-site" in headers
    is_typed = b"content-type" in headers or not has_body
    return is_typed and not from_browser and is_loopback(headers[b"host"].decode())


@web.middleware
async def require_local(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Without keys, refuse requests that may come from another machine or from a web page of another origin."""
    if request.app[SERVICES].keys is None:
        _check(request)
    return await handler(request)


def _check(request: web.Request) -> None:
    host = request.headers.get("Host", "")
    if not is_loopback(host):
        raise Forbidden(
            f"a service without keys answers only at localhost and 127.0.0.1; the Host header is {host[:100]!r}"
        )
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        raise Forbidden(
            f"a service without keys refuses requests from web pages of other origins, such as {origin[:100]!r}"
        )
    if request.headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
        raise Forbidden("a service without keys refuses cross-site requests from web pages")
    has_route = request.match_info.http_exception is None
    if has_route and request.method == "POST" and not request.headers.get("Content-Type"):
        raise UnsupportedMediaType(
            "a service without keys requires a Content-Type for a POST, such as application/json"
        )
