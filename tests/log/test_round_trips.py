"""The cost of an append: round trips on the wire, and rows written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.event import Request
from ledger.log import write
from ledger.log.append import append
from ledger.log.appender import Appender
from ledger.log.idempotency import IdempotencyKey
from ledger.log.log_clock import notice_lead
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import candidate, receipts, record, request

pytestmark = pytest.mark.direct

READY_FOR_QUERY = ord("Z")
WRITTEN = """
SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE schemaname = 'ledger'
"""


@pytest.fixture(autouse=True)
def _require_readable_wire(kind: str) -> None:
    require_readable(kind)


def require_readable(kind: str) -> None:
    """Skip a test that counts round trips if the connection is encrypted, and report that as not tested."""
    if kind == "tls":
        pytest.skip("NOT TESTED over TLS: round trips cannot be counted in encrypted traffic")


class Relay:
    """A proxy between client and server that counts round trips; each ends with the message ReadyForQuery."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self.round_trips = 0

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> URL:
        port = self._server.sockets[0].getsockname()[1]
        # Without TLS: the relay must be able to read the messages.
        return self._url.set(host="127.0.0.1", port=port).update_query_dict({"sslmode": "disable"})

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._url.host, self._url.port or 5432)

        async def forward_requests() -> None:
            while data := await reader.read(65_536):
                server_writer.write(data)
            server_writer.close()

        async def forward_answers() -> None:
            while True:
                head = await server_reader.readexactly(5)
                body = await server_reader.readexactly(int.from_bytes(head[1:]) - 4)
                self.round_trips += head[0] == READY_FOR_QUERY
                writer.write(head + body)

        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await asyncio.gather(forward_requests(), forward_answers())
        writer.close()


@pytest.fixture
async def relay(database_url: URL) -> AsyncIterator[Relay]:
    async with Relay(database_url) as relay:
        yield relay


async def round_trips(relay: Relay, warm_up: list[Any], requests: list[Any]) -> tuple[int, list[Any]]:
    """Return the round trips and the verdicts of the second of two appends; the first prepares the statements."""
    database = Database(relay.url)
    async with database.connection() as connection:
        await append(connection, warm_up)
        before = relay.round_trips
        verdicts, _ = await append(connection, requests)
        count = relay.round_trips - before
    await database.close()
    return count, verdicts


@pytest.mark.parametrize("size", [1, 10, 1_000])
async def test_a_small_group_takes_four_round_trips(relay: Relay, size: int) -> None:
    opened = campaign()

    count, verdicts = await round_trips(
        relay, [request(opened)], [request(cost(campaign_id=opened["id"])) for _ in range(size)]
    )

    assert count == 4
    assert [receipt.position for verdict in verdicts for receipt in receipts(verdict)] == list(range(2, size + 2))


async def test_a_group_of_all_categories_takes_four_round_trips(relay: Relay) -> None:
    opened, queued, drafted = campaign(), job(), content()
    held, kept = reserve(agent_job_id=queued["id"]), reserve(agent_job_id=queued["id"])
    first = [opened, queued, drafted, held, kept, follow(queued, "job.started")]
    group = [
        request(follow(held, "cost.settled", {"cost": "1"}), follow(queued, "job.completed")),
        request(follow(opened, "campaign.activated")),
        request(follow(drafted, "content.submitted")),
        request(cost(campaign_id=opened["id"]), job(opened["id"])),
        request(first[0]),
        request(follow(opened, "campaign.paused", expected_version=7)),
    ]

    count, verdicts = await round_trips(relay, [request(*first)], group)

    assert count == 4
    assert [len(verdict) for verdict in verdicts] == [2, 1, 1, 2, 1, 1]


async def test_a_group_that_records_nothing_takes_three_round_trips(relay: Relay) -> None:
    opened = campaign()

    count, verdicts = await round_trips(relay, [request(opened)], [request(opened), request(opened)])

    assert count == 3
    assert [receipt.duplicate for verdict in verdicts for receipt in receipts(verdict)] == [True, True]


async def test_a_clock_that_is_ahead_takes_no_further_round_trip(database: Database, relay: Relay) -> None:
    await record(database, cost(), now=datetime.now(UTC) + timedelta(days=1))
    async with database.connection() as connection:
        assert await notice_lead(connection)

    count, _ = await round_trips(relay, [request(cost())], [request(cost())])

    assert count == 4


