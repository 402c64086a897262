"""After many random requests, including refused and retried ones, `verify` finds no difference.

LEDGER_TEST_STORM sets the number of events (default 1,500; 100000 for the long run).
"""

import os
import random
import uuid
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from ledger.api.repricing import reprice_page
from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.errors import Refused
from ledger.domain.event import Request
from ledger.log.appender import Appender
from ledger.log.expiry import expire_due_holds
from ledger.log.price_cache import PriceCache
from projections.entries_to_reprice import Selection
from projections.worker import fold_page
from tests.domain.contract import Event
from tests.domain.drawing import NOUNS, Drawer
from tests.domain.helpers import NOW, candidate
from tests.domain.model import Model
from tests.log.helpers import query, value
from tests.projections.replaying import verified
from tests.rules.threaded_service import loop_in_a_thread

EVENTS = int(os.environ.get("LEDGER_TEST_STORM", "1500"))
CONVERSATION_EVENTS = 100
"""Events drawn as one example: about the most that hypothesis allows."""

EVENTS_FOR_ALL_TYPES = 10_000
"""With at least this many events, every event type of the catalogue occurs."""


class DrawnRequest(NamedTuple):
    """A request drawn by hypothesis."""

    events: list[Event]
    independent: bool


@st.composite
def conversations(draw: Any) -> list[DrawnRequest]:
    """Draw requests about separate entities, guided by the model, so that most of them are valid."""
    model = Model()
    # Not drawn: ids have no meaning, and examples must not share entities.
    base = uuid.uuid4().int & ~0xFFFF
    count = iter(range(0x10000))
    streams: dict[str, list[str]] = {noun: [] for noun in NOUNS}
    drawer = Drawer(draw, streams, model, lambda: str(uuid.UUID(int=base + next(count))))
    requests: list[DrawnRequest] = []
    sent: list[Event] = []
    while len(sent) < CONVERSATION_EVENTS:
        number, independent = draw(st.sampled_from([1, 1, 1, 2, 6, 12])), draw(st.booleans())
        events = drawer.events(number, NOW) if number > 1 else [drawer.event()]
        if sent and draw(st.integers(0, 9)) == 9:
            events.append(drawer.changed(draw(st.sampled_from(sent[-10:]))))
        apply = model.apply_independently if independent else model.apply_together
        apply(events, NOW)
        requests.append(DrawnRequest(events, independent))
        sent += events
    return requests


class Storm:
    """Sends conversations to a ledger, request by request. Its clock advances with each request."""

    def __init__(self, url: URL) -> None:
        self.database = Database(url)
        self.now: datetime = NOW
        self.prices = PriceCache()
        self.sent = self.requests = self.refused = self.repriced = 0

    async def send(self, conversation: list[DrawnRequest]) -> None:
        """Append a conversation, expire holds in between, and fold the new events."""
        async with Appender(self.database, clock=lambda: self.now) as appender:
            for drawn in conversation:
                self.sent += len(drawn.events)
                self.requests += 1
                request = Request([candidate(event) for event in drawn.events], drawn.independent)
                verdict = await appender.append(request)
                self.refused += sum(isinstance(answer, Refused) for answer in verdict)
                self.now += timedelta(seconds=0.7)
                if self.requests % 5 == 0:
                    await expire_due_holds(self.database, appender, self.now)
            await self.reprice(appender)

    async def reprice(self, appender: Appender) -> None:
        """Give unpriced entries their cost, and adjust costs by prices that were published later."""
        while await fold_page(self.database, 1_000):
            pass
        async with self.database.connection() as connection, connection.transaction():
            page = Selection(True, None, None, None, None)
            repriced = await reprice_page(connection, appender, self.prices, page, actor="local", dry_run=False)
        self.repriced += repriced.priced + repriced.adjusted


def test_after_many_random_requests_verify_finds_no_difference(database_url: URL) -> None:
    chance = random.randrange(2**32)
    print(f"seed {chance}")

    @seed(chance)
    @settings(
        max_examples=max(1, EVENTS // CONVERSATION_EVENTS),
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(conversations())
    def send(conversation: list[DrawnRequest]) -> None:
        run(storm.send(conversation))

    with loop_in_a_thread() as run:
        storm = Storm(database_url)
        send()
        while run(fold_page(storm.database)):
            pass
        head = run(value(storm.database, "SELECT position FROM ledger.log_head"))
        types = run(query(storm.database, "SELECT type, count(*) FROM ledger.events GROUP BY type ORDER BY type"))
        print(
            f"{storm.sent} events sent in {storm.requests} requests, {storm.refused} refused, "
            f"{storm.repriced} repriced; {dict(types)}"
        )

        report, differences = run(verified(storm.database))

        run(storm.database.close())
    assert (report.position, report.head, storm.refused > 0) == (head, head, True)
    assert (differences, report.faults, report.is_clean) == (set(), [], True)
    if storm.sent >= EVENTS_FOR_ALL_TYPES:
        assert storm.repriced > 0
        assert {name for name, _ in types} == {name for name, kind in CATALOGUE.items() if kind.category != "ledger"}
