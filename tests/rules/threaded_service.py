"""A service in a separate thread, on a new database, for synchronous tests that use it over HTTP."""

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPConnection
from typing import Any

import uvloop
from sqlalchemy import URL

from ledger.api.app import listen, serving
from ledger.database import Database
from ledger.log.appender import Appender
from ledger.log.expiry import expire_due_holds
from ledger.log.read import PAGE_EVENTS_MAX
from projections.worker import fold_page
from tests.conftest import administer

ANSWER_SECONDS_MAX = 60

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@contextmanager
def loop_in_a_thread() -> Iterator[Run]:
    """Run an event loop in a thread; yield a function that runs a coroutine on it and waits for the result."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="service", daemon=True)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(ANSWER_SECONDS_MAX)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Service:
    """The service on a new database, with one persistent HTTP connection. Events are folded only by `fold`."""

    def __init__(self, run: Run, server_url: URL, template: str, clock: Callable[[], datetime]) -> None:
        self.run, self.server_url, self.clock = run, server_url, clock
        self.name = f"machine_{uuid.uuid4().hex[:12]}"
        self.run(administer(server_url, f"CREATE DATABASE {self.name} TEMPLATE {template}"))
        self.database = Database(server_url.set(database=self.name))
        listener = listen("127.0.0.1", 0)
        self.http = HTTPConnection(*listener.getsockname(), timeout=ANSWER_SECONDS_MAX)
        self.run(self._start(listener))

    async def _start(self, listener: Any) -> None:
        self.stopping = asyncio.Event()
        self.serving_task = asyncio.create_task(self._serve(listener))

    async def _serve(self, listener: Any) -> None:
        async with serving(self.database, listener, with_worker=False, clock=self.clock):
            await self.stopping.wait()

    def stop(self) -> None:
        self.http.close()
        self.run(self._stop())
        self.run(administer(self.server_url, f"DROP DATABASE {self.name} WITH (FORCE)"))

    async def _stop(self) -> None:
        self.stopping.set()
        await self.serving_task
        await self.database.close()

    def fold(self, events_max: int = PAGE_EVENTS_MAX) -> int:
        """Fold a page into the read models; return its number of events."""
        folded: int = self.run(fold_page(self.database, events_max))
        return folded

    def expire_holds(self) -> int:
        """Expire the holds that are due, as another process does; return their number."""
        expired: int = self.run(self._expire_holds())
        return expired

    async def _expire_holds(self) -> int:
        async with Appender(self.database, clock=self.clock) as appender:
            return await expire_due_holds(self.database, appender, self.clock())

    def post(self, body: str, content_type: str, mode: str) -> tuple[int, str | None, Any]:
        """Append events; return the status, the position in the header and the JSON of the response."""
        headers = {"Content-Type": content_type}
        self.http.request("POST", f"/v1/events?mode={mode}", body.encode(), headers)
        answer = self.http.getresponse()
        return answer.status, answer.headers["Ledger-Position"], json.loads(answer.read())

    def get(self, path: str, position: int) -> tuple[int, Any]:
        """Read with a minimum position; return the status and the JSON of the response."""
        self.http.request("GET", f"/v1/{path}", headers={"Ledger-Min-Position": str(position)})
        answer = self.http.getresponse()
        return answer.status, json.loads(answer.read())

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """Read the log after a position, page by page."""
        events: list[dict[str, Any]] = []
        following: int | None = after
        while following is not None:
            _, page = self.get(f"events?after={following}&limit=50", 0)
            events += page["events"]
            following = page["next_after"]
        assert page["head"] == after + len(events)
        return events
