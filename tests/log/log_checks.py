"""What must hold of a log and of the answers to its senders, computed from stored events alone."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded, Refused
from ledger.domain.event import Receipt
from ledger.domain.judge import Verdict
from ledger.log.appender import Appender
from ledger.log.load import LOAD, Needed, decode_loaded
from ledger.log.price_cache import PriceCache
from ledger.log.resident_state import ResidentState
from tests.domain.helpers import prices_of
from tests.log.helpers import query

EVENTS_SINCE = """
SELECT position, stream_id, type, campaign_id::text, data::text FROM ledger.events
WHERE position >= (SELECT position FROM ledger.campaign_events WHERE stream_id = $1 AND version = 1)
ORDER BY position
"""


class Answered(NamedTuple):
    """The events of a request, its verdict, and a position that was durable when the request arrived."""

    events: Sequence[dict[str, Any]]
    verdict: Verdict
    arrived_at: int


class Balance(NamedTuple):
    """What a campaign has spent and holds."""

    spent: Decimal
    held: Decimal


async def check_positions(database: Database) -> None:
    """Check that positions and versions have no gaps, and that the head is the last position."""
    stored = await query(database, "SELECT position, stream_id, version FROM ledger.events ORDER BY position")
    assert [position for position, _, _ in stored] == list(range(1, len(stored) + 1))
    assert await query(database, "SELECT position FROM ledger.log_head") == [(len(stored),)]
    versions: dict[UUID, int] = {}
    for _, stream_id, version in stored:
        assert version == versions.get(stream_id, 0) + 1
        versions[stream_id] = version


async def check_answers(database: Database, campaign_id: str, budget: Decimal, answers: Sequence[Answered]) -> None:
    """Check that acknowledged events are recorded once, refused ones never, and that refusals have a reason.

    Args:
        database: the database of the log.
        campaign_id: the campaign that all holds count for.
        budget: its budget.
        answers: all answers since the campaign was created.
    """
    balances = await campaign_balances(database, campaign_id, budget)
    statement = "SELECT id::text, position, version FROM ledger.events WHERE position >= $1"
    stored = {event_id: receipt for event_id, *receipt in await query(database, statement, min(balances))}
    acknowledged = {
        str(answer.id) for answered in answers for answer in answered.verdict if isinstance(answer, Receipt)
    }
    for events, verdict, arrived_at in answers:
        for event, answer in zip(events, verdict, strict=len(verdict) > 1):
            if isinstance(answer, Receipt):
                assert stored[event["id"]] == [answer.position, answer.version]
            else:
                assert event["id"] in acknowledged or event["id"] not in stored
                assert_justified(answer, {at: balance for at, balance in balances.items() if at >= arrived_at})


def assert_justified(refusal: Refused, balances: dict[int, Balance]) -> None:
    """Check that a hold was refused because of balances that the log had since the request arrived."""
    assert isinstance(refusal, BudgetExceeded)
    (scope,) = refusal.scopes
    assert Balance(Decimal(scope["spent"]), Decimal(scope["held"])) in balances.values()


async def campaign_balances(database: Database, campaign_id: str, budget: Decimal) -> dict[int, Balance]:
    """Return the balance of a campaign after each position since its creation; no hold may exceed the budget."""
    balances: dict[int, Balance] = {}
    balance, holds = Balance(Decimal(0), Decimal(0)), dict[UUID, Decimal]()
    for position, stream_id, type_, counts_for, data in await query(database, EVENTS_SINCE, UUID(campaign_id)):
        if counts_for == campaign_id or str(stream_id) == campaign_id:
            balance = _after(balance, holds, stream_id, type_, msgspec.json.decode(data))
            assert type_ != "cost.reserved" or sum(balance) <= budget, f"an overspend at position {position}"
        balances[position] = balance
    return balances


def _after(balance: Balance, holds: dict[UUID, Decimal], stream_id: UUID, type_: str, data: dict[str, Any]) -> Balance:
    if type_ == "cost.reserved":
        holds[stream_id] = Decimal(data["amount"])
    elif type_ in ("cost.settled", "cost.released"):
        del holds[stream_id]
    spent = Decimal(data["cost"]) if type_ in ("cost.recorded", "cost.settled") else Decimal(0)
    return Balance(balance.spent + spent, sum(holds.values(), Decimal(0)))


async def check_resident_state(database: Database, appender: Appender) -> None:
    """Check that what an idle appender keeps in memory is what a new load returns."""
    judge = appender._pipeline._judge
    state = judge._state
    assert state is not None
    needed = Needed(list(state._streams), list(state.entries), [], [], [], [], [], [], state.has_prices)
    async with database.connection() as connection:
        loaded = decode_loaded(await connection.fetchrow(LOAD, *needed.arguments(None, 0)))  # type: ignore[arg-type]
        if loaded.prices is not None:
            fresh_prices = await PriceCache().book_at(connection, loaded.prices, loaded.head.position)
            assert prices_of(state.prices) == prices_of(fresh_prices)
    fresh = ResidentState(loaded.head)
    await fresh.merge(loaded, needed)
    assert judge._head == loaded.head
    assert state.position == fresh.position
    assert state.entries == fresh.entries
    assert state.holds == fresh.holds
    # The load also returns the campaigns and jobs of the entries, which may not be resident.
    assert state.heads == {key: head for key, head in fresh.heads.items() if key[1] in state._streams}
    assert state.accounts == {key: account for key, account in fresh.accounts.items() if key[1] in state._streams}
