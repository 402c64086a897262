"""Invalid request bodies: each gets its problem, nothing is written, and the service keeps working."""

import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from tests.api.helpers import NDJSON, send, slug
from tests.conftest import Service
from tests.events import cost, event, job

MIB = 1024 * 1024
MALFORMED = (400, "malformed")
INVALID = (422, "invalid-event")
TOO_LARGE = (413, "too-large")
DENIAL_OF_SERVICE_SECONDS = 15.0
"""The longest that one request may block others; each of these takes much less than 1 s."""


async def refused(
    service: Service, body: Any, headers: dict[str, str] | None = None
) -> tuple[tuple[int, str], dict[str, Any]]:
    """Post an invalid body; return status and slug, and the problem. Nothing is written, the next event is accepted."""
    head = await service.head()
    status, problem = await send(service, body, headers=headers)
    assert status >= 400, problem
    assert await service.head() == head
    (receipt,) = await service.append(cost())
    assert receipt["position"] == head + 1
    return (status, slug(problem)), problem


def a_cost(amount: str = '"1"', **more: str) -> str:
    """Return the JSON of a cost; the arguments are JSON texts."""
    envelope = "".join(f', "{name}": {value}' for name, value in more.items())
    return f'{{"type": "cost.recorded", "data": {{"resource_type": "other", "cost": {amount}}}{envelope}}}'


def a_job(input_data: str) -> str:
    """Return the JSON of a job with this input, a JSON text."""
    return f'{{"type": "job.queued", "data": {{"agent_type": "analyst", "input_data": {input_data}}}}}'


@pytest.mark.parametrize(
    "body",
    [
        "",
        "   ",
        "\n\t ",
        "[]",
        " [ ] ",
        "{",
        '{"type"',
        '{"type": "job.started"',
        "[",
        "[{}",
        "[{},]",
        a_cost() * 2,
        a_cost() + " x",
        "nonsense",
        "{'type': 1}",
        '{"type": "cost.recorded",}',
        a_cost("NaN"),
        a_cost("Infinity"),
        a_cost("-Infinity"),
        a_cost("01"),
        a_cost("1."),
        a_cost(".5"),
        a_cost("+1"),
        a_cost("0x1"),
        a_cost('"1'),
        a_job('{"a": "\n"}'),
        a_job('{"a": "\\q"}'),
        a_job('{"a": 01}'),
        a_job("{1: 2}"),
        "\ufeff" + a_cost(),
    ],
)
async def test_a_body_that_is_not_json_is_malformed(shared: Service, body: str) -> None:
    assert (await refused(shared, body.encode()))[0] == MALFORMED


@pytest.mark.parametrize("body", [b"", b"\n \n", b"{broken\n", b'{"type":\n"cost.recorded"}\n'])
async def test_ndjson_with_an_invalid_line_is_malformed(shared: Service, body: bytes) -> None:
    assert (await refused(shared, body, NDJSON))[0] == MALFORMED


@pytest.mark.parametrize("location", ["name", "key", "envelope", "outside"])
@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
async def test_a_body_that_is_not_utf_8_is_malformed(shared: Service, location: str, wrong: bytes) -> None:
    body = {
        "name": b'{"type": "campaign.created", "data": {"name": "%s", "budget": 1, "start_date": "2025-01-01"}}',
        "key": a_job('{"%s": 1}').encode(),
        "envelope": b'{"%s": 1}',
        "outside": a_cost().encode() + b"%s",
    }[location] % wrong

    assert (await refused(shared, body))[0] == MALFORMED


