"""Figures about fairness and bounded work: what they report, what violates a promise, and their data."""

import pytest

from ledger.bench import bounded_data
from ledger.bench.constant_rate import LatencyResult
from ledger.bench.errors import PromiseViolationError
from ledger.bench.fairness_figures import require_accepted
from ledger.bench.load_client import LoadResult
from ledger.bench.under_reads_figures import figures_of
from tests.conftest import Service
from tests.log.helpers import query


def light(overloaded: int) -> LoadResult:
    """Return what was answered to the light key: 7 receipts, and some 503."""
    return LoadResult(7, overloaded, 1.0, 0.1, 0, 0, 0, "503 the queue is full", 1.0, 2.0)


def latencies(p50_ms: float, p99_ms: float) -> LatencyResult:
    """Return the latencies of a round."""
    return LatencyResult(400, 0, "", 400, p50_ms, p99_ms)


def test_a_503_to_the_light_key_violates_a_promise() -> None:
    require_accepted(light(0))

    with pytest.raises(PromiseViolationError, match=r"3 of 10 single events .* 503 the queue is full"):
        require_accepted(light(3))


def test_the_value_beside_reads_is_that_of_the_kind_that_slows_appends_down_most() -> None:
    alone = [latencies(2, 5), latencies(4, 9)]
    beside = {
        "exports": [latencies(3, 300), latencies(6, 200)],
        "sums": [latencies(5, 50), latencies(10, 60)],
    }

    p50, p99 = figures_of(alone, beside)

    assert (p50.rounds, p50.value, p50.met) == ([2.5, 2.5], 2.5, False)
    assert p50.absolute == {"alone, p50 ms": 3, "exports, ratio": 1.5, "sums, ratio": 2.5}
    assert (p99.rounds, p99.value, p99.met) == ([300, 200], 250, True)
    assert p99.absolute == {"alone, p99 ms": 7, "exports, p99 ms": 250, "sums, p99 ms": 55}


async def test_a_long_entry_has_all_its_adjustments(prepared: Service) -> None:
    entry = await bounded_data.add_entry(prepared.database, 2_500)

    rows = await query(prepared.database, "SELECT max(version) FROM ledger.cost_events WHERE stream_id = $1", entry)
    assert rows[0][0] == 2_501
    assert (await prepared.get(f"/v1/budget-entries/{entry}"))["cost"] == "1.25"


async def test_the_end_of_a_job_releases_its_holds(prepared: Service) -> None:
    jobs = await bounded_data.add_jobs(prepared.database, 3, holds_per_job=4)
    open_before = await query(prepared.database, "SELECT count(*) FROM ledger.holds")

    status, answer = await prepared.post(bounded_data.failures(jobs))

    assert (open_before[0][0], status, len(answer["events"])) == (12, 201, 3)
    assert [(await prepared.get(f"/v1/agent-jobs/{job}"))["held"] for job in jobs] == ["0"] * 3
