"""catch_up and rebuild: events folded into the read models, against rows that are only copied there."""

import time
from contextlib import aclosing

from sqlalchemy import URL

from ledger.bench import controls, prepared_data
from ledger.bench.cpu import CpuTime, read_cpu_time
from ledger.bench.environment import Environment
from ledger.bench.report import Figure, Round, ratio_figure
from projections.snapshots import replay_into

CONTROL = "asyncpg COPY of as many rows into a copy of budget_entries with its indexes and keys"


async def catch_up(environment: Environment) -> list[Figure]:
    """Measure the worker over a log of costs that is not folded yet."""
    events, round_count = environment.sizes.catch_up_events, environment.sizes.rounds
    template = await environment.log_template(events, "costs", folded=False)
    rounds: list[Round] = []
    averages: dict[str, float] = {}
    for number in range(1, round_count + 1):
        environment.show_step(f"catch_up: round {number} of {round_count}")
        async with environment.cloned_database(template) as url:
            control = await _copy(environment, url, events)
            work, microseconds = await run_worker_to_head(environment, url)
            averages = {name: averages.get(name, 0.0) + amount / round_count for name, amount in microseconds.items()}
            rounds.append(Round(work, control))
    return [
        ratio_figure(
            "catch_up",
            f"`ledger worker` over {events:,} cost events, from the end of its first page to the log's end",
            CONTROL,
            rounds,
            target=0.5,
            unit="events/s",
            microseconds_per_event=averages,
        )
    ]


async def _copy(environment: Environment, url: URL, rows: int) -> float:
    async with environment.connection(url) as connection:
        await controls.create_tables(connection)
        return await controls.copy_entries(connection, rows)


async def run_worker_to_head(environment: Environment, url: URL) -> tuple[float, dict[str, float]]:
    """Run the worker until it has folded the whole log.

    Measured from the end of its first page, so that the start of the process does not count.

    Returns:
        events per second, and microseconds per event by process.
    """
    head = await environment.head_position(url)
    async with environment.connection(url) as connection, environment.worker(url) as worker:
        first_page: tuple[float, int, CpuTime] | None = None
        start: int | None = None
        async with aclosing(prepared_data.poll_checkpoint(connection)) as positions:
            async for position in positions:
                start = position if start is None else start
                if first_page is None and position > start:
                    first_page = (time.perf_counter(), position, read_cpu_time(worker.pid, environment.postmaster_pid))
                if position >= head:
                    break
        assert first_page is not None
        began, first_position, cpu_before = first_page
        events, seconds = head - first_position, time.perf_counter() - began
        microseconds = read_cpu_time(worker.pid, environment.postmaster_pid).since(cpu_before, events)
    return events / seconds, microseconds | {"elapsed": seconds * 1e6 / events}


async def rebuild(environment: Environment) -> list[Figure]:
    """Measure the replay of a log into a schema, as `ledger replay` does it."""
    events, round_count = environment.sizes.log_events, environment.sizes.rounds
    template = await environment.log_template(events, "trace", folded=False)
    rounds: list[Round] = []
    async with environment.cloned_database(template) as url, environment.open_database(url) as database:
        head = await environment.head_position(url)
        for number in range(1, round_count + 1):
            environment.show_step(f"rebuild: round {number} of {round_count}")
            control = await _copy(environment, url, events)
            began = time.perf_counter()
            await replay_into(database, "rebuilt", head)
            rounds.append(Round(head / (time.perf_counter() - began), control))
            async with environment.connection(url) as connection:
                await connection.execute("DROP SCHEMA rebuilt CASCADE; DROP SCHEMA bench CASCADE")
    return [
        ratio_figure(
            "rebuild",
            f"{events:,} events of the trace's mix replayed into a new schema, indexes included",
            CONTROL,
            rounds,
            target=0.6,
            unit="events/s",
        )
    ]
