"""Costs computed in floats by every price of genai-prices: accepted exactly, and their sums agree.

`LEDGER_TEST_FLOAT_COSTS=1000000` sums that many.
"""

import os
import random
from collections.abc import Iterator
from decimal import Decimal, localcontext
from itertools import islice
from typing import Any

import msgspec
import pytest

from ledger.database import Database
from ledger.domain.cost import CostRecorded
from ledger.domain.event import Request
from ledger.log.append import append
from ledger.log.decode import read_candidate
from ledger.prices.genai_prices import library_prices
from projections.catch_up import fold_new_events
from tests.events import campaign, cost, job
from tests.log.helpers import receipts, record, value

COSTS = int(os.environ.get("LEDGER_TEST_FLOAT_COSTS", "3000"))
PAGE = 2_500

FINEST = Decimal("1e-18")


def float_costs() -> Iterator[float]:
    """Yield what calls cost by each price, computed as clients do: rate by rate, in floats, again and again."""
    draw = random.Random(20)
    rates = [[float(rate) for rate in price.rates.as_json().values()] for price in library_prices().prices]
    while True:
        for of_price in rates:
            yield sum(draw.randrange(10 ** draw.randrange(1, 6)) * rate / 1_000_000 for rate in of_price)


def spellings(amount: float) -> set[str]:
    """Return how Python and JavaScript write a float: the same digits, with other exponents and limits of them."""
    by_python = repr(amount)
    digits = format(Decimal(by_python), "f")
    if amount and amount < 1e-6:
        mantissa, exponent = by_python.split("e")
        return {by_python, f"{mantissa}e{int(exponent)}"}
    return {by_python, digits.removesuffix(".0")}


def stored(text: str) -> Decimal:
    """Return the cost that an event with this text stores."""
    event = msgspec.json.encode(cost()).decode().replace('"cost":"1"', f'"cost":{text}')
    payload = read_candidate(event.encode(), 0, "local", None).payload
    assert isinstance(payload, CostRecorded)
    assert payload.cost is not None
    return payload.cost


def test_every_float_is_accepted_in_both_spellings_as_number_and_as_text() -> None:
    numbers = {1: 0, 2: 0}
    for amount in islice(float_costs(), 3_000):
        exact, texts = Decimal(repr(amount)).quantize(FINEST), spellings(amount)
        numbers[len(texts)] += 1
        for text in texts:
            assert stored(text) == stored(f'"{text}"') == exact

    assert min(numbers.values()) > 100


@pytest.mark.parametrize(
    ("amount", "texts"),
    [
        (8.75e-09, {"8.75e-09", "8.75e-9"}),
        (1e-07, {"1e-07", "1e-7"}),
        (2.5e-05, {"2.5e-05", "0.000025"}),
        (0.1 + 0.2, {"0.30000000000000004"}),
        (3.0, {"3.0", "3"}),
    ],
)
def test_both_spellings_are_those_of_the_languages(amount: float, texts: set[str]) -> None:
    assert spellings(amount) == texts


def costs_of(job_id: str) -> Iterator[tuple[dict[str, Any], Decimal]]:
    """Yield events with float costs, and what each has to add to every sum."""
    for amount in islice(float_costs(), COSTS):
        yield cost(repr(amount), agent_job_id=job_id), Decimal(repr(amount)).quantize(FINEST)


async def test_sums_of_float_costs_agree_everywhere(database: Database) -> None:
    opened = campaign("1000000000")
    worked = job(opened["id"])
    await record(database, opened, worked)
    expected, number = Decimal(0), 0
    with localcontext() as context:
        context.prec = 60
        costs = costs_of(worked["id"])
        while page := list(islice(costs, PAGE)):
            candidates = [read_candidate(msgspec.json.encode(event), 0, "local", None) for event, _ in page]
            async with database.connection() as connection:
                (verdict,), _ = await append(connection, [Request(candidates)], None)
            number += len(receipts(verdict))
            expected += sum(amount for _, amount in page)
    await fold_new_events(database)

    sums = {
        "events": "SELECT sum((data::jsonb ->> 'cost')::numeric) FROM ledger.cost_events",
        "accounts": "SELECT spent FROM ledger.accounts WHERE scope = 'campaign'",
        "job": "SELECT spent FROM ledger.accounts WHERE scope = 'job'",
        "rows": "SELECT sum(cost) FROM budget_entries",
        "campaign": "SELECT spend FROM campaigns",
        "agent job": "SELECT cost FROM agent_jobs",
        "postings": "SELECT sum(amount) FROM cost_postings",
    }
    assert number == COSTS
    assert {name: await value(database, statement) for name, statement in sums.items()} == dict.fromkeys(sums, expected)
