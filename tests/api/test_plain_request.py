"""The parser of plain requests accepts nothing that aiohttp refuses or parses in another way."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.api.plain_request import parse_plain_get, parse_plain_post
from tests.api.hostile import request

PATH = "/v1/events"
BODY = b'{"type":"x"}'
LENGTH = f"Content-Length: {len(BODY)}"


class Parsed(NamedTuple):
    """A request as aiohttp has parsed it: its headers, and its body if it was received completely."""

    message: Any
    headers: dict[bytes, bytes]
    body: bytes


def parse_by_aiohttp(data: bytes) -> list[Parsed]:
    """Parse with the limits that the service uses; an error is no request."""
    loop = asyncio.new_event_loop()
    protocol = BaseProtocol(loop)
    try:
        parser = HttpRequestParser(protocol, loop, 2**16, max_line_size=8190, max_field_size=8190, max_headers=128)
        protocol._parser = parser
        messages, _, _ = parser.feed_data(data)
        return [
            Parsed(message, {name.lower(): value for name, value in message.raw_headers}, _content(payload))
            for message, payload in messages
        ]
    except HttpProcessingError:
        return []
    finally:
        loop.close()


def _content(payload: Any) -> bytes:
    assert payload.is_eof()
    return bytes(payload.read_nowait())


def accepts(data: bytes) -> bool:
    """Whether the parser accepts the data; then aiohttp has to find the same request in it, and nothing else."""
    plain = parse_plain_post(data, PATH)
    if plain is None:
        return False
    (parsed,) = parse_by_aiohttp(data)
    message = parsed.message
    assert (message.method, message.path, message.version) == ("POST", PATH, (1, 1))
    assert not any((message.should_close, message.upgrade, message.chunked, message.compression))
    assert (parsed.headers, parsed.body) == (plain.headers, plain.body)
    return True


def accepts_get(data: bytes) -> bool:
    """Whether the parser accepts the data as a GET; then aiohttp has to find the same request in it."""
    plain = parse_plain_get(data)
    if plain is None:
        return False
    (parsed,) = parse_by_aiohttp(data)
    message = parsed.message
    assert (message.method, message.url.raw_path, message.version) == ("GET", plain.path, (1, 1))
    assert message.url.raw_query_string == plain.query_string
    assert not any((message.should_close, message.upgrade, message.chunked, message.compression))
    assert (parsed.headers, parsed.body) == (plain.headers, b"")
    return True


def sent(*headers: str, body: bytes = BODY) -> bytes:
    return request("POST", PATH, *headers, body=body)


PLAIN = sent(LENGTH, "Content-Type: application/json", "Accept: */*", "X-Request-ID: a")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        sent("content-length: 12"),
        sent("Content-Length:12"),
        sent("Content-Length: \t 12"),
        sent("Content-Length: 000012"),
        sent(LENGTH, "Connection: Keep-Alive"),
        sent(LENGTH, *(f"X-{number}: a" for number in range(48))),
        sent(LENGTH, "X-Long: " + "x" * 8_000),
    ],
)
def test_plain_requests_are_accepted(data: bytes) -> None:
    assert accepts(data)


@pytest.mark.parametrize(
    "data",
    [
        sent(),
        sent("Content-Length: +12"),
        sent("Content-Length: -12"),
        sent("Content-Length: 1_2"),
        sent("Content-Length: 0xc"),
        sent("Content-Length: 12, 12"),
        sent("Content-Length: 12 "),
        sent("Content-Length: 1 2"),
        sent("Content-Length: \u0661\u0662"),
        sent("Content-Length: 11"),
        sent("Content-Length: 13"),
        sent("Content-Length: 0000000012"),
        sent(LENGTH, LENGTH),
        sent(LENGTH, "content-length: 5"),
        sent(LENGTH, "Content-Length : 5"),
        sent(LENGTH, "Content_Length: 5"),
        sent(LENGTH, "Transfer-Encoding: chunked"),
        sent(LENGTH, "Transfer-Encoding: identity"),
        sent(LENGTH, "transfer-encoding:\tchunked"),
        sent(LENGTH, "Transfer-Encoding : chunked"),
        sent(LENGTH, "X-A: b\nTransfer-Encoding: chunked"),
        sent(LENGTH, "X-A: b\rTransfer-Encoding: chunked"),
        sent(LENGTH, "X-A: b\r\n Transfer-Encoding: chunked"),
        sent(LENGTH, " Transfer-Encoding: chunked"),
        sent(LENGTH, "X-A: \x00"),
        sent(LENGTH, "X-A: \x7f"),
        sent(LENGTH, "X-A: \x0b"),
        sent(LENGTH, "X-A: \xe9"),
        sent(LENGTH, "X-\x00A: b"),
        sent(LENGTH, "X A: b"),
        sent(LENGTH, "X-A"),
        sent(LENGTH, ": b"),
        sent(LENGTH, "X-A:"),
        sent(LENGTH, "X" * 8_200 + ": a"),
        sent(LENGTH, "X-A: " + "a" * 8_200),
        sent(LENGTH, "Sec-WebSocket-Key1: a"),
        sent(LENGTH, "Proxy-Connection: close"),
        sent(LENGTH, "Connection: close"),
        sent(LENGTH, "Connection: keep-alive, close"),
        sent(LENGTH, "Connection: Upgrade", "Upgrade: websocket"),
        sent(LENGTH, "Expect: 100-continue"),
        sent(LENGTH, "Content-Encoding: gzip"),
        sent(LENGTH, "Host: b"),
        sent(LENGTH).replace(b"Host: localhost\r\n", b""),
        sent(LENGTH).replace(b"\r\n", b"\n"),
        sent(LENGTH).replace(b"HTTP/1.1", b"HTTP/1.0"),
        sent(LENGTH).replace(b"HTTP/1.1", b"HTTP/1.1 "),
        sent(LENGTH).replace(b"POST ", b"POST  "),
        sent(LENGTH).replace(b"POST", b"post"),
        sent(LENGTH).replace(b"/v1/events", b"/v1/events?mode=atomic"),
        sent(LENGTH).replace(b"/v1/events", b"/v1/events#a"),
        sent(LENGTH).replace(b"/v1/events", b"/v1/event%73"),
        sent(LENGTH).replace(b"/v1/events", b"/v1//events"),
        sent(LENGTH).replace(b"/v1/events", b"http://ledger/v1/events"),
        b"\r\n" + PLAIN,
        PLAIN + b"\r\n",
        PLAIN + PLAIN,
        PLAIN + b"POST",
    ],
    ids=lambda data: repr(data[:70]),
)
def test_everything_else_is_left_to_aiohttp(data: bytes) -> None:
    assert not accepts(data)


PLAIN_GET = request("GET", "/v1/campaigns?limit=5", "Accept: */*")


@pytest.mark.parametrize(
    ("target", "is_accepted"),
    [
        ("/v1/campaigns", True),
        ("/v1/campaigns/019470a4-0000-7000-8000-000000000000", True),
        ("/v1/campaigns?limit=5&cursor=abc_-", True),
        ("/v1/campaigns?", False),
        ("/v1/campaigns?name=a%20b", False),
        ("/v1/campaigns?a?b", False),
        ("/v1/campaigns#a", False),
        ("/v1/campaigns?a#b", False),
        ("/v1/campaign%73", False),
        ("http://ledger/v1/campaigns", False),
        ("v1/campaigns", False),
        ("*", False),
    ],
)
def test_a_get_without_escapes_is_accepted(target: str, is_accepted: bool) -> None:
    assert accepts_get(request("GET", target)) == is_accepted


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/", body=b"a"),
        request("GET", "/", "Content-Length: 0"),
        request("GET", "/", "Content-Length: 1", body=b"a"),
        request("GET", "/", "Transfer-Encoding: chunked"),
        request("GET", "/", "Connection: close"),
        request("GET", "/", "Host: b"),
        request("HEAD", "/"),
        request("GET", "/").replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN_GET + PLAIN_GET,
        PLAIN_GET[:-2],
    ],
    ids=lambda data: repr(data[:70]),
)
def test_every_other_get_is_left_to_aiohttp(data: bytes) -> None:
    assert not accepts_get(data)


PIECES = st.sampled_from(
    [bytes([byte]) for byte in b'\r\n\t :;,\x00\x0b\x7f\x80\xff0159aAzZ-_+/#?%"()']
    + [b"\r\n", b"\r\n\r\n", b"\r\n ", b"\r\nHost: a", b"\r\nTransfer-Encoding: chunked", b"\r\nContent-Length: 5"]
)


@settings(max_examples=1_000, deadline=None)
@given(
    st.sampled_from([(PLAIN, accepts), (PLAIN_GET, accepts_get)]),
    st.lists(st.tuples(st.integers(0, len(PLAIN)), st.integers(0, 3), PIECES), max_size=3),
)
@example((PLAIN, accepts), [])
@example((PLAIN_GET, accepts_get), [])
def test_a_changed_request_is_refused_or_parsed_as_aiohttp_does(
    checked: tuple[bytes, Callable[[bytes], bool]], changes: list[tuple[int, int, bytes]]
) -> None:
    data, accept = checked
    for place, removed, piece in changes:
        data = data[:place] + piece + data[place + removed :]

    accept(data)
