"""Conservation of money: events, accounts and read models agree to the tenth decimal.

LEDGER_TEST_COSTS sets the number of costs and adjustments (default 20,000; 1000000 for the long run).
"""

import os
import random
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec

from ledger.database import Database
from ledger.domain import money
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Candidate, Receipt, Request
from ledger.log.appender import Appender
from ledger.log.prepare import prepare
from ledger.log.read import EventFilter, read_all
from projections.worker import fold_page

COSTS = int(os.environ.get("LEDGER_TEST_COSTS", "20000"))
BATCH = 1_000


def candidate(name: str, data: dict[str, Any], **envelope: Any) -> Candidate:
    event_type = CATALOGUE[name]
    return prepare(event_type, event_type.decoder.decode(msgspec.json.encode(data)), actor="test", **envelope)


def random_amount(chance: random.Random) -> Decimal:
    """Return an amount of up to ten digits and ten decimals."""
    return Decimal(chance.randrange(10 ** chance.randint(1, 20))).scaleb(-10)


async def test_events_accounts_and_read_models_agree_to_the_last_digit(database: Database) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    campaigns = [uuid4() for _ in range(5)]
    expected = dict.fromkeys(campaigns, Decimal(0))
    async with Appender(database) as appender:
        for campaign_id in campaigns:
            data = {"name": "A campaign", "budget": "1", "start_date": "2025-01-01"}
            await appender.append(Request([candidate("campaign.created", data, event_id=campaign_id)]))
        recorded = 0
        while recorded < COSTS:
            batch = list(_batch(chance, campaigns, expected))

            verdict = await appender.append(Request(batch))

            assert all(isinstance(receipt, Receipt) for receipt in verdict), verdict
            recorded += len(batch)
    while await fold_page(database):
        pass

    assert await _sums_of_events(database) == expected
    async with database.connection() as connection:
        accounts = await connection.fetch("SELECT account_id, spent FROM ledger.accounts WHERE scope = 'campaign'")
        rows = await connection.fetch("SELECT id, spend FROM campaigns")
        entries = await connection.fetch("SELECT campaign_id, sum(cost) AS cost FROM budget_entries GROUP BY 1")
    assert {row["account_id"]: row["spent"] for row in accounts} == expected
    assert {row["id"]: row["spend"] for row in rows} == expected
    assert {row["campaign_id"]: row["cost"] for row in entries} == expected


def _batch(chance: random.Random, campaigns: list[Any], expected: dict[Any, Decimal]) -> Any:
    """Yield costs, adjustments of half of them, and credits; add the amounts to `expected`."""
    for _ in range(BATCH * 2 // 3):
        campaign_id = chance.choice(campaigns)
        amount = random_amount(chance)
        data = {"resource_type": "llm_api", "cost": money.plain(amount), "campaign_id": str(campaign_id)}
        opened = candidate("cost.recorded", data)
        yield opened
        expected[campaign_id] = money.add(expected[campaign_id], amount)
        if chance.random() < 0.5:
            down = min(amount, random_amount(chance)).copy_negate()
            change = chance.choice([random_amount(chance), down])
            adjusted = {"amount": money.plain(change), "reason": "invoice"}
            yield candidate("cost.adjusted", adjusted, stream_id=opened.stream_id)
            expected[campaign_id] = money.add(expected[campaign_id], change)
        if chance.random() < 0.3:
            refunded = random_amount(chance) + Decimal("1e-18")
            credit = {"resource_type": "llm_api", "amount": money.plain(refunded), "reason": "A refund"}
            yield candidate("cost.credited", credit | {"campaign_id": str(campaign_id)})
            expected[campaign_id] = money.subtract(expected[campaign_id], refunded)


async def _sums_of_events(database: Database) -> dict[Any, Decimal]:
    sums: dict[Any, Decimal] = {}
    async for page in read_all(database, EventFilter(categories=("cost",))):
        for event in page:
            data = msgspec.json.decode(event.data)
            amount = Decimal(data["cost"] if event.type == "cost.recorded" else data["amount"])
            amount *= -1 if event.type == "cost.credited" else 1
            sums[event.campaign_id] = money.add(sums.get(event.campaign_id, Decimal(0)), amount)
    return sums
