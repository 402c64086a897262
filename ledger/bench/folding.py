"""catch_up and rebuild: events folded into the read models, against rows that are only copied there."""

import time
from contextlib import aclosing

from sqlalchemy import URL

from ledger.bench import controls, cpu, data
from ledger.bench.report import Figure, Pair, ratio
from ledger.bench.stage import Stage
from projections.snapshots import replay_into

CONTROL = "asyncpg COPY of as many rows into a copy of budget_entries with its indexes and keys"


async def catch_up(stage: Stage) -> list[Figure]:
    """The worker over a log of costs that it has not seen yet."""
    events = stage.plan.catch_up_events
    template = await stage.log(events, "costs", folded=False)
    pairs: list[Pair] = []
    totals: dict[str, float] = {}
    for number in range(1, stage.plan.rounds + 1):
        stage.say(f"catch_up: round {number} of {stage.plan.rounds}")
        async with stage.database(template) as url:
            control = await _copy(stage, url, events)
            work, spent = await folded_per_second(stage, url)
            totals = {name: totals.get(name, 0.0) + amount / stage.plan.rounds for name, amount in spent.items()}
            pairs.append(Pair(work, control))
    return [
        ratio(
            "catch_up",
            f"`ledger worker` over {events:,} cost events, from its first page on to the log's end",
            CONTROL,
            pairs,
            target=0.5,
            unit="events/s",
            microseconds_per_event=totals,
        )
    ]


async def _copy(stage: Stage, url: URL, rows: int) -> float:
    async with stage.connection(url) as connection:
        await controls.make_tables(connection)
        return await controls.copy_entries(connection, rows)


async def folded_per_second(stage: Stage, url: URL) -> tuple[float, dict[str, float]]:
    """Run the worker to the log's end: events a second, and microseconds an event by who spent them.

    Measured from the end of its first page: before that it starts.
    """
    head = await stage.position(url)
    async with stage.connection(url) as connection, stage.worker(url) as worker:
        first: tuple[float, int, cpu.Spent] | None = None
        start: int | None = None
        async with aclosing(data.checkpoints(connection)) as positions:
            async for position in positions:
                start = position if start is None else start
                if first is None and position > start:
                    first = (time.perf_counter(), position, cpu.spent(worker.pid, stage.postmaster_pid))
                if position >= head:
                    break
        assert first is not None
        began, begin, before = first
        events, seconds = head - begin, time.perf_counter() - began
        spent = cpu.spent(worker.pid, stage.postmaster_pid).since(before, events)
    spent.pop("load CPU")
    return events / seconds, spent | {"elapsed": seconds * 1e6 / events}


async def rebuild(stage: Stage) -> list[Figure]:
    """The log replayed into a schema, as `ledger replay` does it."""
    events = stage.plan.log_events
    template = await stage.log(events, "trace", folded=False)
    pairs: list[Pair] = []
    async with stage.database(template) as url, stage.opened(url) as database:
        head = await stage.position(url)
        for number in range(1, stage.plan.rounds + 1):
            stage.say(f"rebuild: round {number} of {stage.plan.rounds}")
            control = await _copy(stage, url, events)
            began = time.perf_counter()
            await replay_into(database, "rebuilt", head)
            pairs.append(Pair(head / (time.perf_counter() - began), control))
            async with stage.connection(url) as connection:
                await connection.execute("DROP SCHEMA rebuilt CASCADE; DROP SCHEMA bench CASCADE")
    return [
        ratio(
            "rebuild",
            f"{events:,} events of the trace's mix replayed into a schema of their own, indexes included",
            CONTROL,
            pairs,
            target=0.6,
            unit="events/s",
        )
    ]
