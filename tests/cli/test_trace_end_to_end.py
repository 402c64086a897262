"""scripts/replay_trace.py on a first start that imports prices: exact costs, no duplicates."""

import csv
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from genai_prices import Usage, calc_price

from tests.cli.helpers import PYTHON, REPOSITORY, environment, get, ledger, run, started

SCRIPT = REPOSITORY / "scripts" / "replay_trace.py"
SAMPLE = REPOSITORY / "tests" / "data" / "azure_llm_trace_conv_2023_sample.csv"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
MODEL = "gpt-4o"


def expected() -> tuple[Decimal, int]:
    """Return exact cost and tokens of the sample, computed from the file by the library alone."""
    cost, tokens = Decimal(0), 0
    with SAMPLE.open(newline="") as file:
        for row in csv.DictReader(file):
            usage = Usage(input_tokens=int(row["ContextTokens"]), output_tokens=int(row["GeneratedTokens"]))
            at = datetime.fromisoformat(row["TIMESTAMP"][:19]).replace(tzinfo=UTC)
            priced = calc_price(usage, model_ref=MODEL, provider_id="openai", genai_request_timestamp=at)
            cost += priced.total_price
            tokens += usage.input_tokens + usage.output_tokens
    return cost, tokens


async def test_a_trace_replayed_twice_is_recorded_once_with_exact_costs(home: Path, tmp_path: Path) -> None:
    cost, tokens = expected()
    other = tmp_path / "other.csv"
    other.write_text(f"{HEADER}\n2024-01-01 00:00:00,100,10\n2024-01-01 00:00:01,100,10\n")
    async with started(tmp_path, "up", "--port", "0", "--home", home, LEDGER_IMPORT_PRICES="yes") as running:
        # The address is printed first: the import does not delay the start.
        url = await running.url()
        imported = await running.line("Prices: ")
        prices = (await get(f"{url}/v1/events", home))["head"] - 1
        settings = environment(LEDGER_URL=url, LEDGER_KEY=(home / "admin.key").read_text().strip())

        first = await run(PYTHON, SCRIPT, SAMPLE, "--json", "--model", MODEL, env=settings)
        head = (await get(f"{url}/v1/events", home))["head"]
        again = await run(PYTHON, SCRIPT, SAMPLE, "--json", "--model", MODEL, env=settings)
        after = (await get(f"{url}/v1/events", home))["head"]

        campaigns = (await get(f"{url}/v1/campaigns", home, min_position=head))["items"]
        jobs = (await get(f"{url}/v1/agent-jobs", home, limit=500))["items"]
        entries = (await get(f"{url}/v1/budget-entries", home, limit=500))["items"]
        (total,) = (await get(f"{url}/v1/spend", home))["items"]
        unknown = await run(PYTHON, SCRIPT, other, "--model", "unknown-model", env=settings)
        await running.stop()

    assert (first.code, again.code) == (0, 0), first.err + again.err
    summary, repeated = json.loads(first.out), json.loads(again.out)
    replayed = 10 + 4 * 200
    # The first event is that of the admin key; the prices follow.
    assert imported.startswith(f"{prices:,} imported from genai-prices")
    assert prices > 2_000
    assert (summary["new"], summary["duplicates"], head) == (replayed, 0, 1 + prices + replayed)
    assert (repeated["new"], repeated["duplicates"], after) == (0, replayed, head)
    assert Decimal(summary["cost"]) == Decimal(total["cost"]) == cost
    assert (summary["unpriced"], repeated["cost"]) == (0, summary["cost"])
    assert (total["entries"], total["tokens_used"], total["currency"]) == (200, tokens, "USD")
    assert sum(Decimal(row["spend"]) for row in campaigns) == cost
    assert (len(campaigns), len(jobs), len(entries)) == (10, 200, 200)
    assert Counter(row["status"] for row in jobs) == {"completed": 200}
    assert sum(Decimal(row["cost"]) for row in jobs) == sum(Decimal(row["cost"]) for row in entries) == cost
    assert unknown.code == 0, unknown.err
    assert "Total cost: 0 USD" in unknown.out
    assert "2 calls are unpriced" in unknown.out


async def test_a_second_start_and_a_start_without_the_library_import_nothing(home: Path, tmp_path: Path) -> None:
    # Hides the installed library.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nf = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'genai_prices' else f(name, *more)\n"
    )
    up = ("up", "--port", "0", "--home", home)
    hidden = {"LEDGER_IMPORT_PRICES": "yes", "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    async with started(tmp_path, *up, **hidden) as running:
        await running.url()
        missing = await running.line("No prices were imported: ")
        await running.stop()
    price = {
        "provider": "openai",
        "model": "gpt-x",
        "rates": {"input_tokens": "1"},
        "effective_from": "2026-01-01T00:00:00Z",
        "source": {"name": "contract", "version": "1"},
    }
    own = await ledger("prices", "import", "-", "--home", home, stdin=json.dumps(price).encode())
    async with started(tmp_path, *up, LEDGER_IMPORT_PRICES="yes") as running:
        url = await running.url()
        await running.stop()
        assert running.process.stdout is not None
        rest = (await running.process.stdout.read()).decode()
    listed = await ledger("prices", "list", "--home", home)

    assert "install the extra `prices`" in missing
    assert own.code == 0, own.err
    assert url
    assert "rices" not in rest
    assert "1 price in force." in listed.out