@pytest.mark.parametrize("text", [r"\ud800", r"\udc00", r"\ud800\ud800", r"\udc00\ud800", r"x\ud83dx"])
@pytest.mark.parametrize("location", ["text", "value", "key"])
async def test_a_lone_surrogate_is_invalid(shared: Service, location: str, text: str) -> None:
    body, path = {
        "text": (
            f'{{"type": "job.failed", "stream_id": "{job()["id"]}", "data": {{"error_message": "{text}"}}}}',
            "$.data.error_message",
        ),
        "value": (a_job(f'{{"a": ["{text}"]}}'), "$.data.input_data.a[0]"),
        "key": (a_job(f'{{"a": {{"{text}": 1}}}}'), f"$.data.input_data.a.{text}"),
    }[location]

    what, problem = await refused(shared, body)

    assert what == INVALID
    assert [error["path"] for error in problem["errors"]] == [path]
    assert "surrogate" in problem["errors"][0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        a_job(r'{"a": "b\u0000c"}'),
        a_job(r'{"a": {"b\u0000": 1}}'),
        a_job(r'{"a": [["\u0000"]]}'),
        a_job(r'{"a": "\\\u0000"}'),
        a_job(r'{"a": "\u0000", "a": "hidden by the second"}'),
        a_cost(correlation_id=r'"\u0000"'),
        r'{"type": "content.created", "data": {"title": "\u0000", "content": "x", "content_type": "blog"}}',
    ],
)
async def test_a_nul_in_any_text_is_invalid(shared: Service, body: str) -> None:
    assert (await refused(shared, body))[0] == INVALID


async def test_an_escaped_backslash_before_u0000_is_accepted(shared: Service) -> None:
    status, answer = await send(shared, a_job(r'{"a": "\\u0000"}'))

    assert status == 201
    shown = await shared.get(f"/v1/agent-jobs/{answer['events'][0]['id']}")
    assert shown["input_data"] == {"a": r"\u0000"}


@pytest.mark.parametrize("depth", [101, 5_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
async def test_json_nested_too_deep_is_malformed(shared: Service, depth: int, opening: str, closing: str) -> None:
    # The event, its data and the input itself are three levels more.
    inner = opening * (depth - 3) + "1" + closing * (depth - 3)

    assert (await refused(shared, a_job(f'{{"a": {inner}}}')))[0] == MALFORMED
    assert (await refused(shared, inner))[0] in (MALFORMED, INVALID)


async def test_a_hundred_levels_are_accepted_and_brackets_in_strings_do_not_count(shared: Service) -> None:
    deepest = json.loads("[" * 97 + '"' + "[{" * 500 + '\\" ["' + "]" * 97)

    status, answer = await shared.post(job(input_data={"a": deepest}))

    assert status == 201
    shown = await shared.get(f"/v1/agent-jobs/{answer['events'][0]['id']}")
    assert shown["input_data"] == {"a": deepest}


@pytest.mark.parametrize("number", ["9" * 5_000, "-" + "9" * 5_000, "1e" + "9" * 5_000])
async def test_a_number_of_thousands_of_digits_is_refused(shared: Service, number: str) -> None:
    bodies = [a_cost(number), a_cost(expected_version=number)]

    for body in bodies:
        assert (await refused(shared, body))[0] in (MALFORMED, INVALID)


@pytest.mark.parametrize("digits", [5_000, 1_000_000])
async def test_an_integer_that_clients_cannot_represent_is_refused_inside_objects_too(
    shared: Service, digits: int
) -> None:
    assert (await refused(shared, a_job(f'{{"a": [{"9" * digits}]}}')))[0] in (MALFORMED, INVALID)


@pytest.mark.parametrize("body", ['"   "', "5", "null", "true", "[5]", "[[]]", "[null]", '["a"]', "[[{}]]"])
async def test_an_event_that_is_not_an_object_is_invalid(shared: Service, body: str) -> None:
    what, problem = await refused(shared, body)

    assert what == INVALID
    assert problem["errors"][0]["path"] == "$"


async def test_more_than_five_thousand_events_are_too_large(shared: Service) -> None:
    events = [cost() for _ in range(5_001)]

    assert (await refused(shared, json.dumps(events)))[0] == TOO_LARGE
    assert (await refused(shared, "\n".join(map(json.dumps, events)), NDJSON))[0] == TOO_LARGE


async def test_five_thousand_events_and_sixteen_mebibytes_are_accepted(shared: Service) -> None:
    body = json.dumps([cost() for _ in range(5_000)]).encode()

    status, answer = await send(shared, body.ljust(16 * MIB))

    assert status == 201
    assert len(answer["events"]) == 5_000


async def _chunks(size_mib: int) -> AsyncIterator[bytes]:
    for _ in range(size_mib):
        yield b" " * MIB


async def test_a_body_over_sixteen_mebibytes_is_too_large(shared: Service) -> None:
    assert (await refused(shared, a_cost().encode().ljust(16 * MIB + 1)))[0] == TOO_LARGE
    assert (await refused(shared, b" " * (17 * MIB)))[0] == TOO_LARGE
    assert (await refused(shared, _chunks(17)))[0] == TOO_LARGE


async def test_a_small_body_that_decompresses_to_half_a_gibibyte_is_too_large_and_never_in_memory(
    shared: Service,
) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b" " * (16 * MIB)) for _ in range(32)) + packer.flush()
    memory_before = psutil.Process().memory_info().rss

    what, _ = await refused(shared, bomb, {"Content-Encoding": "gzip"})

    assert what == TOO_LARGE
    assert psutil.Process().memory_info().rss - memory_before < 128 * MIB


