"""Clients of 0.1.0 get the answers of 0.1.0, apart from members added and refusals lifted since.

The requests and answers were recorded from 0.1.0. Times, cursors and random ids in the answers are masked, such as
`<time>`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service

EXCHANGES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "data" / "first_release.ndjson").read_text().splitlines()
]

MASKED = {
    "<time>": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"),
    "<id>": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "<cursor>": re.compile(r".+"),
    "<number>": re.compile(r"\d+(\.\d+)?"),
}

WORDS = {"title", "detail", "message"}
"""Members of problem documents for people, which programs must not rely on."""

VERSION_2 = ("job.queued", "cost.reserved")
"""Event types that 0.1.0 recorded in version 1."""

CHANGED = {"the budget": {"$.days_left: '4.1408483346' became '4.1408483342'"}}
"""What an answer says otherwise, with a reason in the changelog."""

ADDED_ITEMS = {"projections": ["prices"]}
"""The names of the items that were added to the end of a list of fixed items."""

ACCEPTED_NOW = {
    "a kind of resource that was unknown",
    "more than 10 decimals",
    "a kind of agent that was unknown",
    "a kind of content that was unknown",
    "no limit",
    "a long name of a model",
    "a hold for more than a day",
    "usage",
}


def differences(before: Any, now: Any, path: str) -> Iterator[str]:
    """Yield how an answer differs from that of 0.1.0, apart from members that were added."""
    if isinstance(before, dict) and isinstance(now, dict):
        expected = before | {"schema_version": 2} if before.get("type") in VERSION_2 else before
        for name in before.keys() - WORDS:
            if name in now:
                yield from differences(expected[name], now[name], f"{path}.{name}")
            else:
                yield f"{path}.{name} is missing"
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif isinstance(before, str) and before in MASKED:
        if not MASKED[before].fullmatch(str(now)):
            yield f"{path}: {now!r} is no {before}"
    elif type(before) is not type(now) or before != now:
        yield f"{path}: {before!r} became {now!r}"


@pytest.fixture(scope="module")
async def answers(shared: Service) -> dict[str, tuple[int, str, Any]]:
    """Status, content type and body of the answers to all recorded requests, in their order."""
    answers = {}
    for exchange in EXCHANGES:
        headers = exchange.get("headers", {})
        if exchange["method"] == "GET" and not exchange["path"].startswith(("/v1/events", "/v1/streams", "/healthz")):
            headers = headers | {"Ledger-Min-Position": str(await shared.head())}
        async with shared.client.request(
            exchange["method"], exchange["path"], data=exchange.get("body"), headers=headers
        ) as answer:
            body = await answer.text()
            is_json = "json" in answer.content_type
            answers[exchange["name"]] = (answer.status, answer.content_type, json.loads(body) if is_json else body)
    return answers


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["name"])
def test_a_request_of_0_1_0_is_answered_as_before(
    answers: dict[str, tuple[int, str, Any]], exchange: dict[str, Any]
) -> None:
    status, content_type, body = answers[exchange["name"]]
    if exchange["name"] in ACCEPTED_NOW:
        assert (exchange["status"], status) == (422, 201), body
        return

    if added := ADDED_ITEMS.get(exchange["name"]):
        assert [item["name"] for item in body["items"][-len(added) :]] == added
        del body["items"][-len(added) :]
    found = set(differences(exchange["answer"], body, "$"))

    assert (status, content_type) == (exchange["status"], exchange["content_type"]), body
    assert found == CHANGED.get(exchange["name"], set())
