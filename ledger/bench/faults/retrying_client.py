"""A client that retries each request with the same event ids, at any API process, until answered."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from uuid import UUID

import aiohttp

from ledger.bench.faults.history import AcknowledgedEvent, History

PAUSE_SECONDS_MAX = 0.1
REQUEST_SECONDS_MAX = 30.0

Event = dict[str, Any]

RETRY_STATUSES = (HTTPStatus.SERVICE_UNAVAILABLE,)
"""The statuses of a 5xx response after which a client may retry; any other 5xx is a violation."""

CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)


class RetryingClient:
    """Sends events and records the outcome in the history."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Callable[[], list[str]], history: History, rng: random.Random
    ) -> None:
        """Prepare a client.

        Args:
            session: the HTTP session, with the key.
            urls: returns the base URLs of the API processes at the moment.
            history: receives the outcome.
            rng: the source of ids, pauses and the choice of an API process.
        """
        self.rng = rng
        self.history = history
        self._session = session
        self._urls = urls
        self._retries = 0
        self._request: asyncio.Task[tuple[int, Any]] | None = None

    def event(self, type_: str, data: Event | None = None, **envelope: Any) -> Event:
        """Return an event with a new id."""
        event_id = str(UUID(int=self.rng.getrandbits(128), version=4))
        return {"type": type_, "id": event_id, "data": data or {}, **envelope}

    def cut_connection(self) -> None:
        """Cut this client's connection while it waits for a response."""
        if self._request is not None:
            self._request.cancel()

    async def append(self, *events: Event, may_be_refused: Iterable[str] = ()) -> list[AcknowledgedEvent] | None:
        """Append events, all or none.

        Returns:
            the receipts; None if the events were refused with one of the problem types in `may_be_refused`. Any other
            refusal is a violation.
        """
        self.history.record_sent([UUID(event["id"]) for event in events], atomic=True)
        return await self.resend(list(events), may_be_refused)

    async def resend(self, events: list[Event], may_be_refused: Iterable[str] = ()) -> list[AcknowledgedEvent] | None:
        """Append events that may have been sent before; as `append`."""
        retries_before = self._retries
        status, answer = await self._send_until_answered(events if len(events) > 1 else events[0])
        if status in (200, 201):
            return [self.history.record_receipt(receipt) for receipt in answer["events"]]
        if _problem_type(answer) not in may_be_refused:
            self.history.violations.append(f"{[event['type'] for event in events]} answered {status}: {answer}")
        elif self._retries == retries_before:
            # Only then: an earlier try without a response may still be recorded.
            self.history.refused.update(UUID(event["id"]) for event in events)
        return None

    async def append_independently(self, *events: Event, may_be_refused: Iterable[str] = ()) -> None:
        """Append events of which each is decided separately (`mode=independent`)."""
        self.history.record_sent([UUID(event["id"]) for event in events], atomic=False)
        status, answer = await self._send_until_answered(list(events), mode="independent")
        for result in answer.get("results", [answer]):
            if "type" not in result:
                self.history.record_receipt(result)
            elif _problem_type(result) not in may_be_refused:
                self.history.violations.append(f"an event of many answered {status}: {result}")

    async def check_row(self, path: str, position: int, **expected: Any) -> None:
        """Read a row with `min_position`; other values than the expected are a violation, a 503 is not.

        Args:
            path: of the row.
            position: the read models must have reached.
            expected: values of the row's fields.
        """
        url = self.rng.choice(self._urls())
        with suppress(*CONNECTION_ERRORS):
            async with self._session.get(url + path, params={"min_position": str(position)}) as response:
                row = await response.json(content_type=None)
                self.history.statuses[response.status] += 1
                if response.status in RETRY_STATUSES:
                    return
                actual = {name: row.get(name) for name in expected}
                if response.status != HTTPStatus.OK or actual != expected:
                    self.history.violations.append(f"GET {path} at {position} answered {response.status}: {row}")

    async def _send_until_answered(self, body: Any, **parameters: str) -> tuple[int, Any]:
        while True:
            self._request = asyncio.create_task(self._send(body, parameters))
            try:
                await asyncio.wait([self._request])
            finally:
                self._request.cancel()
            if not self._request.cancelled():
                with suppress(*CONNECTION_ERRORS):
                    status, answer = self._request.result()
                    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                        return status, answer
                    if status not in RETRY_STATUSES:
                        self.history.violations.append(f"POST /v1/events answered {status}: {answer}")
            self._retries += 1
            self.history.retries += 1
            await asyncio.sleep(self.rng.uniform(0, PAUSE_SECONDS_MAX))

    async def _send(self, body: Any, parameters: dict[str, str]) -> tuple[int, Any]:
        url = self.rng.choice(self._urls())
        async with self._session.post(f"{url}/v1/events", json=body, params=parameters) as response:
            answer = await response.json(content_type=None)
            self.history.statuses[response.status] += 1
            return response.status, answer


def _problem_type(problem: Any) -> str:
    return str(problem["type"]).removeprefix("/problems/")


def client_session(key: str) -> aiohttp.ClientSession:
    """Return an HTTP session that authenticates with a key."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"},
        timeout=aiohttp.ClientTimeout(REQUEST_SECONDS_MAX),
        connector=aiohttp.TCPConnector(limit=0),
    )
