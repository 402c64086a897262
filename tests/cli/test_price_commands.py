"""`ledger prices`: import from a file and from the library, list, show, quote."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from ledger.database import Database
from projections.catch_up import fold_new_events
from tests.cli.helpers import REPOSITORY, ledger
from tests.events import event
from tests.log.helpers import query, record, value

PRICES = "SELECT count(*) FROM ledger.price_events"


def price(rate: str = "2", **fields: Any) -> dict[str, Any]:
    source = {"name": "contract", "version": "2026"}
    required = {"provider": "openai", "model": "gpt-x", "rates": {"input_tokens": rate, "output_tokens": "8"}}
    return required | {"effective_from": "2026-01-01T00:00:00Z", "source": source} | fields


async def test_a_file_is_compared_imported_and_adds_nothing_again(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps([price(prefixes=["gpt-x-"]), price("1", service_tier="batch")]))
    command = ("prices", "import", file)

    dry = await ledger(*command, "--dry-run", database=database_url)
    after_dry = await value(database, PRICES)
    first = await ledger(*command, "--json", database=database_url)
    again = await ledger(*command, database=database_url)
    file.write_text(json.dumps(price("3", effective_from="2026-02-01T00:00:00+01:00")))
    changed = await ledger(*command, "--dry-run", database=database_url)

    assert [result.code for result in (dry, first, again, changed)] == [0] * 4, dry.err + first.err
    assert dry.out.splitlines() == [
        "+ openai/gpt-x standard USD from 2026-01-01T00:00:00.000000Z: input_tokens=2 output_tokens=8",
        "+ openai/gpt-x batch USD from 2026-01-01T00:00:00.000000Z: input_tokens=1 output_tokens=8",
        "2 prices would be published, of 2 for 1 model of 1 provider from contract 2026.",
    ]
    assert after_dry == 0
    assert json.loads(first.out) == {"prices": 2, "published": 2, "left_out": []}
    assert again.out.startswith("Nothing to publish")
    assert changed.out.startswith("~ openai/gpt-x standard USD from 2026-01-31T23:00:00")
    assert "input_tokens=2 output_tokens=8 -> input_tokens=3" in changed.out
    ((actors, number),) = await query(database, "SELECT array_agg(DISTINCT actor), count(*) FROM ledger.price_events")
    assert number == 2
    assert actors[0].startswith("cli:")


async def test_an_import_warns_of_names_and_prefixes_that_a_price_loses(database_url: URL, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(price(names=["gpt-x-1", "gpt-x-2", "gpt-x-latest", "x"], prefixes=["gpt-x-", "x-"])))
    first = await ledger("prices", "import", file, database=database_url)
    # The names that begin with the prefix that stays are not lost.
    file.write_text(json.dumps(price("1", names=["gpt-x-1"], prefixes=["gpt-x-"])))

    dry = await ledger("prices", "import", file, "--dry-run", database=database_url)
    replaced = await ledger("prices", "import", file, database=database_url)

    warning = (
        "Warning: openai/gpt-x loses the names x, x-* that the price before it has; calls that report them will be "
        "unpriced, unless another price has them"
    )
    assert "Warning" not in first.out
    assert warning in dry.out.splitlines()
    assert replaced.out.splitlines() == [
        warning,
        "1 price published, of 1 for 1 model of 1 provider from contract 2026.",
    ]


async def test_all_faults_of_a_file_are_named_and_nothing_is_imported(database_url: URL, database: Database) -> None:
    faulty = [price(), price(rates={"input_tokens": "-1"}, per=1000), price(modell="x", per=7), {}]

    refused = await ledger("prices", "import", "-", database=database_url, stdin=json.dumps(faulty).encode())
    broken = await ledger("prices", "import", "-", database=database_url, stdin=b"[{")
    missing = await ledger("prices", "import", "/nowhere.json", database=database_url)

    assert [refused.code, broken.code, missing.code] == [2, 2, 2]
    for fault in ("price 2, rates", "price 3, modell", "price 4, provider", "price 4, effective_from"):
        assert fault in refused.err
    assert "price 1" not in refused.err
    assert "JSON array of prices" in broken.err
    assert "/nowhere.json" in missing.err
    assert not (refused.err + broken.err + missing.err).count("Traceback")
    assert await value(database, PRICES) == 0


async def test_prices_are_listed_shown_and_quoted(database_url: URL) -> None:
    history = [price(prefixes=["gpt-x-"]), price("1", effective_from="2026-02-01T00:00:00Z", prefixes=["gpt-x-"])]
    history.append(price("9999999999", model="dear", effective_from="2026-06-01T00:00:00Z"))
    imported = await ledger("prices", "import", "-", database=database_url, stdin=json.dumps(history).encode())
    show, quote = ("prices", "show", "gpt-x-2026"), ("prices", "quote", "openai", "gpt-x", "input_tokens=1000000")

    listed = await ledger("prices", "list", "--at", "2026-01-15", database=database_url)
    shown = await ledger(*show, "--json", database=database_url)
    shown_at = await ledger(*show, "--at", "2026-01-15", "--json", database=database_url)
    unknown = await ledger("prices", "show", "gpt-y", database=database_url)
    quoted = await ledger(*quote, "output_tokens=10", database=database_url)
    quoted_at = await ledger(*quote, "--at", "2026-01-15", "--json", database=database_url)
    no_tier = await ledger(*quote, "--tier", "flex", database=database_url)
    wrong = ("tokens=1", "input_tokens=\u0663", "input_tokens=" + "9" * 5000)
    refused = [await ledger(*quote[:4], usage, database=database_url) for usage in wrong]
    no_rate = await ledger(*quote, "images=1", database=database_url)
    too_large = await ledger(*quote[:3], "dear", f"input_tokens={10**12}", "--at", "2026-06-01", database=database_url)

    assert imported.code == 0, imported.err
    assert [line.split() for line in listed.out.splitlines()] == [
        "provider model tier currency input output cache read cache write since source".split(),
        "openai gpt-x standard USD 2 8 2026-01-01 contract 2026".split(),
        "1 price in force.".split(),
    ]
    rates = [[each["data"]["rates"]["input_tokens"] for each in json.loads(one.out)] for one in (shown, shown_at)]
    assert rates == [["2", "1"], ["2"]]
    assert (unknown.code, "no price of gpt-y" in unknown.err) == (1, True)
    assert quoted.out == "1.00008 USD, by the price at position 2.\n"
    assert json.loads(quoted_at.out) == {"cost": "2", "currency": "USD", "price": 1}
    assert (no_tier.code, "service tier flex" in no_tier.err) == (1, True)
    assert (no_rate.code, "the price of gpt-x of openai has no rate for images" in no_rate.err) == (1, True)
    for result in refused:
        assert (result.code, "with one of input_tokens" in result.err) == (2, True)
    assert (too_large.code, too_large.err.count("\n")) == (1, 1)
    assert "at most 10 digits" in too_large.err


async def test_the_library_is_imported_once_and_keeps_negotiated_prices(database_url: URL, database: Database) -> None:
    negotiated = price("0.000001", model="gpt-4o", effective_from="2025-01-01T00:00:00Z")
    quote = ("prices", "quote", "openai", "gpt-4o", "input_tokens=1000000", "--at")

    first = await ledger("prices", "import", "genai-prices", "--json", database=database_url)
    own = await ledger("prices", "import", "-", database=database_url, stdin=json.dumps(negotiated).encode())
    again = await ledger("prices", "import", "genai-prices", "--json", database=database_url)
    before = await ledger(*quote, "2024-12-31", database=database_url)
    since = await ledger(*quote, "2026-11-01", database=database_url)

    assert (first.code, own.code, again.code) == (0, 0, 0), first.err + own.err + again.err
    summary = json.loads(first.out)
    assert summary["published"] == summary["prices"] > 2_000
    assert {item["part"] for item in summary["left_out"]} == {"model", "name", "rate", "tier"}
    assert json.loads(again.out)["published"] == 0
    assert await value(database, PRICES) == summary["prices"] + 1
    assert [before.out.split()[0], since.out.split()[0]] == ["2.5", "0.000001"]


async def test_without_the_library_the_extra_is_named(database_url: URL, tmp_path: Path) -> None:
    # A package of this name that cannot be found hides the installed one.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nf = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'genai_prices' else f(name, *more)\n"
    )
    path = f"{tmp_path}:{REPOSITORY}"
    refused = await ledger("prices", "import", "genai-prices", database=database_url, PYTHONPATH=path)

    assert refused.code == 1
    assert "install the extra `prices`" in refused.err


async def test_unpriced_entries_are_repriced_and_adjusted_only_if_asked(database_url: URL, database: Database) -> None:
    usage = {"input_tokens": 1_000_000}
    call = {"resource_type": "llm_api", "provider": "openai", "model_used": "gpt-x", "usage": usage}
    await record(database, event("cost.recorded", call, occurred_at="2026-03-01T12:00:00Z"))
    totals = "SELECT (SELECT sum(cost) FROM budget_entries)::text, (SELECT count(*) FROM ledger.cost_events)"

    async def reprice(*options: str) -> dict[str, Any]:
        result = await ledger("prices", "reprice", "--json", *options, database=database_url)
        assert result.code == 0, result.err
        answer: dict[str, Any] = json.loads(result.out)
        return answer

    async def publish(rate: str, since: str) -> None:
        body = json.dumps(price(rate, effective_from=since)).encode()
        assert (await ledger("prices", "import", "-", database=database_url, stdin=body)).code == 0

    without_price = await reprice()
    await publish("2", "2026-01-01T00:00:00Z")
    dry = await reprice("--dry-run")
    unchanged = await query(database, totals)
    priced = await reprice()
    again = await reprice()
    await publish("3", "2026-02-01T00:00:00Z")
    not_asked = await reprice()
    adjusted = await reprice("--adjust")
    text = await ledger("prices", "reprice", "--adjust", database=database_url)
    await fold_new_events(database)

    assert (without_price["priced"], without_price["still_unpriced"]) == (0, 1)
    assert dry["amounts"] == priced["amounts"] == {"USD": "2"}
    assert unchanged == [("0.000000000000000000", 1)]
    assert (priced["priced"], again["priced"], not_asked["adjusted"]) == (1, 0, 0)
    assert (adjusted["adjusted"], adjusted["amounts"]) == (1, {"USD": "1"})
    assert "0 adjusted, by 0 in all; 0 have no price yet." in text.out
    ((cost,),) = await query(database, "SELECT cost::float FROM budget_entries WHERE model_used = 'gpt-x'")
    assert cost == 3
