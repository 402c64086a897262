"""read and visible: what a dashboard sees, how fast, and how soon after an append."""

import re
import sys
from typing import Any, NamedTuple

import msgspec

from ledger.api.collections import COLLECTIONS
from ledger.api.paging import LIMIT_DEFAULT, SORT_DEFAULT, read_sort
from ledger.api.views import columns
from ledger.bench import cpu, traffic
from ledger.bench.load import put_load
from ledger.bench.pgbench import pgbench
from ledger.bench.processes import MeasurementError, run_program
from ledger.bench.report import Figure, Pair, ratio, value
from ledger.bench.stage import Stage
from projections import queries

CONNECTIONS = 32
EVENTS_PER_SECOND = 500


class _Asked(Exception):
    """What a query would have asked the database."""

    def __init__(self, statement: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(statement)
        self.statement = statement
        self.arguments = arguments


class _Recorder:
    """Stands where the API has its connection, to learn its very statements."""

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        raise _Asked(statement, arguments)

    fetchrow = fetch


class _Statement(NamedTuple):
    text: str
    arguments: tuple[Any, ...]

    def for_pgbench(self) -> str:
        """With its arguments in their places; the one that is None is pgbench's variable."""
        # A colon before a name would be a variable of pgbench's, in a format of times too.
        text = re.sub(r"(?<=\w):(?=\w)", "'||chr(58)||'", " ".join(self.text.split()))
        for number in range(len(self.arguments), 0, -1):
            argument = self.arguments[number - 1]
            literal = f"'{argument}'" if isinstance(argument, str) else str(argument)
            text = text.replace(f"${number}", _CAMPAIGN if argument is None else literal)
        return f"{text};"


_CAMPAIGN = "('00000000-0000-7000-8000-c000' || lpad(:campaign::text, 8, '0'))::uuid"


async def same_selects() -> str:
    """The statements of both reads, as a script of pgbench."""
    recorder: Any = _Recorder()
    collections = {collection.table: collection for collection in COLLECTIONS}
    entries = collections["budget_entries"]
    asked: list[_Statement] = []
    absent: Any = None
    for query in (
        queries.item(recorder, "campaigns", columns(collections["campaigns"].view), "t.id", absent),
        queries.page(
            recorder,
            "budget_entries",
            columns=columns(entries.view),
            size=entries.size,
            conditions=[],
            order=", ".join(key.sql for key in read_sort(SORT_DEFAULT, entries.sortable)),
            limit=LIMIT_DEFAULT,
            arguments=[],
        ),
    ):
        try:
            await query
        except _Asked as found:
            asked.append(_Statement(found.statement, found.arguments))
    set_campaign = f"\\set campaign random(0, {traffic.CAMPAIGNS - 1})"
    return "\n".join([set_campaign, *(statement.for_pgbench() for statement in asked)]) + "\n"


async def read(stage: Stage) -> list[Figure]:
    """A campaign and a page of 50 entries in turns, against the same statements."""
    script = await same_selects()
    template = await stage.log(stage.plan.log_events, "trace", folded=True)
    pairs: list[Pair] = []
    latencies: dict[str, list[float]] = {"latency p50 ms": [], "latency p99 ms": []}
    totals: dict[str, float] = {}
    async with stage.database(template) as url, stage.api(url) as api:

        async def load(seconds: int) -> tuple[float, float, float]:
            loaded = await put_load(api.url, "reads", seconds=seconds, connections=CONNECTIONS, folder=stage.folder)
            return loaded.requests / loaded.seconds, loaded.p50_ms, loaded.p99_ms

        await load(stage.plan.warm_up_seconds)
        for number in range(1, stage.plan.rounds + 1):
            stage.say(f"read: round {number} of {stage.plan.rounds}")
            runs = await pgbench(
                stage.binaries, url, script, clients=CONNECTIONS, seconds=stage.plan.seconds, folder=stage.folder
            )
            before = cpu.spent(api.pid, stage.postmaster_pid)
            rate, p50, p99 = await load(stage.plan.seconds)
            spent = cpu.spent(api.pid, stage.postmaster_pid).since(before, rate * stage.plan.seconds)
            totals = {name: totals.get(name, 0.0) + amount / stage.plan.rounds for name, amount in spent.items()}
            latencies["latency p50 ms"].append(p50)
            latencies["latency p99 ms"].append(p99)
            # A run of the script is two reads.
            pairs.append(Pair(rate, 2 * runs))
    return [
        ratio(
            "read",
            f"GET of a campaign and of a page of 50 entries in turns, {CONNECTIONS} connections",
            f"pgbench -M prepared, {CONNECTIONS} clients: the same statements",
            pairs,
            target=0.35,
            unit="reads/s",
            absolute=latencies,
            microseconds_per_event=totals,
        )
    ]


class _Seen(msgspec.Struct):
    sent: int
    samples: int
    p50_ms: float
    p99_ms: float


async def visible(stage: Stage) -> list[Figure]:
    """How long after an append's answer a read that asks for its position is answered."""
    rounds: list[_Seen] = []
    async with stage.database(await stage.empty()) as url, stage.worker(url), stage.api(url) as api:
        for number in range(stage.plan.rounds + 1):
            stage.say(f"visible: round {number} of {stage.plan.rounds}")
            seconds = stage.plan.visible_seconds if number else stage.plan.warm_up_seconds
            said = await run_program(
                *(sys.executable, "-m", "ledger.bench.pace", api.url, str(seconds), str(EVENTS_PER_SECOND)),
                folder=stage.folder,
            )
            seen = msgspec.json.decode(said, type=_Seen)
            if seen.sent < 0.95 * seconds * EVENTS_PER_SECOND:
                raise MeasurementError(f"only {seen.sent / seconds:.0f} events/s were sent, not {EVENTS_PER_SECOND}")
            if number:
                rounds.append(seen)
    work = f"from an append's answer to that of a read with its min_position, at {EVENTS_PER_SECOND} events/s"
    notes = [f"every tenth event is read back: {sum(seen.samples for seen in rounds):,} samples"]
    return [
        value("visible p50", work, [seen.p50_ms for seen in rounds], unit="ms", target=15, notes=notes),
        value("visible p99", work, [seen.p99_ms for seen in rounds], unit="ms", target=60, notes=notes),
    ]
