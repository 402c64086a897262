"""`ledger verify`, `rebuild` and `replay`: output, exit codes, and what remains if they are killed."""

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from sqlalchemy import URL

from ledger.cli.main import main
from ledger.database import Database
from tests.cli.helpers import CommandResult, environment, ledger, started
from tests.events import campaign
from tests.log.helpers import query, record, value
from tests.projections.helpers import folded, stored, tables
from tests.projections.replaying import append_sample_and_fold, contents, locked, relations, skipped, tamper
from tests.projections.test_worker_failures import poison


async def run_in_thread(*command: str, database: URL) -> CommandResult:
    """Run a command in a thread of this process, which is much faster than in a new process."""

    def invoke() -> CommandResult:
        # Without uvloop and without the command group: both install signal handlers, which only the main thread can.
        with (
            patch.dict(os.environ, environment(database), clear=True),
            patch("ledger.cli.replay.run_async", asyncio.run),
        ):
            done = CliRunner().invoke(main.commands[command[0]], command[1:])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return CommandResult(done.exit_code, done.stdout, done.stderr)

    return await asyncio.to_thread(invoke)


async def test_a_clean_ledger_is_verified_with_exit_code_0(database_url: URL, database: Database) -> None:
    await append_sample_and_fold(database)
    head = await value(database, "SELECT position FROM ledger.log_head")

    in_words = await run_in_thread("verify", database=database_url)
    as_json = await run_in_thread("verify", "--json", database=database_url)

    assert (in_words.code, in_words.out, in_words.err) == (
        0,
        f"Clean: the tables at position {head} of {head} match the log.\n",
        "",
    )
    assert (as_json.code, json.loads(as_json.out)) == (
        0,
        {"clean": True, "position": head, "head": head, "faults": [], "skipped": [], "differences": []},
    )


async def test_a_changed_cell_is_reported_with_exit_code_1_and_corrected_by_a_rebuild(
    database_url: URL, database: Database
) -> None:
    await append_sample_and_fold(database)
    ((row_id, spend),) = await query(database, "SELECT id::text, spend::text FROM campaigns")
    await tamper(database_url, "UPDATE campaigns SET spend = 5.5")

    in_words = await run_in_thread("verify", database=database_url)
    as_json = await run_in_thread("verify", "--json", database=database_url)
    rebuilt = await run_in_thread("rebuild", database=database_url)
    again = await run_in_thread("verify", database=database_url)

    difference = {
        "table": "campaigns",
        "id": row_id,
        "column": "spend",
        "live": "5.500000000000000000",
        "replayed": spend,
    }
    assert (in_words.code, as_json.code) == (1, 1)
    assert f"campaigns {row_id} spend: live 5.500000000000000000, replayed {spend}\n" in in_words.out
    assert "Found 1 difference and 0 faults of the log." in in_words.out
    assert json.loads(as_json.out)["differences"] == [difference]
    assert (rebuilt.code, again.code) == (0, 0)
    assert "campaigns:      1 row written, 0 removed\n" in rebuilt.out
    assert await tables(database) == folded(await stored(database))


async def test_one_table_is_rebuilt_alone_or_the_error_names_what_else_it_needs(
    database_url: URL, database: Database
) -> None:
    await append_sample_and_fold(database)
    await tamper(database_url, "UPDATE campaigns SET name = 'Changed'", "UPDATE content_assets SET title = 'Changed'")

    alone = await run_in_thread("rebuild", "--projection", "campaigns", "--json", database=database_url)
    await tamper(database_url, "DELETE FROM agent_jobs", "DELETE FROM budget_entries")
    bound = await run_in_thread("rebuild", "--projection", "budget_entries", database=database_url)
    misspelt = await run_in_thread("rebuild", "--projection", "budgets", database=database_url)

    assert (alone.code, json.loads(alone.out)["written"]) == (0, {"campaigns": 1})
    assert {name for (name,) in await query(database, "SELECT title FROM content_assets")} == {"Changed"}
    assert bound.code == 1
    assert "budget_entries cannot be rebuilt alone" in bound.err
    assert "`ledger rebuild` without --projection to rebuild all of them" in bound.err
    assert misspelt.code == 2


async def test_a_replay_prints_the_schema_and_the_position(database_url: URL, database: Database) -> None:
    await append_sample_and_fold(database)

    by_position = await run_in_thread("replay", "--until", "20", "--schema", "as_was", database=database_url)
    by_time = await run_in_thread(
        "replay", "--until", "2025-01-01T12:00:19Z", "--schema", "also", "--json", database=database_url
    )

    assert (by_position.code, by_time.code) == (0, 0)
    assert "The schema as_was holds the tables as of position 20, recorded 2025-01-01T12:00:19" in by_position.out
    expected = {"schema": "also", "position": 20, "recorded_at": "2025-01-01T12:00:19.000000Z", "skipped": []}
    assert json.loads(by_time.out) == expected
    assert await tables(database, "as_was") == await tables(database, "also") == folded((await stored(database))[:20])


