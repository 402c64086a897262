"""`ledger migrate`, `seed`, `status` and `doctor`; `scripts/seed_data.py`, which is `ledger seed`."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import URL

from ledger.cli.main import main
from ledger.database import Database
from ledger.database.migrations import expected_revision
from projections.worker import fold_page
from tests.cli.helpers import PYTHON, REPOSITORY, environment, ledger, plain, run, started
from tests.events import campaign
from tests.log.helpers import connected, query, record, value

EVENTS = "SELECT count(*) FROM ledger.events"


async def test_migrate_brings_an_empty_database_up_to_date_and_can_be_repeated(empty_database_url: URL) -> None:
    first = await ledger("migrate", database=empty_database_url)
    again = await ledger("migrate", "--json", database=empty_database_url)

    assert (first.code, first.out) == (0, f"The database is at revision {expected_revision()}.\n")
    assert (again.code, json.loads(again.out)) == (0, {"revision": expected_revision()})
    async with connected(empty_database_url) as connection:
        assert await connection.fetchval(EVENTS) == 0


async def test_seeding_twice_adds_the_events_once_by_command_or_by_script(
    database_url: URL, database: Database
) -> None:
    by_script = await run(PYTHON, REPOSITORY / "scripts" / "seed_data.py", env=environment(database_url))
    added = await value(database, EVENTS)
    again = await ledger("seed", database=database_url)
    as_json = await ledger("seed", "--json", database=database_url)

    tables = f"The tables are up to date, at position {added}.\n"
    assert (by_script.code, by_script.out) == (0, f"Sample data: {added} events added.\n{tables}")
    assert (again.code, again.out) == (0, f"Sample data: already there.\n{tables}")
    assert (as_json.code, json.loads(as_json.out)) == (0, {"events": 0, "position": added, "lag_events": 0})
    assert await value(database, EVENTS) == added > 20
    assert await value(database, "SELECT count(*) FROM campaigns") == 3


async def test_status_shows_the_positions_of_the_log_and_the_read_models(
    database_url: URL, database: Database, kind: str
) -> None:
    await record(database, campaign(), campaign())
    await fold_page(database)
    await record(database, campaign())

    as_json = await ledger("status", "--json", database=database_url)
    in_words = await ledger("status", database=database_url)

    answer = json.loads(as_json.out)
    assert answer.pop("lag_seconds") > 0
    assert answer == {
        "revision": expected_revision(),
        "head": 3,
        "position": 2,
        "lag_events": 1,
        "projections": "unknown" if kind == "pgbouncer" else "stopped",
        "services": None if kind == "pgbouncer" else [],
        "last_error": None,
        "origin": None,
        "sealed": 0,
        "seal_refusal": None,
        "reverified": 0,
        "last_full_pass": None,
        "log_changed": None,
    }
    assert "3 events" in in_words.out
    assert "1 event behind" in in_words.out
    assert ("none is connected; start `ledger up`" in in_words.out) is (kind != "pgbouncer")
    assert "running" not in in_words.out


@pytest.mark.direct
async def test_status_and_doctor_name_the_services_that_are_connected(
    database_url: URL, service_url: URL, tmp_path: Path
) -> None:
    async with started(tmp_path, "worker", "--home", tmp_path / "home", database=database_url) as worker:
        await worker.line("The worker is running")
        # The sessions of another user are visible too.
        status, doctor = await asyncio.gather(
            ledger("status", "--json", database=service_url), ledger("doctor", "--json", database=database_url)
        )
        await worker.stop()

    answer = json.loads(status.out)
    assert (answer["services"], answer["projections"]) == (["ledger worker"], "running")
    verdicts = {check["name"]: check["verdict"] for check in json.loads(doctor.out)}
    assert (verdicts["services"], verdicts["worker"]) == ("ok", "ok")


async def test_doctor_reports_no_problem_of_a_healthy_ledger_and_warns_that_no_service_runs(
    database_url: URL, kind: str
) -> None:
    result, as_json = await asyncio.gather(
        ledger("doctor", database=database_url), ledger("doctor", "--json", database=database_url)
    )

    assert (result.code, as_json.code) == (0, 0)
    checks = json.loads(as_json.out)
    beside = {"pgbouncer": ["direct connection"], "replica": ["replica"]}.get(kind, [])
    names = ["settings", "connection", "user", "migrations", "services", "guards", "worker", "sealer", "log", *beside]
    # The user of the tests' server is its superuser. A pooler hides whether a worker is connected.
    warnings = ["user"] if kind == "pgbouncer" else ["user", "services", "worker"]
    expected = dict.fromkeys(names, "ok") | dict.fromkeys(warnings, "warning")
    assert {check["name"]: check["verdict"] for check in checks} == expected
    assert result.out.count("OK ") == len(names) - len(warnings)
    assert str(database_url.password) not in result.out + as_json.out


async def test_doctor_warns_of_a_log_whose_clock_is_ahead(database_url: URL, database: Database) -> None:
    await record(database, campaign(), now=datetime.now(UTC) + timedelta(days=1))
    await fold_page(database)

    result = await ledger("doctor", database=database_url)

    assert (result.code, result.out.count("WARNING  clock: the time of the last event is 86,")) == (0, 1)


async def test_doctor_explains_each_problem_in_plain_words(
    database_url: URL, empty_database_url: URL, database: Database
) -> None:
    failure = '{"type":"job.started","position":1,"error":"x","failed_at":"2025-01-01T00:00:00+00:00"}'
    await query(database, "UPDATE ledger.projection_checkpoints SET status = 'failing', last_error = $1", failure)
    cases = {
        plain(empty_database_url): "run `ledger migrate`",
        plain(database_url.set(password="wrong-secret")): "refuses the user or the password",
        plain(database_url.set(username="nobody_there")): "refuses the user or the password",
        plain(database_url.set(port=1)): "nothing answers at the database's host and port",
        plain(database_url.set(host="nowhere.invalid")): "host is not known",
        plain(database_url.set(database="nowhere")): "no such database",
        plain(database_url): "the read models are failing",
    }

    answers = await asyncio.gather(*(ledger("doctor", database=url) for url in cases))

    for result, words in zip(answers, cases.values(), strict=True):
        assert result.code == 1
        assert "PROBLEM" in result.out
        assert words in result.out
        assert "Traceback" not in result.out + result.err
        assert "wrong-secret" not in result.out + result.err


async def test_every_command_explains_that_the_database_is_not_migrated(empty_database_url: URL) -> None:
    commands = [["status"], ["seed"], ["events", "tail"], ["events", "append"]]
    event = json.dumps(campaign()).encode()

    answers = await asyncio.gather(
        *(ledger(*command, database=empty_database_url, stdin=event) for command in commands)
    )

    reported = [
        (result.code, "run `ledger migrate`" in result.out + result.err, "Traceback" in result.err)
        for result in answers
    ]
    assert dict(zip(map(" ".join, commands), reported, strict=True)) == {
        " ".join(command): (1, True, False) for command in commands
    }


async def test_every_command_explains_a_wrong_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = environment("mysql://u:hidden@h/d")
    commands = ["up", "serve", "worker", "migrate", "seed", "reset", "status", "events tail", "events append"]

    # One runs as a process, the others in this process: starting each would take a second.
    as_process = await ledger("status", database=wrong["DATABASE_URL"])
    answers = {command: CliRunner().invoke(main, command.split(), env=wrong) for command in commands}

    outcomes = {command: (answer.exit_code, answer.exception.__class__) for command, answer in answers.items()}
    assert outcomes == dict.fromkeys(commands, (2, SystemExit))
    for result in [(as_process.out + as_process.err), *(answer.output for answer in answers.values())]:
        assert "DATABASE_URL must start with postgresql://" in result
        assert "hidden" not in result
        assert "Traceback" not in result
    assert as_process.code == 2


async def test_doctor_reports_a_wrong_setting_as_a_problem() -> None:
    result = await ledger("doctor", database="mysql://u:hidden@h/d")

    assert (result.code, "DATABASE_URL must start with postgresql://" in result.out) == (1, True)


async def test_a_url_option_of_another_driver_is_ignored_or_named_in_the_error(database_url: URL) -> None:
    result = await ledger("status", database=f"{plain(database_url)}?connect_timeout=5&application_name=books")

    assert result.code == 0 or "connect_timeout" in result.err
    assert "Traceback" not in result.err
