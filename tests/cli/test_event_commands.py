"""`ledger events append` and `ledger events tail`: append to the log and print it."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from ledger.database import Database
from tests.cli.helpers import CommandResult, ledger, started
from tests.events import campaign, cost, follow, reserve
from tests.log.helpers import record, value

UNKNOWN = "00000000-0000-4000-8000-000000000000"
EVENTS = "SELECT count(*) FROM ledger.events"


def answers(result: CommandResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


async def test_an_object_an_array_and_lines_are_appended_and_a_repetition_adds_nothing(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "events.json"
    file.write_text(json.dumps([campaign(), cost()], indent=2))
    lines = "\n".join(json.dumps(event) for event in (cost(), cost(), cost()))

    by_file = await ledger("events", "append", file, database=database_url)
    one = await ledger("events", "append", database=database_url, stdin=json.dumps(cost(), indent=2).encode())
    many = await ledger("events", "append", "-", database=database_url, stdin=lines.encode())
    again = await ledger("events", "append", file, database=database_url)

    everything = (by_file, one, many, again)
    assert [result.code for result in everything] == [0] * 4
    positions = [[receipt["position"] for receipt in answers(result)] for result in everything]
    assert positions == [[1, 2], [3], [4, 5, 6], [1, 2]]
    duplicates = [receipt["duplicate"] for result in (by_file, again) for receipt in answers(result)]
    assert duplicates == [False, False, True, True]
    assert await value(database, EVENTS) == 6


async def test_a_refused_event_is_answered_with_its_problem_and_exit_code_1(
    database_url: URL, database: Database
) -> None:
    opened = campaign("1")
    await record(database, opened)
    refused = [reserve("2", campaign_id=opened["id"]), cost(campaign_id=UNKNOWN), follow(opened, "campaign.paused")]
    slugs = ["budget-exceeded", "unknown-reference", "illegal-transition"]
    alone, batch, misspelt, broken = [
        json.dumps(refused),
        json.dumps([cost(), refused[1]]),
        json.dumps(cost() | {"kost": 1}),
        "{broken",
    ]

    each = await ledger("events", "append", "--independent", database=database_url, stdin=alone.encode())
    whole = await asyncio.gather(
        *(ledger("events", "append", database=database_url, stdin=body.encode()) for body in (batch, misspelt, broken))
    )

    assert [one.code for one in (each, *whole)] == [1] * 4
    assert [answer["type"] for answer in answers(each)] == [f"/problems/{slug}" for slug in slugs]
    assert [[answer["type"] for answer in answers(one)] for one in whole] == [
        ["/problems/unknown-reference"],
        ["/problems/invalid-event"],
        ["/problems/malformed"],
    ]
    assert answers(whole[0])[0]["index"] == 1
    assert "Traceback" not in "".join(one.err for one in (each, *whole))
    # The campaign, and the denial of the refused hold.
    assert await value(database, EVENTS) == 2


async def test_an_invalid_event_does_not_stop_independent_events(database_url: URL, database: Database) -> None:
    events = [cost(), cost() | {"kost": 1}, cost()]

    result = await ledger("events", "append", "--independent", database=database_url, stdin=json.dumps(events).encode())

    assert result.code == 1
    assert [answer.get("position") for answer in answers(result)] == [1, None, 2]
    assert [answer.get("index") for answer in answers(result)] == [None, 1, None]
    assert await value(database, EVENTS) == 2


async def test_tail_prints_the_last_events_or_the_events_after_a_position(
    database_url: URL, database: Database
) -> None:
    await record(database, *(cost(str(number), description="x" * 200) for number in range(1, 13)))

    last, two, after, beyond = await asyncio.gather(
        ledger("events", "tail", database=database_url),
        ledger("events", "tail", "-n", "2", "--json", database=database_url),
        ledger("events", "tail", "--after", "10", "--json", database=database_url),
        ledger("events", "tail", "--after", "13", database=database_url),
    )

    assert [int(line.split()[0]) for line in last.out.splitlines()] == list(range(3, 13))
    assert all("cost.recorded" in line and len(line) < 220 for line in last.out.splitlines())
    assert [(event["position"], event["data"]["cost"]) for event in answers(two)] == [(11, "11"), (12, "12")]
    assert after.out == two.out
    assert (beyond.code, beyond.out) == (1, "")
    assert beyond.err == "Error: the log ends at position 12; position 13 does not exist yet\n"


async def test_tail_follows_new_events_until_it_is_stopped(
    database_url: URL, database: Database, tmp_path: Path
) -> None:
    await record(database, cost("1"))
    async with started(tmp_path, "events", "tail", "--follow", "--json", database=database_url) as running:
        assert json.loads(await running.line(""))["position"] == 1

        await record(database, cost("2"), cost("3"))

        followed = [json.loads(await running.line(""))["data"]["cost"] for _ in range(2)]
        code = await running.stop(signal.SIGINT)

    assert (followed, code) == (["2", "3"], 0)
