"""`ledger bench` as a command: a real measurement, small, and what it refuses."""

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.cli.helpers import ledger, started


async def test_one_figure_is_really_measured_and_answered_as_json(tmp_path: Path) -> None:
    said = await ledger("bench", "--only", "append_single", "--quick", "--rounds", "1", "--json", TMPDIR=str(tmp_path))

    assert said.code == 0, said.err
    report = json.loads(said.out)
    (figure,) = report["figures"]
    assert figure["name"] == "append_single"
    assert len(figure["rounds"]) == report["plan"]["rounds"] == 1
    assert all(amount > 0 for amount in figure["rounds"])
    assert {"service CPU", "PostgreSQL CPU", "load CPU", "elapsed"} <= set(figure["microseconds_per_event"])
    assert report["machine"]["postgresql_settings"]["fsync"] == "on"
    assert report["machine"]["postgresql_settings"]["synchronous_commit"] == "on"
    assert report["quick"] is True
    assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_measured_is_told_and_the_rest_is_measured(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    broken = programs / "wrk"
    broken.write_text("#!/bin/sh\necho no load today >&2\nexit 3\n")
    broken.chmod(0o755)

    said = await ledger(
        *("bench", "--only", "append_single", "--only", "seal", "--quick", "--rounds", "1", "--json"),
        TMPDIR=str(tmp_path),
        PATH=f"{programs}:{os.environ['PATH']}",
    )

    report = json.loads(said.out)
    assert said.code == 1
    assert [figure["name"] for figure in report["figures"]] == ["seal"]
    assert report["not_measured"] == {"append_single": "wrk failed: no load today\n"}
    assert "append_single could not be measured: wrk failed: no load today" in said.err


@pytest.mark.parametrize(("number", "running_then"), [(signal.SIGTERM, "serve"), (signal.SIGINT, "postgres")])
async def test_interrupted_it_leaves_neither_server_nor_folder(
    number: signal.Signals, running_then: str, tmp_path: Path
) -> None:
    async with started(tmp_path, "bench", "--only", "append_single", TMPDIR=str(tmp_path)) as running:
        while not any(running_then in " ".join(process.info["cmdline"] or ()) for process in ours(tmp_path)):
            assert running.process.returncode is None, running.errors.read_text()
            await asyncio.sleep(0.1)
        await running.stop(number)

    assert ours(tmp_path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["bench.log"]


def ours(folder: Path) -> list[psutil.Process]:
    """The processes that work in this folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(folder) in " ".join(process.info["cmdline"] or ()) + (process.info["cwd"] or "")
    ]


async def test_an_unknown_figure_is_wrong_usage() -> None:
    said = await ledger("bench", "--only", "appending")

    assert said.code == 2
    assert "append_single" in said.err


async def test_a_report_to_compare_with_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("{}")

    said = await ledger("bench", "--compare", file)

    assert said.code == 2
    assert "cannot be read as a report" in said.err


async def test_faults_are_struck_and_the_seed_is_told() -> None:
    said = await ledger("bench", "--faults", "0.05", "--seed", "7", "--json")

    report = json.loads(said.out)
    assert (said.code, report["seed"], report["violations"]) == (0, 7, []), said.err
    assert sum(report["faults"].values()) >= 1
    assert "seed 7" in said.err
