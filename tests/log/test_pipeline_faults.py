"""The append pipeline with a fault at each use of a connection: no loss, no repeat, no overspend."""

import asyncio
from decimal import Decimal
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from ledger.database import Database
from ledger.domain.errors import DatabaseUnavailable, Refused
from ledger.domain.judge import Verdict
from ledger.log import resident_state, write
from ledger.log.append import append
from ledger.log.appender import Appender
from tests.events import campaign, cost, follow, job, reserve
from tests.log.faulty_connections import KINDS, Faults, inject
from tests.log.helpers import record, request, value
from tests.log.log_checks import Answered, check_answers, check_positions, check_resident_state

BUDGET = Decimal(4)


class Run:
    """One run of the workload: a campaign whose budget the holds exceed, and what its senders were answered."""

    def __init__(self, database: Database) -> None:
        self.opened = campaign(budget=str(BUDGET))
        self.answers: list[Answered] = []
        self._database = database
        self._durable = 0
        self._elsewhere = [self.hold(), self.hold("0.75"), self.hold()]

    def hold(self, amount: str = "1", **data: Any) -> dict[str, Any]:
        """Return a hold on the campaign."""
        return reserve(amount, campaign_id=self.opened["id"], **data)

    async def prepare(self) -> None:
        """Create the campaign, with a hold by another process."""
        receipts = await record(self._database, self.opened, self._elsewhere[0])
        self._durable = receipts[-1].position

    async def append_elsewhere(self) -> None:
        """Append as another process: release the first hold, so that there is room, and hold as much as fits."""
        freed, *later = self._elsewhere
        await self._append_directly(follow(freed, "cost.released"))
        for hold in later:
            await self._append_directly(hold)

    async def _append_directly(self, event: dict[str, Any]) -> None:
        async with self._database.connection() as connection:
            (verdict,), position = await append(connection, [request(event)])
        self.answers.append(Answered([event], verdict, self._durable))
        self.committed(position)

    def committed(self, position: int) -> None:
        """Remember that the log has come to this position."""
        self._durable = max(self._durable, position)

    def clients(self) -> list[list[list[dict[str, Any]]]]:
        """Return the requests of each client, which sends the next one when the last one is answered."""
        first, second, queued = self.hold(), self.hold(), job(self.opened["id"])
        of_job = self.hold("0.5", agent_job_id=queued["id"])
        return [
            [[first], [first], [follow(first, "cost.settled", {"cost": "0.5"})], [self.hold("2")]],
            [[second], [follow(second, "cost.released")], [self.hold(description="A text")]],
            [[queued], [of_job], [follow(queued, "job.started")], [follow(queued, "job.cancelled")]],
            [[cost("0.25", campaign_id=self.opened["id"])], [self.hold("3"), cost()], [self.hold()]],
            [[first], [self.hold("2")], [self.hold("0.5")]],
        ]

    async def work(self, appenders: list[Appender]) -> None:
        """Send everything, and wait for the answers."""
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for number, requests in enumerate(self.clients()):
                tasks.create_task(self._send_each(appenders[number % len(appenders)], requests))

    async def _send_each(self, appender: Appender, requests: list[list[dict[str, Any]]]) -> None:
        refused: set[str] = set()
        for events in requests:
            if events[0].get("stream_id") not in refused:
                verdict = await self.send(appender, *events)
                refused |= {events[0]["id"]} if isinstance(verdict[0], Refused) else set()

    async def send_repeatedly(self, appender: Appender, hold: dict[str, Any]) -> None:
        """Send a hold that is refused each time; only a refusal for other balances is recorded again."""
        for _ in range(4):
            await self.send(appender, hold)

    async def send(self, appender: Appender, *events: dict[str, Any]) -> Verdict:
        """Send a request until it is answered."""
        while True:
            arrived_at = self._durable
            try:
                verdict = await appender.append(request(*events))
            except DatabaseUnavailable:
                continue
            self.answers.append(Answered(events, verdict, arrived_at))
            return verdict


async def run(database: Database, monkeypatch: pytest.MonkeyPatch, kind: str, at: int, appenders: int) -> bool:
    """Run the workload with one fault, and check everything; False if the workload ended before the fault."""
    this = Run(database)
    await this.prepare()
    faults = Faults(kind, at, this.append_elsewhere)
    with monkeypatch.context() as patch:
        inject(patch, faults)
        one, other = (Appender(database, on_append=this.committed) for _ in range(2))
        async with one, other:
            await this.work([one, other][:appenders])
            await execute_late(database, faults)
            await this.send_repeatedly(one, this.hold("3.9"))
            is_reached = faults.disarm()
            # A fault at the last append would have left no state to check.
            await this.send(one, this.hold("0.01"))
            await check_resident_state(database, one)
    await check_answers(database, this.opened["id"], BUDGET, this.answers)
    return is_reached


async def execute_late(database: Database, faults: Faults) -> None:
    """Execute the writes whose connection was lost; all of them were retried meanwhile, so they must do nothing."""
    for statement in faults.late:
        assert not await value(database, *statement)


class Variant(NamedTuple):
    """How many appenders share the database, constants to change, and the distance from one fault to the next."""

    appenders: int
    constants: dict[tuple[ModuleType, str], int]
    step: int


VARIANTS = {
    "one appender": Variant(1, {}, 2),
    "two appenders": Variant(2, {}, 8),
    "writes by COPY": Variant(1, {(write, "COPY_CHARACTERS_MIN"): 0}, 6),
    "a small state": Variant(1, {(resident_state, "STATES_MAX"): 8, (resident_state, "IDENTITIES_KEPT"): 1}, 4),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
async def test_a_fault_at_any_use_of_a_connection_breaks_no_promise(
    database: Database, monkeypatch: pytest.MonkeyPatch, kind: str, variant: Variant
) -> None:
    for (module, name), value_in_test in variant.constants.items():
        monkeypatch.setattr(module, name, value_in_test)
    at = 1
    while await run(database, monkeypatch, kind, at, variant.appenders):
        at += variant.step

    assert at > 20
    await check_positions(database)
