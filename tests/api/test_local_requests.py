"""Without keys: requests to other hosts and of web pages of other origins are refused."""

import json
import uuid

import pytest

from ledger.api import fast_append, fast_read
from ledger.api.local_requests import is_loopback
from tests.api.helpers import count_calls
from tests.api.hostile import response_to
from tests.conftest import Service
from tests.events import cost

JSON = "Content-Type: application/json"
FORBIDDEN = (403, "forbidden")


def sent(method: str, path: str, *headers: str, host: str | None = "127.0.0.1:8080", body: bytes = b"") -> bytes:
    """Encode a request with this Host."""
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *headers, *length, "", ""]
    return "\r\n".join(lines).encode() + body


async def answer(service: Service, request: bytes) -> tuple[int, str]:
    """Send a request; return the status and the slug of the problem, if there is one."""
    received = await response_to(str(service.client._base_url), request)
    is_problem = received.headers.get("content-type") == "application/problem+json"
    return received.status, received.problem if is_problem else ""


HOSTS = ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9:65535", "[::1]", "[::1]:8080"]
OTHER_HOSTS = ["ledger", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[::2]"]
OTHER_HOSTS += ["0.0.0.0", "localhost:", "evil@localhost", "localhost/x", "", "1270.0.0.1", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize("host", HOSTS)
async def test_requests_to_a_loopback_host_are_served(shared: Service, host: str) -> None:
    body = json.dumps(cost()).encode()

    assert is_loopback(host)
    assert (await answer(shared, sent("GET", "/v1/campaigns", host=host)))[0] == 200
    assert (await answer(shared, sent("POST", "/v1/events", JSON, host=host, body=body)))[0] == 201


@pytest.mark.parametrize("host", OTHER_HOSTS)
async def test_requests_to_another_host_are_forbidden(shared: Service, host: str) -> None:
    body = json.dumps(cost()).encode()

    assert not is_loopback(host)
    for path in ("/v1/campaigns", f"/v1/campaigns/{uuid.uuid4()}", "/healthz", "/nowhere"):
        assert await answer(shared, sent("GET", path, host=host)) == FORBIDDEN
    assert await answer(shared, sent("POST", "/v1/events", JSON, host=host, body=body)) == FORBIDDEN


@pytest.mark.parametrize(
    ("headers", "is_served"),
    [
        (["Origin: http://127.0.0.1:8080"], True),
        (["Origin: https://127.0.0.1:8080", "Sec-Fetch-Site: same-origin"], True),
        (["Sec-Fetch-Site: none"], True),
        (["Sec-Fetch-Site: same-site"], True),
        (["Origin: http://127.0.0.1:3000"], False),
        (["Origin: http://localhost:8080"], False),
        (["Origin: https://evil.example"], False),
        (["Origin: null"], False),
        (["Sec-Fetch-Site: cross-site"], False),
        (["Sec-Fetch-Site: Cross-Site"], False),
    ],
)
async def test_a_web_page_of_another_origin_is_refused(shared: Service, headers: list[str], is_served: bool) -> None:
    body = json.dumps(cost()).encode()

    read = await answer(shared, sent("GET", "/v1/campaigns", *headers))
    appended = await answer(shared, sent("POST", "/v1/events", JSON, *headers, body=body))

    assert (read[0], appended[0]) == ((200, 201) if is_served else (403, 403))


@pytest.mark.parametrize("header", [[], ["Content-Type:"], ["Content-Type: text/plain"]])
async def test_a_post_needs_the_content_type_that_no_form_can_have(shared: Service, header: list[str]) -> None:
    body = json.dumps(cost()).encode()

    assert await answer(shared, sent("POST", "/v1/events", *header, body=body)) == (415, "unsupported-media-type")


async def test_keys_are_not_managed_without_keys(shared: Service) -> None:
    body = json.dumps({"name": "mine", "role": "admin"}).encode()

    refused = [
        await answer(shared, sent("GET", "/v1/keys")),
        await answer(shared, sent("POST", "/v1/keys", JSON, body=body)),
        await answer(shared, sent("DELETE", "/v1/keys/123456789012")),
    ]
    async with shared.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM ledger.api_keys") == 0

    assert refused == [FORBIDDEN] * 3


async def test_plain_requests_take_the_fast_paths(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [count_calls(monkeypatch, module, "accept") for module in (fast_append, fast_read)]
    body = json.dumps(cost()).encode()

    assert (await answer(shared, sent("POST", "/v1/events", JSON, body=body)))[0] == 201
    assert (await answer(shared, sent("GET", "/v1/campaigns")))[0] == 200

    assert [len(each) for each in calls] == [1, 1]
