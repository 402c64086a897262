"""The journals `cost_postings` and `denied_holds`: folded, verified, rebuilt, and erased."""

from typing import Any

import pytest
from sqlalchemy import URL

from ledger.database import Database
from projections.journals import COST_POSTINGS, JOURNALS
from projections.models import Base
from projections.rebuild import rebuild
from projections.snapshots import replay_into
from projections.worker import fold_page
from tests.events import campaign, cost, follow, job, reserve
from tests.log.erasures import erased
from tests.log.helpers import query, record, request
from tests.projections.helpers import append_requests
from tests.projections.replaying import Found, append_sample_and_fold, fold_everything, tamper, verified

pytestmark = pytest.mark.direct

POSTINGS = """
SELECT position, type, trim_scale(amount)::text, currency::text, tokens_used, unpriced, reason
FROM cost_postings ORDER BY position
"""


async def journals(database: Database, schema: str = "public") -> list[list[tuple[Any, ...]]]:
    """Return all rows of the journals."""
    return [
        await query(database, f"SELECT {', '.join(journal.columns)} FROM {schema}.{journal.name} ORDER BY position")
        for journal in JOURNALS
    ]


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda journal: journal.name)
def test_a_journal_has_the_columns_of_its_table(journal: Any) -> None:
    assert set(journal.columns) == {column.name for column in Base.metadata.tables[journal.name].columns}


async def test_every_movement_of_money_is_one_posting(database: Database) -> None:
    created = campaign("5", currency="EUR")
    queued = job(created["id"])
    spent = cost("3", agent_job_id=queued["id"], tokens_used=7)
    held = reserve("1", campaign_id=created["id"])
    adjusted = follow(spent, "cost.adjusted", {"amount": "-1.5", "tokens_used": -2, "reason": "A text"})
    settled = follow(held, "cost.settled", {"cost": "0", "tokens_used": 4})
    released = reserve("1", campaign_id=created["id"])
    await record(database, created, queued, spent, held, adjusted, settled, released, follow(released, "cost.released"))
    await append_requests(database, [request(reserve("10", campaign_id=created["id"]), independent=True)])

    await fold_everything(database)

    assert await query(database, POSTINGS) == [
        (3, "recorded", "3", "EUR", 7, False, None),
        (5, "adjusted", "-1.5", "EUR", -2, False, "A text"),
        (6, "settled", "0", "EUR", 4, False, None),
    ]
    ((denied_at, amount, scopes),) = await query(
        database, "SELECT position, trim_scale(amount)::text, scopes -> 0 ->> 'scope' FROM denied_holds"
    )
    assert (denied_at, amount, scopes) == (9, "10", "campaign")
    assert (await verified(database))[0].is_clean


async def test_verify_names_each_tampered_cell_and_rebuild_corrects_it(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    before = await journals(database)
    ((first,), (second,), (third,), *_) = await query(database, "SELECT position FROM cost_postings ORDER BY position")
    await tamper(
        database_url,
        f"UPDATE cost_postings SET amount = amount + 0.000000000000000001, actor = 'x' WHERE position = {first}",
        f"DELETE FROM cost_postings WHERE position = {second}",
        f"UPDATE cost_postings SET position = 1000000 WHERE position = {third}",
        "UPDATE denied_holds SET scopes = '[]'",
    )

    report, differences = await verified(database)

    assert not report.is_clean
    found = {(each.table, each.id, each.column) for each in differences}
    denials = {("denied_holds", str(row[0]), "scopes") for row in before[1]}
    assert found == denials | {
        ("cost_postings", str(first), "amount"),
        ("cost_postings", str(first), "actor"),
        ("cost_postings", str(second), "row"),
        ("cost_postings", str(third), "row"),
        ("cost_postings", "1000000", "row"),
    }
    assert Found("cost_postings", str(first), "actor", "x", "local") in differences
    rebuilt = await rebuild(database)
    assert await journals(database) == before
    assert (rebuilt.written["cost_postings"], rebuilt.removed["cost_postings"]) == (3, 1)
    again = await rebuild(database)
    assert (again.written["cost_postings"], again.removed["denied_holds"]) == (0, 0)
    assert (await verified(database))[0].is_clean


async def test_a_rebuild_of_other_tables_leaves_the_journals(database: Database, database_url: URL) -> None:
    await append_sample_and_fold(database)
    await tamper(database_url, "DELETE FROM cost_postings")

    rebuilt = await rebuild(database, ["content_assets"])

    assert "cost_postings" not in rebuilt.written
    assert await query(database, "SELECT * FROM cost_postings") == []


async def test_an_erasure_empties_the_reason_and_nothing_else(database: Database) -> None:
    spent = cost("3", description="Another text")
    adjusted = follow(spent, "cost.adjusted", {"amount": "1", "reason": "A text"})
    later = follow(spent, "cost.adjusted", {"amount": "1", "reason": "A later text"})
    await record(database, spent, adjusted, later)
    await fold_page(database)
    before = await journals(database)

    await erased(database, 2)
    pending, differences = await verified(database)
    await fold_everything(database)

    # Until the tables have folded the erasure, their text differs from that of the log, which is no fault.
    assert (pending.is_clean, differences) == (True, set())
    index = COST_POSTINGS.columns.index("reason")
    expected = [row if row[0] != 2 else (*row[:index], None, *row[index + 1 :]) for row in before[0]]
    assert (await journals(database))[0] == expected
    assert expected != before[0]
    assert (await verified(database))[0].is_clean


async def test_a_posting_and_its_erasure_in_one_page(database: Database) -> None:
    spent = cost("3")
    await record(database, spent, follow(spent, "cost.adjusted", {"amount": "1", "reason": "A text"}))
    await erased(database, 2)

    await fold_everything(database)

    assert [row[-1] for row in await query(database, POSTINGS)] == [None, None]
    assert (await verified(database))[0].is_clean


async def test_the_postings_of_a_deleted_campaign_stay(database: Database) -> None:
    created = campaign()
    spent = cost("3", campaign_id=created["id"])
    back = follow(spent, "cost.adjusted", {"amount": "-3", "reason": "R"})
    await record(database, created, spent, back, follow(created, "campaign.deleted"))

    await fold_everything(database)

    ids = {str(campaign_id) for (campaign_id,) in await query(database, "SELECT campaign_id FROM cost_postings")}
    assert ids == {created["id"]}
    assert (await verified(database))[0].is_clean


async def test_a_replay_has_the_journals_up_to_its_position(database: Database) -> None:
    await append_sample_and_fold(database)
    head = len(await query(database, "SELECT FROM ledger.events"))

    await replay_into(database, "half", head // 2)
    await replay_into(database, "whole", head)

    whole = await journals(database)
    assert await journals(database, "whole") == whole
    assert await journals(database, "half") == [[row for row in rows if row[0] <= head // 2] for rows in whole]
