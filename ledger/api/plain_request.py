"""Parse a plain HTTP/1.1 GET or POST of JSON that arrived in one segment, without any unusual header.

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


_GET = re.compile(rb"GET (/[A-Za-z0-9/_.-]*)(?:\?([A-Za-z0-9_.~=&,:+-]+))? HTTP/1\.1\r\n")


class PlainPost(NamedTuple):
    """The headers of a request, by their names in lower case, and its body."""

    headers: dict[bytes, bytes]
    body: bytes


class PlainGet(NamedTuple):
    """The path, the query string and the headers of a request, by their names in lower case."""

    path: str
    query_string: str
    headers: dict[bytes, bytes]


def parse_plain_post(data: bytes, path: str) -> PlainPost | None:
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
    parsed = _parse_headers(data, len(request_line))
    if parsed is None:
        return None
    headers, end = parsed
    body = data[end:]
    is_json = headers.get(b"content-type", b"application/json") == b"application/json"
    return PlainPost(headers, body) if is_json and _body_length(headers) == len(body) else None


def parse_plain_get(data: bytes) -> PlainGet | None:
    """Parse a GET without a body, and without escapes in its URL.

    Args:
        data: what was received.

    Returns:
        The request; None if the data is anything else than one complete, plain request.
    """
    line = _GET.match(data)
    parsed = _parse_headers(data, line.end()) if line is not None else None
    if line is None or parsed is None:
        return None
    headers, end = parsed
    if end != len(data) or b"content-length" in headers:
        return None
    return PlainGet(line[1].decode(), (line[2] or b"").decode(), headers)


def _parse_headers(data: bytes, place: int) -> tuple[dict[bytes, bytes], int] | None:
    """Parse the headers from a place in the data; return them and the place after the empty line."""
    headers: dict[bytes, bytes] = {}
    while data[place : place + 2] != b"\r\n":
        found = _HEADER.match(data, place)
        if found is None or len(headers) == HEADERS_MAX:
            return None
        name = found[1].lower()
        if name in headers or name in _UNUSUAL:
            return None
        headers[name] = found[2]
        place = found.end()
    is_kept_alive = headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
    is_plain = place <= HEAD_BYTES_MAX and b"host" in headers and is_kept_alive
    return (headers, place + 2) if is_plain else None


def _body_length(headers: dict[bytes, bytes]) -> int | None:
    length = headers.get(b"content-length", b"")
    return int(length) if _LENGTH.fullmatch(length) is not None else None
