"""Helpers of the API tests."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ledger.domain.event import Request
from ledger.log.decode import read_candidate
from projections.checkpoint import LOCK_CHECKPOINT
from tests.conftest import Service
from tests.events import follow

NDJSON = {"Content-Type": "application/x-ndjson"}
WAIT_SECONDS_MAX = 10.0


async def send(
    service: Service, body: Any, *, headers: dict[str, str] | None = None, **parameters: str
) -> tuple[int, Any]:
    """Post a body as it is, as JSON unless the headers name another type; return the status and the JSON response.

    A refusal must be a problem document that agrees with itself.
    """
    given = {"Content-Type": "application/json"} | (headers or {})
    async with service.client.post("/v1/events", data=body, params=parameters, headers=given) as answer:
        document = await answer.json(content_type=None)
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
            assert_is_problem(document, answer.status)
        return answer.status, document


def request_for(*events: dict[str, Any]) -> Request:
    """Return the request of these events to an appender, without HTTP."""
    return Request([read_candidate(json.dumps(event).encode(), 0, "local", None) for event in events])


def assert_is_problem(document: dict[str, Any], status: int) -> None:
    """Assert that a problem document has its four members and the status of the response."""
    assert document["type"].startswith("/problems/")
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]


def slug(problem: dict[str, Any]) -> str:
    """Return the slug of a problem document."""
    return str(problem["type"]).removeprefix("/problems/")


def ndjson(events: Iterable[dict[str, Any]]) -> bytes:
    """Encode events as NDJSON."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the event without these fields of its envelope."""
    return {name: value for name, value in event.items() if name not in names}


async def log(service: Service, **filters: Any) -> list[dict[str, Any]]:
    """Return the events that match, ordered by position; at most 5,000."""
    page = await service.get("/v1/events", limit=5000, **filters)
    assert page["next_after"] is None
    events: list[dict[str, Any]] = page["events"]
    return events


async def eventually(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until the condition returns something true, and return it."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := await condition()):
        assert time.monotonic() < deadline, "the condition did not become true in time"
        await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def worker_stopped(service: Service) -> AsyncIterator[None]:
    """Keep the worker from updating the read models inside the context, by the lock of the checkpoint."""
    async with service.database.connection() as connection, connection.transaction():
        await connection.execute(LOCK_CHECKPOINT)
        yield


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Replace a function by one that also records its arguments; return the list of calls."""
    calls: list[Any] = []
    original = getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, counted)
    return calls


async def follow_pages(service: Service, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """Follow the cursors of a collection to its end; return every row in order."""
    items: list[dict[str, Any]] = []
    page = await service.get(path, **parameters)
    while True:
        items += page["items"]
        if page["next"] is None:
            return items
        page = await service.get(path, **parameters, cursor=page["next"])


def adjust(recorded: dict[str, Any], amount: str, **data: Any) -> dict[str, Any]:
    """Return an adjustment of a recorded cost."""
    return follow(recorded, "cost.adjusted", {"amount": amount, "reason": "R", **data})
