"""scripts/replay_trace.py against a running service: exact costs, and no duplicates when repeated."""

import csv
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

from genai_prices import Usage, calc_price

from tests.cli.helpers import PYTHON, REPOSITORY, environment, get, run, started

SAMPLE = REPOSITORY / "tests" / "data" / "azure_llm_trace_conv_2023_sample.csv"
MODEL = "gpt-4o"


def expected() -> tuple[Decimal, int]:
    """Return exact cost and tokens of the sample, computed from the file and the prices alone."""
    cost, tokens = Decimal(0), 0
    with SAMPLE.open(newline="") as file:
        for row in csv.DictReader(file):
            usage = Usage(input_tokens=int(row["ContextTokens"]), output_tokens=int(row["GeneratedTokens"]))
            cost += calc_price(usage, model_ref=MODEL).total_price
            tokens += usage.input_tokens + usage.output_tokens
    return cost, tokens


async def test_a_trace_replayed_twice_is_recorded_once_with_exact_costs(home: Path, tmp_path: Path) -> None:
    cost, tokens = expected()
    async with started(tmp_path, "up", "--port", "0", "--home", home) as running:
        url = await running.url()
        command = [PYTHON, REPOSITORY / "scripts" / "replay_trace.py", SAMPLE, "--json"]
        settings = environment(LEDGER_URL=url, LEDGER_KEY=(home / "admin.key").read_text().strip())

        first = await run(*command, "--model", MODEL, env=settings)
        head = (await get(f"{url}/v1/events", home))["head"]
        again = await run(*command, "--model", MODEL, env=settings)
        after = (await get(f"{url}/v1/events", home))["head"]

        campaigns = (await get(f"{url}/v1/campaigns", home, min_position=head))["items"]
        jobs = (await get(f"{url}/v1/agent-jobs", home, limit=500))["items"]
        entries = (await get(f"{url}/v1/budget-entries", home, limit=500))["items"]
        (total,) = (await get(f"{url}/v1/spend", home))["items"]
        await running.stop()

    assert (first.code, again.code) == (0, 0), first.err + again.err
    summary, repeated = json.loads(first.out), json.loads(again.out)
    replayed = 10 + 4 * 200
    # The first event is that of the admin key.
    assert (summary["new"], summary["duplicates"], head) == (replayed, 0, 1 + replayed)
    assert (repeated["new"], repeated["duplicates"], after) == (0, replayed, head)
    assert Decimal(summary["cost"]) == Decimal(total["cost"]) == cost
    assert (total["entries"], total["tokens_used"], total["currency"]) == (200, tokens, "USD")
    assert sum(Decimal(row["spend"]) for row in campaigns) == cost
    assert (len(campaigns), len(jobs), len(entries)) == (10, 200, 200)
    assert Counter(row["status"] for row in jobs) == {"completed": 200}
    assert sum(Decimal(row["cost"]) for row in jobs) == sum(Decimal(row["cost"]) for row in entries) == cost
