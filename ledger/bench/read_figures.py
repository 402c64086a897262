"""read and visible: how fast reads are, and how soon an append is visible to them (`min_position`)."""

import re
from typing import Any, NamedTuple

from ledger.api.collections import COLLECTIONS
from ledger.api.paging import LIMIT_DEFAULT, SORT_DEFAULT, read_sort
from ledger.api.views import stored_columns
from ledger.bench import workload
from ledger.bench.constant_rate import LatencyResult
from ledger.bench.constant_rate_process import run_at_constant_rate
from ledger.bench.cpu import read_cpu_time
from ledger.bench.environment import Environment
from ledger.bench.errors import MeasurementError
from ledger.bench.load_process import run_load
from ledger.bench.pgbench import pgbench
from ledger.bench.report import Figure, Round, absolute_figure, ratio_figure
from projections import queries
from projections.tables import BUDGET_ENTRIES, CAMPAIGNS

CONNECTIONS = 32
EVENTS_PER_SECOND = 500

_CAMPAIGN_VARIABLE = "('00000000-0000-7000-8000-c000' || lpad(:campaign::text, 8, '0'))::uuid"


class _Captured(Exception):
    """Carries the statement that a query was about to run."""

    def __init__(self, statement: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(statement)
        self.statement = statement
        self.arguments = arguments


class _CapturingConnection:
    """Takes the place of the API's connection to capture the statements that it runs."""

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        raise _Captured(statement, arguments)

    fetchrow = fetch


class _Statement(NamedTuple):
    text: str
    arguments: tuple[Any, ...]

    def for_pgbench(self) -> str:
        """Return it with literals for its arguments; the argument None becomes pgbench's variable `campaign`."""
        # pgbench would take a colon before a name for a variable, even inside the format of a timestamp.
        text = re.sub(r"(?<=\w):(?=\w)", "'||chr(58)||'", " ".join(self.text.split()))
        for number in range(len(self.arguments), 0, -1):
            argument = self.arguments[number - 1]
            literal = f"'{argument}'" if isinstance(argument, str) else str(argument)
            text = text.replace(f"${number}", _CAMPAIGN_VARIABLE if argument is None else literal)
        return f"{text};"


async def api_statements() -> str:
    """Return the statements that the API runs for both reads, as a pgbench script."""
    connection: Any = _CapturingConnection()
    views = {collection.model: collection.view for collection in COLLECTIONS}
    page = queries.page_statement(
        BUDGET_ENTRIES,
        stored_columns(views[BUDGET_ENTRIES]),
        sort=read_sort(SORT_DEFAULT, ("created_at", "id")),
        limit=LIMIT_DEFAULT,
    )
    statements: list[_Statement] = []
    absent: Any = None
    for query in (
        queries.read_item(connection, CAMPAIGNS, stored_columns(views[CAMPAIGNS]), absent),
        queries.read_page(connection, page),
    ):
        try:
            await query
        except _Captured as captured:
            statements.append(_Statement(captured.statement, captured.arguments))
    set_campaign = f"\\set campaign random(0, {workload.CAMPAIGNS - 1})"
    return "\n".join([set_campaign, *(statement.for_pgbench() for statement in statements)]) + "\n"


async def read(environment: Environment) -> list[Figure]:
    """Measure GETs of a campaign and of a page of 50 entries against the same statements in pgbench."""
    script, sizes = await api_statements(), environment.sizes
    template = await environment.log_template(sizes.log_events, "trace", folded=True)
    rounds: list[Round] = []
    latencies: dict[str, list[float]] = {"latency p50 ms": [], "latency p99 ms": []}
    averages: dict[str, float] = {}
    async with environment.cloned_database(template) as url, environment.api(url) as api:
        options: dict[str, Any] = {"connections": CONNECTIONS, "folder": environment.folder}
        await run_load(api.url, "reads", seconds=sizes.warm_up_seconds, **options)
        for number in range(1, sizes.rounds + 1):
            environment.show_step(f"read: round {number} of {sizes.rounds}")
            script_rate = await pgbench(
                environment.binaries,
                url,
                script,
                clients=CONNECTIONS,
                seconds=sizes.seconds,
                folder=environment.folder,
            )
            cpu_before = read_cpu_time(api.pid, environment.postmaster_pid)
            result = await run_load(api.url, "reads", seconds=sizes.seconds, **options)
            cpu = read_cpu_time(api.pid, environment.postmaster_pid).since(cpu_before, result.requests)
            cpu["load CPU"] = result.cpu_seconds * 1e6 / result.requests
            averages = {name: averages.get(name, 0.0) + amount / sizes.rounds for name, amount in cpu.items()}
            latencies["latency p50 ms"].append(result.p50_ms)
            latencies["latency p99 ms"].append(result.p99_ms)
            # One run of the script is two reads.
            rounds.append(Round(result.requests / result.seconds, 2 * script_rate))
    return [
        ratio_figure(
            "read",
            f"GET of a campaign and of a page of 50 entries in turns, {CONNECTIONS} connections",
            f"pgbench -M prepared, {CONNECTIONS} clients: the same statements",
            rounds,
            target=0.5,
            unit="reads/s",
            absolute=latencies,
            microseconds_per_event=averages,
        )
    ]


async def visible(environment: Environment) -> list[Figure]:
    """Measure the time from the response of an append to the response of a read that waits for its position."""
    rounds: list[LatencyResult] = []
    sizes = environment.sizes
    async with (
        environment.cloned_database(await environment.empty_template()) as url,
        environment.worker(url),
        environment.api(url) as api,
    ):
        environment.show_step("visible: warm-up")
        await _measure_visibility(environment, api.url, sizes.warm_up_seconds)
        for number in range(1, sizes.rounds + 1):
            environment.show_step(f"visible: round {number} of {sizes.rounds}")
            rounds.append(await _measure_visibility(environment, api.url, sizes.visible_seconds))
    work = f"from the response of an append to that of a read with its min_position, at {EVENTS_PER_SECOND} events/s"
    notes = [f"every tenth event is read back: {sum(each.samples for each in rounds):,} samples"]
    return [
        absolute_figure("visible p50", work, [each.p50_ms for each in rounds], unit="ms", target=15, notes=notes),
        absolute_figure("visible p99", work, [each.p99_ms for each in rounds], unit="ms", target=60, notes=notes),
    ]


async def _measure_visibility(environment: Environment, url: str, seconds: int) -> LatencyResult:
    result = await run_at_constant_rate(
        url, "visibility", seconds=seconds, events_per_second=EVENTS_PER_SECOND, folder=environment.folder
    )
    if result.refused:
        raise MeasurementError(f"{result.refused:,} of {result.sent:,} events were refused: {result.refusal}")
    return result
