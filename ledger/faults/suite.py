"""A run: fault after fault from a seed, and after each: recovered, and everything holds."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec

from ledger.faults import thorough
from ledger.faults.client import Client, session
from ledger.faults.kinds import NEED_DISK, Blow, Strike, deck
from ledger.faults.load import Load
from ledger.faults.look import Look
from ledger.faults.machine import APIS, Machine, running_machine
from ledger.faults.program import signing_files
from ledger.faults.seals import Seals
from ledger.faults.witness import Witness

FAULTS_BETWEEN_THOROUGH = 40
CALM_SECONDS_MAX = 0.2
RECOVER_SECONDS_MAX = 60.0
SHOWN_MAX = 10


class Report(msgspec.Struct):
    """What came of a run. With `seed` the same faults strike again in the same order; the moments differ."""

    seed: int
    seconds: float = 0.0
    faults: dict[str, int] = {}
    left_out: dict[str, str] = {}
    events: int = 0
    events_acknowledged: int = 0
    answers: dict[int, int] = {}
    sent_again: int = 0
    recover_seconds_max: float = 0.0
    checkpoints: int = 0
    verified: int = 0
    violations: list[str] = []

    @property
    def fault_count(self) -> int:
        """How many faults struck."""
        return sum(self.faults.values())


async def run(
    seed: int | None = None,
    *,
    seconds: float | None = None,
    faults: int | None = None,
    report: Callable[[str], None] = lambda line: None,
    logs: Path | None = None,
) -> Report:
    """Strike the whole service under load until so many faults or seconds, or until something does not hold.

    Needs nothing: PostgreSQL and all processes are started in a folder of their own, and end with it.

    Args:
        seed: of a run that is to be repeated; one by chance when None.
        seconds: strike for so long.
        faults: strike so many times; at least one of the two is given.
        report: told of each step in a line of text, the seed first.
        logs: an existing folder in which the logs of the processes stay.

    Returns:
        what struck and what was found; no violations: every promise held.
    """
    assert seconds is not None or faults is not None
    seed = secrets.randbits(32) if seed is None else seed
    report(f"seed {seed}")
    async with running_machine(logs) as machine, session(machine.key) as http:
        return await _Run(machine, http, Report(seed), report).strike(seconds, faults)


class _Run:
    def __init__(
        self, machine: Machine, http: aiohttp.ClientSession, told: Report, report: Callable[[str], None]
    ) -> None:
        self._machine = machine
        self._http = http
        self._told = told
        self._report = report
        self._chance = random.Random(told.seed)  # noqa: S311
        self._witness = Witness()
        self._load = Load(http, lambda: machine.urls, self._witness, self._chance)
        self._probers = [
            Client(http, partial(self._url_of, index), self._witness, random.Random(self._chance.getrandbits(64)))  # noqa: S311
            for index in range(APIS)
        ]
        self._look = Look(self._witness)
        self._verified_at = 0
        home = signing_files(machine.home)
        kept = home.read()
        assert kept is not None
        self._seals = Seals(home, kept.verifier)

    async def strike(self, seconds: float | None, faults: int | None) -> Report:
        told, started = self._told, time.monotonic()
        if self._machine.no_disk is not None:
            for needy in NEED_DISK:
                told.left_out[needy.__name__] = self._machine.no_disk
                self._report(f"LEFT OUT: {needy.__name__}: {self._machine.no_disk}")
        await self._load.open()
        clients = [asyncio.create_task(self._load.tell_stories(client)) for client in self._load.clients]
        try:
            upcoming: list[Strike] = []
            while told.fault_count != faults and (seconds is None or time.monotonic() - started < seconds):
                upcoming = upcoming or deck(self._chance, with_disk=self._machine.disk is not None)
                await self._strike_once(upcoming.pop())
                for client in clients:
                    if client.done():
                        # Not one of them ends before it is told to, unless it failed.
                        client.result()
                if told.violations:
                    break
            self._load.stopping = True
            if not told.violations:
                await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
        if not told.violations:
            self._note("at the end", await thorough.caught_up(self._machine))
            self._note("at the end", await self._everything())
        told.seconds = time.monotonic() - started
        told.events, told.events_acknowledged = self._look.position, len(self._witness.acknowledged)
        told.answers, told.sent_again = dict(sorted(self._witness.answers.items())), self._witness.sent_again
        told.checkpoints = self._seals.count
        return told

    async def _strike_once(self, strike: Strike) -> None:
        # Of its own, since how often a blow draws depends on what it finds: the next fault must not.
        chance = random.Random(self._chance.getrandbits(64))  # noqa: S311
        name, number = strike.__name__, self._told.fault_count + 1
        where = f"fault {number}, {name}"
        await asyncio.sleep(chance.uniform(0, CALM_SECONDS_MAX))
        struck = time.monotonic()
        await strike(Blow(self._machine, self._load, chance))
        self._told.faults[name] = self._told.faults.get(name, 0) + 1
        try:
            async with asyncio.timeout(RECOVER_SECONDS_MAX):
                await self._machine.recover()
                await asyncio.gather(*(self._probe(index) for index in range(APIS)))
        except TimeoutError:
            self._note(where, [f"the service did not recover within {RECOVER_SECONDS_MAX:.0f} s"])
            return
        recovered = time.monotonic() - struck
        self._told.recover_seconds_max = max(self._told.recover_seconds_max, recovered)
        # A log that has become long takes long to look at as a whole.
        if number - self._verified_at >= max(FAULTS_BETWEEN_THOROUGH, self._look.position // 1_000):
            self._verified_at = number
            self._note(where, await self._everything())
        else:
            self._note(where, await self._at_a_look())
        looked = time.monotonic() - struck - recovered
        self._report(f"{where}: recovered in {recovered:.2f} s, looked in {looked:.2f} s, {self._look.position} events")

    def _url_of(self, index: int) -> list[str]:
        return [self._machine.urls[index]]

    async def _probe(self, index: int) -> None:
        """Wait until an API process records a new event and shows it in the tables."""
        prober, url = self._probers[index], self._machine.urls[index]
        spent = prober.event("cost.recorded", {"resource_type": "other", "cost": "0.01"})
        receipts = await prober.tell(spent)
        if receipts is None:
            # Refused, which is a violation already.
            return
        parameters = {"min_position": str(receipts[0].position)}
        while True:
            try:
                async with self._http.get(f"{url}/v1/budget-entries/{spent['id']}", params=parameters) as answer:
                    if answer.status == HTTPStatus.OK:
                        return
            except aiohttp.ClientError:
                # An answer on a connection that was cut with the fault.
                await asyncio.sleep(0.05)

    async def _at_a_look(self) -> list[str]:
        acknowledged = self._witness.take_unchecked()
        async with self._machine.connection() as connection:
            found = await self._look.violations(connection, acknowledged)
        return found + await self._seals.violations(self._http, self._machine.urls[self._told.fault_count % APIS])

    async def _everything(self) -> list[str]:
        self._told.verified += 1
        found = await self._at_a_look()
        async with self._machine.opened() as database:
            return found + await thorough.violations(database, signing_files(self._machine.home).read(), self._witness)

    def _note(self, where: str, found: list[str]) -> None:
        said, self._witness.violations = self._witness.violations, []
        violations = [f"{where}: {each}" for each in [*found, *said][:SHOWN_MAX]]
        self._told.violations += violations
        for violation in violations:
            self._report(f"VIOLATION after {violation}")
