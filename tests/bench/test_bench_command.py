"""The command `ledger bench`: a real measurement with small sizes, its errors, and what it imports."""

import asyncio
import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.cli.helpers import PYTHON, environment, ledger, run, started

IMPORTED_ONLY_BY_BENCH = ("ledger.bench", "multiprocessing")

MODULES_AFTER_IMPORT = "import sys; import ledger.cli.main; print(*sys.modules)"

WITH_FAILING_FIGURES = """
from ledger.bench import run
from ledger.bench.errors import MeasurementError, PromiseViolationError
from ledger.cli.main import main

async def fails(environment):
    raise MeasurementError("no load today")

async def overspends(environment):
    raise PromiseViolationError("overspent: 11 was spent and held of a budget of 10")

run.FIGURES |= {"append_single": fails, "holds": overspends}
main()
"""


WITH_A_VIOLATION = """
from ledger.bench import faults
from ledger.cli.main import main

async def run(seed, **options):
    return faults.FaultReport(7, faults={"kill_api": 1}, violations=["fault 1, kill_api: an event is missing"])

faults.run = run
main()
"""


async def test_a_figure_is_measured_and_printed_as_json(tmp_path: Path) -> None:
    result = await ledger(
        "bench", "--only", "append_single", "--quick", "--rounds", "1", "--json", TMPDIR=str(tmp_path)
    )

    assert result.code == 0, result.err
    report = json.loads(result.out)
    (figure,) = report["figures"]
    assert figure["name"] == "append_single"
    assert len(figure["rounds"]) == report["plan"]["rounds"] == 1
    assert all(amount > 0 for amount in figure["rounds"])
    assert {"service CPU", "PostgreSQL CPU", "load CPU", "elapsed"} <= set(figure["microseconds_per_event"])
    assert report["machine"]["postgresql_settings"]["fsync"] == "on"
    assert report["machine"]["postgresql_settings"]["synchronous_commit"] == "on"
    assert report["quick"] is True
    assert list(tmp_path.iterdir()) == []


async def test_a_failed_figure_or_a_violated_promise_is_reported_and_the_rest_is_measured(tmp_path: Path) -> None:
    figures = ("--only", "append_single", "--only", "holds", "--only", "seal")

    result = await run(
        *(PYTHON, "-c", WITH_FAILING_FIGURES, "bench", *figures, "--quick", "--rounds", "1", "--json"),
        env=environment(TMPDIR=str(tmp_path)),
    )

    report = json.loads(result.out)
    assert result.code == 1
    assert [figure["name"] for figure in report["figures"]] == ["seal"]
    assert report["not_measured"] == {"append_single": "no load today"}
    assert report["violated"] == {"holds": "overspent: 11 was spent and held of a budget of 10"}
    assert "append_single could not be measured: no load today" in result.err
    assert "VIOLATED: holds: overspent: 11 was spent and held of a budget of 10" in result.err


@pytest.mark.parametrize(
    ("number", "running_when_interrupted"), [(signal.SIGTERM, "serve"), (signal.SIGINT, "postgres")]
)
async def test_an_interrupted_run_leaves_neither_processes_nor_files(
    number: signal.Signals, running_when_interrupted: str, tmp_path: Path
) -> None:
    async with started(tmp_path, "bench", "--only", "append_single", TMPDIR=str(tmp_path)) as running:
        while not any(
            running_when_interrupted in " ".join(process.info["cmdline"] or ()) for process in processes_in(tmp_path)
        ):
            assert running.process.returncode is None, running.errors.read_text()
            await asyncio.sleep(0.1)
        await running.stop(number)

    assert processes_in(tmp_path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["bench.log"]


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(folder) in " ".join(process.info["cmdline"] or ()) + (process.info["cwd"] or "")
    ]


async def test_an_unknown_figure_is_a_usage_error_that_lists_the_valid_ones() -> None:
    result = await ledger("bench", "--only", "appending")

    assert result.code == 2
    assert "append_single" in result.err


async def test_the_help_lists_the_figures() -> None:
    result = await ledger("bench", "--help")

    assert "append_single" in result.out


async def test_a_file_to_compare_with_that_is_no_report_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("{}")

    result = await ledger("bench", "--compare", file)

    assert result.code == 2
    assert "cannot be read as a report" in result.err


async def test_faults_are_injected_and_the_seed_is_printed() -> None:
    result = await ledger("bench", "--faults", "0.05", "--seed", "7", "--json")

    report = json.loads(result.out)
    assert (result.code, report["seed"], report["violations"]) == (0, 7, []), result.err
    assert sum(report["faults"].values()) >= 1
    assert "seed 7" in result.err


@pytest.mark.parametrize("as_json", [True, False])
async def test_a_promise_violated_under_faults_is_reported_with_exit_code_1(as_json: bool) -> None:
    result = await run(PYTHON, "-c", WITH_A_VIOLATION, "bench", "--faults", "1", *["--json"] * as_json)

    assert result.code == 1
    assert "VIOLATED: fault 1, kill_api: an event is missing" in (result.err if as_json else result.out)
    assert "Every promise was kept" not in result.out


async def test_other_commands_import_neither_the_benchmarks_nor_multiprocessing() -> None:
    result = await run(PYTHON, "-c", MODULES_AFTER_IMPORT)

    assert result.code == 0, result.err
    imported = [module for module in result.out.split() if module.startswith(IMPORTED_ONLY_BY_BENCH)]
    assert imported == []
    assert "ledger.api.app" in result.out.split()
