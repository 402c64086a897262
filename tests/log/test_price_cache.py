"""The price book of a process under concurrent loads: no price is lost, none is made up."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from ledger.database import Database
from ledger.domain.price import price_stream
from ledger.domain.price_book import PriceBook
from ledger.log import judge_ahead, price_cache
from ledger.log.connection_lease import ConnectionLease
from ledger.log.judge_ahead import OptimisticJudge
from ledger.log.price_cache import LOAD_PRICES, PriceCache
from tests.events import event
from tests.log.helpers import request

DATA = {
    "provider": "p",
    "model": "m",
    "rates": {"input_tokens": "1"},
    "effective_from": "2026-01-01T00:00:00.000000Z",
    "source": {"name": "test", "version": "1"},
}
PAGE = 3


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_cache, "PAGE_PRICES_MAX", PAGE)


class SlowLog:
    """The price events of a log, and a connection whose statements see it at once and are answered when released."""

    def __init__(self) -> None:
        self.events: dict[int, UUID] = {}
        self.unanswered: list[asyncio.Event] = []

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.events[max(self.events, default=0) + 1] = uuid4()

    def lose(self, count: int) -> None:
        """Lose the last events, as a failover to a standby that lagged may."""
        for position in sorted(self.events)[-count:]:
            del self.events[position]

    def page(self, start: int) -> str:
        stream = price_stream("p", "m", None, None)
        after = [position for position in sorted(self.events) if position >= start][:PAGE]
        data = msgspec.json.encode(DATA).decode()
        rows = [(position, self.events[position], stream, "price.published", 1, data) for position in after]
        return msgspec.json.encode(rows).decode()

    async def fetchval(self, statement: str, start: int, count: int) -> str:
        assert (statement, count) == (LOAD_PRICES, PAGE)
        page = self.page(start)
        answer = asyncio.Event()
        self.unanswered.append(answer)
        await answer.wait()
        return page

    async def answer(self, choose: random.Random) -> None:
        if self.unanswered:
            self.unanswered.pop(choose.randrange(len(self.unanswered))).set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def answer_all(self, choose: random.Random, *tasks: asyncio.Task[Any]) -> None:
        while not all(task.done() for task in tasks):
            await self.answer(choose)


async def started(reading: Coroutine[Any, Any, Any], log: Any, choose: random.Random) -> Any:
    """Run a load until the log has answered it, and return its result."""
    task = asyncio.create_task(reading)
    await log.answer_all(choose, task)
    return task.result()


async def quote(cache: PriceCache, log: Any) -> None:
    """Load the book as a quote does: it has each price that was published before."""
    before = set(log.events)
    assert before <= set(await cache.current(log))


async def judge(cache: PriceCache, log: Any) -> None:
    """Load the book as an append does: it has exactly the prices up to the head of its statement."""
    page, head = log.page(cache.position), max(log.events, default=0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert list(await cache.book_at(log, page, head)) == list(range(1, head + 1))


@pytest.mark.parametrize("seed", range(60))
async def test_concurrent_loads_lose_no_price(seed: int) -> None:
    choose, cache, tasks = random.Random(seed), PriceCache(), []
    log: Any = SlowLog()
    log.publish(choose.randrange(5))
    for _ in range(20):
        action = choose.randrange(4)
        if action == 0:
            log.publish(choose.randrange(4))
        elif action == 1:
            await log.answer(choose)
        else:
            load = quote if action == 2 else judge
            tasks.append(asyncio.create_task(load(cache, log)))
        await asyncio.sleep(0)
    await log.answer_all(choose, *tasks)
    await asyncio.gather(*tasks)

    last = asyncio.create_task(cache.current(log))
    await log.answer_all(choose, last)
    assert list(last.result()) == list(log.events)


@pytest.mark.parametrize("seed", range(20))
async def test_lost_prices_leave_the_book(seed: int) -> None:
    choose, cache = random.Random(seed), PriceCache()
    log: Any = SlowLog()
    log.publish(8)
    await log.answer_all(choose, asyncio.create_task(quote(cache, log)))

    log.lose(choose.randrange(1, 9))
    log.publish(choose.randrange(9))
    loads = [asyncio.create_task(cache.current(log)) for _ in range(3)]
    await log.answer_all(choose, *loads)

    assert [list(load.result()) for load in loads] == [list(log.events)] * 3


async def test_a_load_that_is_cancelled_leaves_the_book_to_others() -> None:
    choose, cache = random.Random(0), PriceCache()
    log: Any = SlowLog()
    log.publish(8)
    cancelled, other = (asyncio.create_task(quote(cache, log)) for _ in range(2))
    for _ in range(2):
        await log.answer(choose)
    cancelled.cancel()
    await log.answer_all(choose, other)

    assert cancelled.cancelled()
    await other


@pytest.mark.parametrize("lost", [0, 3])
async def test_a_book_that_was_prepared_is_not_copied_under_the_lock(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, cache = random.Random(0), PriceCache()
    log: Any = SlowLog()
    log.publish(8)
    await log.answer_all(choose, asyncio.create_task(cache.prepare(log)))
    if lost:
        log.lose(lost)
    log.publish(7)
    copied: list[PriceBook] = []
    clone = PriceBook.clone

    def counted(book: PriceBook) -> PriceBook:
        copied.append(book)
        return clone(book)

    monkeypatch.setattr(PriceBook, "clone", counted)
    head = max(log.events) - 1
    at = asyncio.create_task(cache.book_at(log, log.page(cache.position), head))
    await log.answer_all(choose, at)

    # If prices were lost, all are loaded again.
    assert len(copied) == bool(lost)
    assert list(at.result()) == [position for position in log.events if position <= head]
    at.result().pop(head)
    assert list(await started(cache.current(log), log, choose)) == list(log.events)


async def test_prices_that_do_not_arrive_end_an_append(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(PriceCache):
        async def book_at(self, *_: object) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr(judge_ahead, "APPEND_SECONDS_MAX", 2)
    judge, used = OptimisticJudge(lease := ConnectionLease(database), Hanging(), None), {"input_tokens": 1}
    cost = event("cost.recorded", {"resource_type": "llm_api", "usage": used, "provider": "p", "model_used": "m"})
    task = asyncio.create_task(judge.judge([request(cost)], None))
    await asyncio.wait([task], timeout=30)
    task.cancel()
    with pytest.raises(TimeoutError):
        await task
    await lease.close()