async def test_a_compressed_body_is_decompressed_and_an_invalid_one_is_malformed(shared: Service) -> None:
    packed = gzip.compress(a_cost().encode())

    status, _ = await send(shared, packed, headers={"Content-Encoding": "gzip"})

    assert status == 201
    for broken in (b"not gzip", packed[:-12], b"\0" * 100):
        for encoding in ("gzip", "deflate"):
            assert (await refused(shared, broken, {"Content-Encoding": encoding}))[0] == MALFORMED


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "x"])
async def test_another_content_type_is_not_supported(shared: Service, media_type: str) -> None:
    assert (await refused(shared, a_cost(), {"Content-Type": media_type}))[0] == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        pytest.param("{" * 101 + '"' + '\\"' * 15_000, MALFORMED, id="a text of quotes that never ends"),
        pytest.param("{" * 101 + '"' + '\\"' * 15_000 + "\\", MALFORMED, id="a text that ends in a backslash"),
        pytest.param(a_job(f'{{"a": "{("9" * 999 + " ") * 15_000}", "b": 1}}')[:-1], MALFORMED, id="many long numbers"),
        pytest.param("[" + "1," * (8 * MIB - 2) + "1]", TOO_LARGE, id="millions of events"),
        pytest.param("[" * (16 * MIB), MALFORMED, id="millions of levels"),
    ],
)
async def test_no_body_blocks_other_requests(shared: Service, body: str, what: tuple[int, str]) -> None:
    started = time.monotonic()

    found, _ = await refused(shared, body)

    assert found == what
    assert time.monotonic() - started < DENIAL_OF_SERVICE_SECONDS


async def test_an_idempotency_key_that_is_not_printable_is_malformed(shared: Service) -> None:
    too_long = {"Idempotency-Key": "k" * 256}

    assert (await refused(shared, a_cost(), too_long))[0] == MALFORMED
    assert (await refused(shared, a_cost(), {"Idempotency-Key": ""}))[0] == MALFORMED


@pytest.mark.parametrize("type_", ["cost.expired", "cost.denied", "cost.invented", "payload_erased", "", "job", "*"])
async def test_an_unknown_or_internal_event_type_is_invalid(shared: Service, type_: str) -> None:
    what, problem = await refused(shared, json.dumps(event(type_, stream_id=cost()["id"])))

    assert what == INVALID
    assert [error["path"] for error in problem["errors"]] == ["$.type"]
    assert type_ in problem["errors"][0]["message"]