BAD_REPLAYS = {
    "past the end": ("100", "as_was", "the log ends at position 3; position 100 does not exist yet"),
    "in the future": ("2999-01-01T00:00:00Z", "as_was", "is in the future"),
    "no zone": ("2025-01-01T00:00:00", "as_was", "neither a position nor a time with a time zone"),
    "a word": ("yesterday", "as_was", "neither a position nor a time with a time zone"),
    "negative": ("-1", "as_was", "neither a position nor a time with a time zone"),
    "the live tables": ("1", "public", "'public' cannot be the schema"),
    "the log": ("1", "ledger", "'ledger' cannot be the schema"),
    "a statement": ("1", "a; DROP SCHEMA ledger CASCADE", "cannot be the schema"),
    "a schema there is": ("1", "taken", "the schema taken exists"),
}


async def test_a_replay_that_is_not_possible_is_explained_and_changes_nothing(
    database_url: URL, database: Database
) -> None:
    await record(database, campaign(), campaign(), campaign())
    await query(database, "CREATE SCHEMA taken")
    before = await contents(database), await relations(database)

    for until, schema, message in BAD_REPLAYS.values():
        refused = await run_in_thread("replay", f"--until={until}", "--schema", schema, database=database_url)

        assert refused.code in (1, 2), refused
        assert message in refused.err.replace("\n", " ")
        assert "Traceback" not in refused.err
    assert (await contents(database), await relations(database)) == before


@pytest.mark.parametrize("command", [["verify"], ["rebuild"], ["replay", "--until", "1", "--schema", "as_was"]])
async def test_an_unknown_event_is_named_with_exit_code_1_and_nothing_is_changed(
    database_url: URL, database: Database, command: list[str]
) -> None:
    await poison(database)
    await tamper(database_url, "UPDATE ledger.projection_checkpoints SET position = 1")
    before = await contents(database), await relations(database)

    result = await run_in_thread(*command, database=database_url)

    assert result.code == 1
    assert "the log cannot be replayed past position 0: cost.imagined in schema version 1 at position 1" in (
        result.out + result.err
    )
    assert "upgrade this release" in result.out + result.err
    assert "Traceback" not in result.err
    assert (await contents(database), await relations(database)) == before


@pytest.mark.parametrize("command", [["verify"], ["rebuild"], ["replay", "--until", "0", "--schema", "as_was"]])
async def test_a_database_that_is_not_migrated_is_refused_with_the_next_step(
    empty_database_url: URL, command: list[str]
) -> None:
    result = await run_in_thread(*command, database=empty_database_url)

    assert result.code == 1
    assert "run `ledger migrate`" in result.err


async def test_all_three_commands_report_a_skip(database_url: URL, database: Database) -> None:
    await skipped(database, await poison(database))
    await tamper(
        database_url,
        "UPDATE ledger.projection_checkpoints SET position = 2",
        "UPDATE ledger.log_head SET recorded_at = (SELECT max(recorded_at) FROM ledger.events)",
    )

    for command in (["verify"], ["rebuild"], ["replay", "--until", "2", "--schema", "as_was"]):
        result = await run_in_thread(*command, database=database_url)

        assert result.code == 0, result
        assert "Skipped: cost.imagined at position 1, decided by somebody at" in result.out


async def interrupted(folder: Path, url: URL, number: int, *command: str) -> int:
    """Send a signal to a command while it waits for a lock on the log; return its exit code."""
    async with AsyncExitStack() as stack:
        async with locked(url, "LOCK TABLE ledger.cost_events IN ACCESS EXCLUSIVE MODE") as wait_for_waiter:
            running = await stack.enter_async_context(started(folder, *command, database=url))
            await wait_for_waiter()
            running.process.send_signal(number)
        return await asyncio.wait_for(running.process.wait(), 30)


async def test_a_killed_replay_leaves_no_schema_of_that_name_and_the_next_one_succeeds(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    await append_sample_and_fold(database)
    command = ("replay", "--until", "30", "--schema", "as_was")

    killed = await interrupted(tmp_path, database_url, signal.SIGKILL, *command)
    schemas = {schema for schema, _ in await relations(database)}
    again = await ledger(*command, database=database_url)

    assert killed == -signal.SIGKILL
    assert "as_was" not in schemas
    assert again.code == 0, again
    assert await tables(database, "as_was") == folded((await stored(database))[:30])
    assert "as_was_replaying" not in {schema for schema, _ in await relations(database)}


@pytest.mark.parametrize("command", [["verify"], ["rebuild"], ["replay", "--until", "30", "--schema", "as_was"]])
async def test_ctrl_c_leaves_the_database_unchanged(
    database_url: URL, database: Database, tmp_path: Path, command: list[Any]
) -> None:
    await append_sample_and_fold(database)
    await tamper(database_url, "UPDATE campaigns SET name = 'Changed'")
    before = await contents(database), await relations(database)

    code = await interrupted(tmp_path, database_url, signal.SIGINT, *command)

    assert code != 0
    assert (await contents(database), await relations(database)) == before


async def test_a_second_rebuild_at_the_same_time_is_refused(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    await append_sample_and_fold(database)
    async with AsyncExitStack() as stack:
        async with locked(database_url, "SELECT FROM ledger.projection_checkpoints FOR UPDATE") as wait_for_waiter:
            first = await stack.enter_async_context(started(tmp_path, "rebuild", database=database_url))
            await wait_for_waiter()

            second = await ledger("rebuild", database=database_url)
        assert await asyncio.wait_for(first.process.wait(), 30) == 0

    assert (second.code, second.out) == (1, "")
    assert "another rebuild is running" in second.err
