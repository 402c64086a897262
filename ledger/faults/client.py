"""One client: it sends the same until it is answered, with the same ids, to whichever API process."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from uuid import UUID

import aiohttp

from ledger.faults.witness import Acknowledged, Witness

PAUSE_SECONDS_MAX = 0.1
TRY_SECONDS_MAX = 30.0

Event = dict[str, Any]

AGAIN = (HTTPStatus.SERVICE_UNAVAILABLE,)
"""What says that it should be sent again."""


class Client:
    """Sends events and remembers, in the witness, what came of it."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Callable[[], list[str]], witness: Witness, chance: random.Random
    ) -> None:
        self.chance = chance
        self.witness = witness
        self._session = session
        self._urls = urls
        self._tries = 0
        self._trying: asyncio.Task[tuple[int, Any]] | None = None

    def event(self, type_: str, data: Event | None = None, **envelope: Any) -> Event:
        """An event with an id of its own."""
        event_id = str(UUID(int=self.chance.getrandbits(128), version=4))
        return {"type": type_, "id": event_id, "data": data or {}, **envelope}

    def hang_up(self) -> None:
        """Cut this client's connection in the middle of what it asks."""
        if self._trying is not None:
            self._trying.cancel()

    async def tell(self, *events: Event, may_be_refused: Iterable[str] = ()) -> list[Acknowledged] | None:
        """Have events recorded, all or none; None where they were refused, by a problem that may come."""
        ids = [UUID(event["id"]) for event in events]
        self.witness.sends(ids, together=True)
        return await self.repeat(list(events), may_be_refused)

    async def repeat(self, events: list[Event], may_be_refused: Iterable[str] = ()) -> list[Acknowledged] | None:
        """The same of events that may have been sent before."""
        before = self._tries
        status, answer = await self._until_answered(events if len(events) > 1 else events[0])
        if status in (200, 201):
            return [self.witness.hears(receipt) for receipt in answer["events"]]
        slug = _slug(answer)
        if slug not in may_be_refused:
            self.witness.violations.append(f"{[each['type'] for each in events]} answered {status}: {answer}")
        elif self._tries == before:
            # Of an earlier try nobody can say that it will never be recorded.
            self.witness.refused.update(UUID(each["id"]) for each in events)
        return None

    async def tell_each(self, *events: Event, may_be_refused: Iterable[str] = ()) -> None:
        """Have events judged each by itself."""
        self.witness.sends([UUID(event["id"]) for event in events], together=False)
        status, answer = await self._until_answered(list(events), mode="independent")
        results = answer.get("results", [answer])
        for result in results:
            if "type" not in result:
                self.witness.hears(result)
            elif _slug(result) not in may_be_refused:
                self.witness.violations.append(f"an event of many answered {status}: {result}")

    async def see(self, path: str, position: int, **expected: Any) -> None:
        """Read a row as of a position or later, if the tables come to it in time, and what must stand in it."""
        url = self.chance.choice(self._urls())
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(url + path, params={"min_position": str(position)}) as answer:
                row = await answer.json(content_type=None)
                self.witness.answers[answer.status] += 1
                if answer.status in AGAIN:
                    return
                shown = {name: row.get(name) for name in expected}
                if answer.status != HTTPStatus.OK or shown != expected:
                    self.witness.violations.append(f"GET {path} at {position} answered {answer.status}: {row}")

    async def _until_answered(self, body: Any, **parameters: str) -> tuple[int, Any]:
        while True:
            self._trying = asyncio.create_task(self._try(body, parameters))
            try:
                await asyncio.wait([self._trying])
            finally:
                self._trying.cancel()
            if not self._trying.cancelled():
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    status, answer = self._trying.result()
                    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                        return status, answer
                    if status not in AGAIN:
                        self.witness.violations.append(f"POST /v1/events answered {status}: {answer}")
            self._tries += 1
            self.witness.sent_again += 1
            await asyncio.sleep(self.chance.uniform(0, PAUSE_SECONDS_MAX))

    async def _try(self, body: Any, parameters: dict[str, str]) -> tuple[int, Any]:
        url = self.chance.choice(self._urls())
        async with self._session.post(f"{url}/v1/events", json=body, params=parameters) as answer:
            said = await answer.json(content_type=None)
            self.witness.answers[answer.status] += 1
            return answer.status, said


def _slug(problem: Any) -> str:
    return str(problem["type"]).removeprefix("/problems/")


def session(key: str) -> aiohttp.ClientSession:
    """An HTTP session with a key."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"},
        timeout=aiohttp.ClientTimeout(TRY_SECONDS_MAX),
        connector=aiohttp.TCPConnector(limit=0),
    )
