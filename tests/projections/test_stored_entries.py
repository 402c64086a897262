"""Stored entries and pending releases are verified and rebuilt; running appenders reload them."""

import msgspec
import pytest
from sqlalchemy import URL

from ledger.database import Database
from ledger.domain.errors import BudgetExceeded
from ledger.domain.event import Receipt
from ledger.log.appender import Appender
from projections.rebuild import rebuild
from tests.events import campaign, cost, follow, job, reserve
from tests.log.helpers import limit_releases, query, record, request, value
from tests.projections.replaying import Found, append_sample_and_fold, fold_everything, tamper, verified

pytestmark = pytest.mark.direct

OTHER = "00000000-0000-4000-8000-00000000000a"


@pytest.mark.parametrize("part", range(16))
async def test_every_part_of_an_entrys_state_is_compared_and_rebuilt(
    database: Database, database_url: URL, part: int
) -> None:
    await append_sample_and_fold(database)
    stream_id, before = (await query(database, "SELECT stream_id, state::text FROM ledger.entries ORDER BY 1 LIMIT 1"))[
        0
    ]
    parts = msgspec.json.decode(before)
    parts[part] = "changed"
    state = msgspec.json.encode(parts).decode()
    await tamper(database_url, f"UPDATE ledger.entries SET state = '{state}' WHERE stream_id = '{stream_id}'")

    _, found = await verified(database)

    assert {each[:4] for each in found} == {("ledger.entries", str(stream_id), "state", state)}
    await rebuild(database)
    corrected = await value(database, "SELECT state::text FROM ledger.entries WHERE stream_id = $1", stream_id)
    assert msgspec.json.decode(corrected) == msgspec.json.decode(before)


async def test_a_stored_entry_ahead_of_its_stream_or_without_one_is_found_and_rebuilt(
    database: Database, database_url: URL
) -> None:
    spent = cost("2.5")
    await record(database, spent, follow(spent, "cost.adjusted", {"amount": "1", "reason": "More"}))
    await fold_everything(database)
    unknown = f"INSERT INTO ledger.entries SELECT '{OTHER}', version, state FROM ledger.entries"
    await tamper(database_url, unknown, f"UPDATE ledger.entries SET version = 7 WHERE stream_id = '{spent['id']}'")

    _, found = await verified(database)

    assert found == {
        Found("ledger.entries", OTHER, "row", "present", "missing"),
        Found("ledger.entries", spent["id"], "version", "7", "2"),
    }
    await rebuild(database)
    assert await query(database, "SELECT stream_id::text, version FROM ledger.entries") == [(spent["id"], 2)]


async def test_a_stored_entry_may_be_behind_its_stream_but_must_be_right_at_its_version(
    database: Database, database_url: URL
) -> None:
    held, spent = reserve("10"), cost("2.5")
    settled = follow(held, "cost.settled", {"cost": "7"})
    await record(database, held, spent, settled, follow(spent, "cost.adjusted", {"amount": "1", "reason": "More"}))
    rows = "SELECT stream_id::text, version, replace(state::text, ' ', '') FROM ledger.entries ORDER BY 1"
    behind = await query(database, rows)
    for opened in (held, spent):
        await record(database, follow(opened, "cost.adjusted", {"amount": "0.5", "reason": "More"}))
    await fold_everything(database)
    await query(database, "DELETE FROM ledger.entries")
    absent = (await verified(database))[1]
    values = ", ".join(str(row) for row in behind)
    await tamper(database_url, f"INSERT INTO ledger.entries VALUES {values}")

    right = (await verified(database))[1]
    await tamper(database_url, "UPDATE ledger.entries SET state = replace(state::text, '\"3.5\"', '\"4\"')::json")
    _, wrong = await verified(database)

    assert (len(behind), absent, right) == (2, set(), set())
    assert {each[:3] for each in wrong} == {("ledger.entries", spent["id"], "state")}
    await rebuild(database)
    assert await query(database, rows) == behind


async def test_the_hold_of_an_ended_job_keeps_what_its_reservation_says(database: Database) -> None:
    queued = job()
    said = {"provider": "openai", "model_used": "gpt", "service_tier": "batch", "labels": {"team": "growth"}}
    held = reserve(agent_job_id=queued["id"], currency="USD", **said)
    await record(database, queued, held)
    await record(database, follow(queued, "job.cancelled"))
    await record(database, follow(held, "cost.settled", {"cost": "1", "labels": {"step": "2"}}))

    state = msgspec.json.decode(await value(database, "SELECT state::text FROM ledger.entries"))

    assert state[10:] == ["USD", "openai", "gpt", "batch", "llm_api", {"step": "2", "team": "growth"}]
    await fold_everything(database)
    assert (await verified(database))[1] == set()


async def test_a_missing_or_changed_pending_release_is_found_and_rebuilt(
    database: Database, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_releases(monkeypatch, 1)
    ended, other = job(), job()
    for queued in (ended, other):
        await record(database, queued, *(reserve(agent_job_id=queued["id"]) for _ in range(2)))
        await record(database, follow(queued, "job.cancelled"))
    await fold_everything(database)
    pending = "SELECT job_id::text, position FROM ledger.pending_releases ORDER BY position"
    before = await query(database, pending)
    clean = (await verified(database))[1]
    await tamper(
        database_url,
        f"DELETE FROM ledger.pending_releases WHERE job_id = '{ended['id']}'",
        f"UPDATE ledger.pending_releases SET position = 1 WHERE job_id = '{other['id']}'",
        f"INSERT INTO ledger.pending_releases VALUES ('{OTHER}', 1)",
    )

    _, found = await verified(database)

    assert (before, clean) == ([(ended["id"], 4), (other["id"], 9)], set())
    assert found == {
        Found("ledger.pending_releases", ended["id"], "row", "missing", "present"),
        Found("ledger.pending_releases", other["id"], "position", "1", "9"),
    }
    await rebuild(database)
    assert [row for row in await query(database, pending) if row[0] != OTHER] == before


async def test_an_appender_judges_by_the_state_that_a_rebuild_has_corrected(
    database: Database, database_url: URL
) -> None:
    opened = campaign("10")
    await record(database, opened, cost("4", campaign_id=opened["id"]))
    await fold_everything(database)
    await tamper(database_url, "UPDATE ledger.accounts SET spent = 9")
    async with Appender(database) as appender:
        (refusal,) = await appender.append(request(reserve("5", campaign_id=opened["id"])))
        await rebuild(database)

        (receipt,) = await appender.append(request(reserve("5", campaign_id=opened["id"])))

    assert isinstance(refusal, BudgetExceeded)
    assert isinstance(receipt, Receipt)
