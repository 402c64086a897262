"""The resident working state: what it needs to load, what a load may change, and what it forgets."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from ledger.database import Connection, Database
from ledger.domain.errors import EventIdConflict
from ledger.domain.event import Receipt, Request
from ledger.log import judge_ahead, resident_state
from ledger.log.append import end_group, judge_all
from ledger.log.appender import Appender
from ledger.log.load import LOAD, Head, Needed, decode_loaded
from ledger.log.resident_state import ResidentState
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import query, receipts, record, request

NOTHING: Any = ([], [], [], [], [], [], [])


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[Connection]:
    async with database.connection() as connection:
        yield connection


async def load(connection: Connection, state: ResidentState | None, *requests: Request) -> tuple[ResidentState, Needed]:
    """Load what requests need into a state, or into a new one; return it and what was needed."""
    needed = await (state or ResidentState(Head(*await head(connection)))).needed_by(requests)
    row = await connection.fetchrow(LOAD, *needed.arguments(None))
    assert row is not None
    loaded = decode_loaded(row)
    state = state or ResidentState(loaded.head)
    await state.merge(loaded, needed)
    return state, needed


async def head(connection: Connection) -> Any:
    return await connection.fetchrow("SELECT position, recorded_at, token FROM ledger.log_head")


async def judged(connection: Connection, state: ResidentState, *events: dict[str, Any]) -> list[Receipt]:
    """Judge events and end the group, without writing it: as if it were being written."""
    verdicts = await judge_all(state, [request(*events)])
    await end_group(state, Head(*await head(connection)))
    return receipts(verdicts[0])


async def test_a_new_state_needs_every_stream_reference_and_identity(connection: Connection) -> None:
    opened, queued, spent = campaign(), job(), cost(campaign_id=(other := str(uuid4())))
    opened_id, queued_id, spent_id = (UUID(event["id"]) for event in (opened, queued, spent))
    ending = follow(queued, "job.cancelled")

    _, needed = await load(connection, None, request(opened, spent), request(ending))

    assert needed[:3] == ([opened_id, UUID(other), queued_id], [spent_id], [spent_id])
    assert needed[3:7] == (
        ["campaign", "job"],
        [opened_id, queued_id],
        [opened_id, UUID(ending["id"])],
        [queued_id],
    )


async def test_resident_streams_need_only_the_identities_of_unknown_events(
    connection: Connection, database: Database
) -> None:
    opened, spent = campaign(), cost("1")
    await record(database, opened, spent)
    adjusted = follow(spent, "cost.adjusted", {"amount": "1", "reason": "More"})
    new = cost("1", campaign_id=opened["id"])
    state, _ = await load(connection, None, request(opened, spent, new))

    known = (await load(connection, state, request(opened, spent, new)))[1]
    unknown = (await load(connection, state, request(adjusted)))[1]

    # The new entry does not exist, so it has no events to look up.
    assert known[:7] == NOTHING
    assert unknown[:7] == ([], [], [], ["cost"], [UUID(spent["id"])], [UUID(adjusted["id"])], [])


async def test_a_load_does_not_change_what_a_group_being_written_has_changed(
    connection: Connection, database: Database
) -> None:
    opened, spent, other = campaign("100"), cost("1"), cost("1")
    held = [reserve("10", campaign_id=opened["id"]) for _ in range(2)]
    spent["data"]["campaign_id"] = other["data"]["campaign_id"] = opened["id"]
    await record(database, opened, spent, other, *held)
    state, _ = await load(connection, None, request(spent, held[0]))
    await judged(
        connection,
        state,
        follow(spent, "cost.adjusted", {"amount": "5", "reason": "More"}),
        follow(held[0], "cost.settled", {"cost": "7"}),
    )

    # The snapshot is older than that group. Both entries count for the same campaign.
    await load(connection, state, request(other, held[1]))

    account = state.accounts["campaign", UUID(opened["id"])]
    assert (account.spent, account.held) == (1 + 1 + 5 + 7, 10)
    assert state.entries[UUID(spent["id"])].version == 2
    assert set(state.holds) == {UUID(held[1]["id"])}


async def test_a_hold_settled_by_a_group_being_written_is_not_loaded_with_its_job(
    connection: Connection, database: Database
) -> None:
    queued = job()
    held = [reserve("1", agent_job_id=queued["id"]) for _ in range(3)]
    await record(database, queued, *held)
    state, _ = await load(connection, None, request(held[0]))
    await judged(connection, state, follow(held[0], "cost.settled", {"cost": "1"}))

    ending = follow(queued, "job.cancelled")
    await load(connection, state, request(ending))
    await judge_all(state, [request(ending)])

    assert [event.type for event in state.events] == ["job.cancelled", "cost.released", "cost.released"]
    assert state.accounts["job", UUID(queued["id"])].held == 0


async def test_identities_are_forgotten_only_if_every_later_load_returns_them(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_state, "IDENTITIES_KEPT", 2)
    spent = [cost() for _ in range(8)]
    state, _ = await load(connection, None, *(request(event) for event in spent))

    await judged(connection, state, *spent[:6])
    unseen = len(state.identities)
    await record(database, *spent[:4])
    await load(connection, state, request(cost()))
    await judged(connection, state, spent[6])
    seen = [event for event in spent if ("cost", UUID(event["id"]), UUID(event["id"])) in state.identities]

    assert unseen == 6
    # The load saw the first four; the others may not be in the log that the next load reads.
    assert seen == spent[4:7]


async def test_identities_are_forgotten_sooner_if_their_events_are_large(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_state, "IDENTITY_CHARACTERS_MAX", 1_000)
    state, _ = await load(connection, None, request(cost()))

    kept = []
    for _ in range(4):
        await judged(connection, state, cost(description="x" * 400))
        # As if a load had seen the group.
        state._seen_position = state.position
        kept.append(len(state.identities))

    assert kept == [1, 2, 2, 2]


async def test_retries_of_forgotten_events_are_recognised(
    database: Database, appender: Appender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_state, "IDENTITIES_KEPT", 2)
    opened = campaign()
    events = [opened, *(follow(opened, "campaign.details_changed", {"name": "A"}) for _ in range(10))]
    for event in events:
        receipts(await appender.append(request(event)))

    again = [receipts(await appender.append(request(event)))[0] for event in events]
    (conflict,) = await appender.append(request({**events[3], "data": {"name": "B"}}))

    assert [(receipt.position, receipt.duplicate) for receipt in again] == [(n, True) for n in range(1, 12)]
    assert isinstance(conflict, EventIdConflict)


async def test_a_full_state_is_replaced_and_nothing_is_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_state, "STATES_MAX", 5)
    sizes: list[int] = []

    class Counted(ResidentState):
        async def merge(self, *arguments: Any) -> None:
            await super().merge(*arguments)
            sizes.append(len(self._streams) + len(self._entries))

    monkeypatch.setattr(judge_ahead, "ResidentState", Counted)
    opened = campaign("100")
    spent = [cost("1", campaign_id=opened["id"]) for _ in range(20)]
    async with Appender(database) as appender:
        for event in (opened, *spent):
            receipts(await appender.append(request(event)))
        again = [receipts(await appender.append(request(event)))[0].duplicate for event in spent]

    assert max(sizes) == 6
    assert sizes.count(2) > 3
    assert all(again)
    assert await query(database, "SELECT spent FROM ledger.accounts") == [(20,)]
