"""Parse a plain HTTP/1.1 POST that arrived in one segment: small, JSON, without any unusual header.

It refuses more than aiohttp's parser, never less: `tests/api/test_plain_request.py` compares the two.
"""

import re
from typing import NamedTuple

REQUEST_BYTES_MAX = 64 * 1024
HEAD_BYTES_MAX = 8 * 1024
HEADERS_MAX = 50

# A name, and a value of printable ASCII without spaces around it.
_HEADER = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,6}")

# Headers that change how aiohttp reads the body or keeps the connection, or that it refuses.
_UNUSUAL = frozenset(
    b"transfer-encoding content-encoding expect upgrade te trailer http2-settings proxy-connection "
    b"sec-websocket-key1".split()
)


class PlainRequest(NamedTuple):
    """The headers of a request, by their names in lower case, and its body."""

    headers: dict[bytes, bytes]
    body: bytes


def parse_plain_post(data: bytes, path: str) -> PlainRequest | None:
    """Parse a POST of JSON.

    Args:
        data: what was received.
        path: the path that the request must have.

    Returns:
        The request; None if the data is anything else than one complete, plain request.
    """
    request_line = b"POST %b HTTP/1.1\r\n" % path.encode()
    if len(data) > REQUEST_BYTES_MAX or not data.startswith(request_line):
        return None
    headers: dict[bytes, bytes] = {}
    place = len(request_line)
    while data[place : place + 2] != b"\r\n":
        found = _HEADER.match(data, place)
        if found is None or len(headers) == HEADERS_MAX:
            return None
        name = found[1].lower()
        if name in headers or name in _UNUSUAL:
            return None
        headers[name] = found[2]
        place = found.end()
    body = data[place + 2 :]
    return PlainRequest(headers, body) if place <= HEAD_BYTES_MAX and _is_plain(headers, len(body)) else None


def _is_plain(headers: dict[bytes, bytes], body_bytes: int) -> bool:
    length = headers.get(b"content-length", b"")
    return (
        b"host" in headers
        and _LENGTH.fullmatch(length) is not None
        and int(length) == body_bytes
        and headers.get(b"content-type", b"application/json") == b"application/json"
        and headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
    )