async def test_a_large_group_is_copied_in_pieces(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "COPY_CHARACTERS_MIN", 1)
    monkeypatch.setattr(write, "COPY_EVENTS_MAX", 10)

    count, verdicts = await round_trips(relay, [request(cost())], [request(cost()) for _ in range(25)])

    # BEGIN, lock and load, head, three pieces, states, COMMIT.
    assert count == 5 + 3
    assert [receipt.position for verdict in verdicts for receipt in receipts(verdict)] == list(range(2, 27))


async def test_the_appender_takes_two_round_trips_for_a_group(relay: Relay) -> None:
    opened = campaign()
    async with Database(relay.url) as database, Appender(database) as appender:
        for _ in range(2):
            await appender.append(request(cost()))
        before = relay.round_trips

        (receipt, _) = receipts(await appender.append(request(opened, cost(campaign_id=opened["id"]))))

        assert (receipt.position, relay.round_trips - before) == (3, 2)


def keyed(*keys: str) -> list[Request]:
    """Return a request with an Idempotency-Key for each of these keys."""
    requests = []
    for name in keys:
        key = IdempotencyKey(b"s" * 32, "local", name)
        candidates = [candidate(cost(), id=key.event_id(0))]
        requests.append(Request(candidates, claim=key.claim(list(key.contents(candidates)))))
    return requests


async def test_an_idempotency_key_takes_one_further_round_trip(relay: Relay) -> None:
    groups: list[int] = []
    async with Database(relay.url) as database, Appender(database, on_group=lambda *_: groups.append(1)) as appender:
        for warm_up in keyed("a", "b"):
            await appender.append(warm_up)
        (sent,) = keyed("c")
        counts = []
        for one in (sent, sent):
            before = relay.round_trips
            await appender.append(one)
            counts.append(relay.round_trips - before)
        before, recorded = relay.round_trips, len(groups)

        await asyncio.gather(*map(appender.append, keyed(*(str(number) for number in range(40)))))

        assert counts == [3, 2], "claim, load, write; a retry writes nothing"
        assert relay.round_trips - before == 3 * (len(groups) - recorded) < 20, "one claim for all keys of a group"


async def test_the_locked_path_claims_all_keys_of_a_group_in_one_round_trip(relay: Relay) -> None:
    count, verdicts = await round_trips(relay, keyed("warm up"), keyed(*"abcde"))

    assert count == 5
    assert [receipt.position for verdict in verdicts for receipt in receipts(verdict)] == [2, 3, 4, 5, 6]


async def rows_written(database: Database, *requests: Any) -> dict[str, tuple[int, int, int]]:
    """Return the numbers of rows that one append inserted, updated and deleted, by table."""

    async def counts(connection: Any) -> dict[str, tuple[int, int, int]]:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        return {row[0]: tuple(row)[1:] for row in await connection.fetch(WRITTEN)}

    async with database.connection() as connection:
        before = await counts(connection)
        await append(connection, requests)
        after = await counts(connection)
    changed = {table: tuple(new - old for new, old in zip(after[table], before[table], strict=True)) for table in after}
    return {table: rows for table, rows in changed.items() if any(rows)}


async def test_a_recorded_cost_writes_its_row_and_its_accounts_only(database: Database) -> None:
    opened = campaign()
    queued = job(opened["id"])
    await record(database, opened, queued, cost(agent_job_id=queued["id"]))

    rows = await rows_written(database, request(cost(agent_job_id=queued["id"])))

    assert rows == {"cost_events": (1, 0, 0), "accounts": (0, 2, 0), "log_head": (0, 1, 0)}


async def test_a_group_of_costs_writes_each_account_once(database: Database) -> None:
    opened = campaign()
    one, other = job(opened["id"]), job(opened["id"])
    await record(database, opened, one, other, cost(agent_job_id=one["id"]), cost(agent_job_id=other["id"]))

    rows = await rows_written(
        database, *(request(cost(agent_job_id=queued["id"]), cost()) for queued in (one, other) for _ in range(50))
    )

    assert rows == {"cost_events": (200, 0, 0), "accounts": (0, 3, 0), "log_head": (0, 1, 0)}


async def test_a_cost_without_campaign_and_job_writes_one_row(database: Database) -> None:
    rows = await rows_written(database, request(cost()))

    assert rows == {"cost_events": (1, 0, 0), "log_head": (0, 1, 0)}


async def test_a_refused_hold_writes_its_denial_alone(database: Database) -> None:
    opened = campaign(budget="1")
    await record(database, opened)

    rows = await rows_written(database, request(reserve("2", campaign_id=opened["id"])))

    assert rows == {"cost_events": (1, 0, 0), "log_head": (0, 1, 0)}
