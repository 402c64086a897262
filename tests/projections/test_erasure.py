"""Erasures clear the texts of the read models and nothing else; every replay gives the same tables."""

import random
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.event import Request
from ledger.domain.ledger_events import ProjectionSkipped
from ledger.log.appender import Appender
from ledger.log.prepare import prepare
from projections import page
from projections.as_of import row_as_of
from projections.differences import Difference
from projections.erased_texts import read_remaining_texts
from projections.rebuild import rebuild
from projections.snapshots import replay_into
from projections.tables import READ_MODELS, READ_MODELS_BY_NAME
from projections.verify import VerificationReport, verify
from projections.worker import fold_page
from tests.conftest import Service
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.erasures import erased
from tests.log.helpers import query, record, request, value
from tests.projections.helpers import Tables, append_requests, folded, position, sample_history, stored, tables
from tests.projections.test_worker import random_history

pytestmark = pytest.mark.direct

LAUNCH = campaign(name="A name", description="A text")
RENAMED = follow(LAUNCH, "campaign.details_changed", {"name": "Another"})
POST = content(title="A title", content="A text", metadata={"a": 1})
REVISED = follow(POST, "content.revised", {"title": "Another", "metadata": {"b": 2}})
DONE, BROKEN = job(input_data={"a": 1}), job(input_data={"a": 1})
SPENT, HELD = cost("5", description="A text"), reserve("5", description="A text")

WITH_TEXT = "SELECT position FROM ledger.events WHERE text IS NOT NULL ORDER BY position"


async def all_folded(database: Database) -> Tables:
    while await fold_page(database):
        pass
    return await tables(database)


async def verified(database: Database) -> tuple[VerificationReport, list[Difference]]:
    differences: list[Difference] = []
    return await verify(database, differences.append), differences


async def clean(database: Database) -> bool:
    report, differences = await verified(database)
    assert (report.faults, differences) == ([], [])
    return report.is_clean


@pytest.mark.parametrize(
    ("table", "events", "erase", "shown"),
    [
        ("campaigns", [LAUNCH], [1], {"name": "", "description": None}),
        ("campaigns", [LAUNCH, RENAMED], [1], {"name": "Another", "description": None}),
        ("campaigns", [LAUNCH, RENAMED], [2], {"name": "A name", "description": "A text"}),
        ("campaigns", [LAUNCH, RENAMED], [2, 1], {"name": "", "description": None}),
        ("content_assets", [POST], [1], {"title": "", "content": "", "metadata": "{}"}),
        ("content_assets", [POST, REVISED], [1], {"title": "Another", "content": "", "metadata": '{"b":2}'}),
        ("content_assets", [POST, REVISED], [2], {"title": "A title", "content": "A text", "metadata": '{"a":1}'}),
        ("agent_jobs", [DONE, follow(DONE, "job.started"), follow(DONE, "job.completed", {"output_data": {"a": 1}})],
         [3], {"input_data": '{"a":1}', "output_data": None}),
        ("agent_jobs", [DONE, follow(DONE, "job.started"), follow(DONE, "job.completed", {"output_data": {"a": 1}})],
         [1], {"input_data": "{}", "output_data": '{"a":1}'}),
        ("agent_jobs", [BROKEN, follow(BROKEN, "job.failed", {"error_message": "A text"})],
         [2], {"input_data": '{"a":1}', "error_message": None}),
        ("budget_entries", [SPENT], [1], {"description": None, "cost": 5}),
        ("budget_entries", [HELD, follow(HELD, "cost.settled", {"cost": "4"})], [1], {"description": None, "cost": 4}),
        ("budget_entries", [SPENT, follow(SPENT, "cost.adjusted", {"amount": "-1", "reason": "A text"})],
         [2], {"description": "A text", "cost": 4}),
    ],
)  # fmt: skip
async def test_an_erasure_clears_the_text_of_a_row_and_nothing_else(
    database: Database, table: str, events: list[dict[str, Any]], erase: list[int], shown: dict[str, Any]
) -> None:
    row_id = UUID(events[0]["id"])
    await record(database, *events)
    before = (await all_folded(database))[table][row_id]

    *_, last = await erased(database, *erase)

    after = (await all_folded(database))[table][row_id]
    recorded_at = await value(database, "SELECT recorded_at FROM ledger.log_head")
    assert after == {**before, **shown, "position": last.recorded_position, "updated_at": recorded_at}
    assert await clean(database)


def test_every_large_column_is_overwritten_by_an_erasure() -> None:
    assert all(set(model.large_columns) <= set(model.free_text_columns) for model in READ_MODELS)


@pytest.mark.parametrize("later", ["content.deleted", None])
async def test_later_events_of_the_same_page_are_folded_on_top_of_it(database: Database, later: str | None) -> None:
    await record(database, POST)
    await fold_page(database)
    await erased(database, 1)
    await record(database, follow(POST, later) if later else follow(POST, "content.revised", {"title": "A third"}))

    rows = (await all_folded(database))["content_assets"].values()

    shown = [(row["title"], row["content"], row["metadata"]) for row in rows]
    assert shown == ([] if later else [("A third", "", "{}")])
    assert await clean(database)


@pytest.mark.parametrize("table", ["content_assets", "agent_jobs", "campaigns"])
async def test_a_deleted_row_stays_deleted(database: Database, table: str) -> None:
    ended = job()
    events = {
        "content_assets": [POST, follow(POST, "content.deleted")],
        "agent_jobs": [ended, follow(ended, "job.cancelled"), follow(ended, "job.deleted", {"reason": "A text"})],
        "campaigns": [LAUNCH, follow(LAUNCH, "campaign.deleted")],
    }[table]
    await record(database, *events)
    await fold_page(database)

    await erased(database, 1)

    assert (await all_folded(database))[table] == {}
    assert await row_as_of(database, READ_MODELS_BY_NAME[table], UUID(events[0]["id"]), len(events) + 1) is None
    assert await clean(database)


async def test_erasing_a_denied_hold_or_a_reason_changes_no_row(database: Database) -> None:
    await record(database, LAUNCH)
    denied = request(reserve("1000", campaign_id=LAUNCH["id"], description="A text"), independent=True)
    await append_requests(database, [denied])
    before = await all_folded(database)

    # The text of the denial, and then the reason of that erasure.
    await erased(database, 2, 3)

    assert (await all_folded(database), await position(database)) == (before, 4)
    assert await clean(database)


async def test_a_page_with_many_erasures_is_folded_in_parts_to_load_few_texts_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []

    async def counted(connection: Any, events: Any) -> Any:
        texts = await read_remaining_texts(connection, events)
        parts.append(len(texts))
        return texts

    monkeypatch.setattr(page, "read_remaining_texts", counted)
    monkeypatch.setattr(page, "ERASURES_MAX", 2)
    await record(database, *(content(title=str(number)) for number in range(5)))
    await erased(database, 1, 2, 3, 4, 5)

    await fold_page(database)

    assert parts == [2, 2, 1]
    assert await query(database, "SELECT DISTINCT title FROM content_assets") == [("",)]


async def assert_rows_as_of_equal_the_fold(database: Database, until: int) -> None:
    """Compare `row_as_of` with the fold for every row at a position."""
    events = [event for event in await stored(database) if event.position <= until]
    expected = folded(events)
    for model in READ_MODELS:
        for row_id in {event.stream_id for event in events}:
            row = await row_as_of(database, model, row_id, until)
            found = row and msgspec.structs.asdict(row)
            assert found == expected[model.name].get(row_id), (model.name, row_id, until)


async def test_as_of_any_position_a_row_equals_the_replay(database: Database) -> None:
    post = content(title="A title", content="A text")
    launch = campaign(description="A text")
    await record(database, launch, post, cost(description="A text", campaign_id=launch["id"]))
    await erased(database, 1, 3)
    await record(database, follow(post, "content.revised", {"title": "Another"}), follow(launch, "campaign.activated"))
    await erased(database, 2, 4)

    for until in range(1, 10):
        await assert_rows_as_of_equal_the_fold(database, until)


@pytest.mark.parametrize(("seed", "parts"), [(0, 1), (1, 2), (2, 20), (3, 1)])
async def test_random_erasures_leave_the_tables_equal_to_the_replay_of_every_prefix(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int, parts: int
) -> None:
    monkeypatch.setattr(page, "ERASURES_MAX", parts)
    chance = random.Random(seed)
    last_erasure = checked = 0
    for _ in range(8):
        await append_requests(database, random_history(chance, 40))
        with_text = [at for (at,) in await query(database, WITH_TEXT)]
        for erasure in await erased(database, *chance.sample(with_text, min(7, len(with_text)))):
            last_erasure = erasure.recorded_position
        await append_requests(database, random_history(chance, 20))
        while await fold_page(database, chance.choice([1, 3, 20])):
            reached = await position(database)
            if reached >= last_erasure:
                checked += 1
                assert await tables(database) == folded((await stored(database))[:reached])

    assert checked > 10
    assert await clean(database)
    await assert_rows_as_of_equal_the_fold(database, chance.randint(last_erasure, await position(database)))


@pytest.mark.parametrize("sizes", [1, 7, 5_000])
async def test_every_text_of_the_sample_history_can_be_erased(database: Database, sizes: int) -> None:
    await append_requests(database, sample_history())
    before = await all_folded(database)
    with_text = await query(database, WITH_TEXT)

    await erased(database, *(at for (at,) in with_text))

    while await fold_page(database, sizes):
        pass
    after = await tables(database)
    assert {text for row in _texts(after) for text in row} == {None, "", "{}"}
    assert _without_texts(after) == _without_texts(before)
    assert after == folded(await stored(database))
    assert await clean(database)


def _texts(found: Tables) -> list[list[Any]]:
    return [
        [row[column] for column in model.free_text_columns]
        for model in READ_MODELS
        for row in found[model.name].values()
    ]


def _without_texts(found: Tables) -> Tables:
    left_out = {"position", "updated_at"}.union(*(model.free_text_columns for model in READ_MODELS))
    return {
        table: {row_id: {name: row[name] for name in row.keys() - left_out} for row_id, row in rows.items()}
        for table, rows in found.items()
    }


async def test_before_the_tables_fold_it_verify_ignores_its_texts_but_nothing_else(database: Database) -> None:
    other = campaign(name="Another")
    await record(database, LAUNCH, other)
    await fold_page(database)
    await erased(database, 1)
    assert await clean(database)

    await query(database, "UPDATE public.campaigns SET description = 'Made up', budget = 9")

    _, differences = await verified(database)
    wrong = {(difference.id, difference.column) for difference in differences}
    assert wrong == {(LAUNCH["id"], "budget"), (other["id"], "budget"), (other["id"], "description")}


async def test_a_rebuild_and_a_replay_after_it_show_no_text(database: Database) -> None:
    await record(database, LAUNCH, POST)
    await fold_page(database)
    await erased(database, 1)
    await fold_page(database)

    rebuilt = await rebuild(database)
    await replay_into(database, "before", 2)

    assert set(rebuilt.written.values()) == {0}
    assert await query(database, "SELECT name, position FROM before.campaigns") == [("", 1)]


async def test_a_rebuild_clears_an_erased_text_that_the_tables_still_have(database: Database) -> None:
    await record(database, LAUNCH)
    await fold_page(database)
    await erased(database, 1)
    await fold_page(database)
    await query(database, "UPDATE public.campaigns SET description = 'A text'")

    await rebuild(database)

    assert await query(database, "SELECT description FROM public.campaigns") == [(None,)]


async def test_a_skipped_event_does_not_prevent_an_erasure_in_its_stream(database: Database) -> None:
    await record(database, LAUNCH)
    await query(
        database,
        "WITH head AS (UPDATE ledger.log_head SET position = 2) INSERT INTO ledger.events SELECT 2, 'campaign', $1, 2, "
        "gen_random_uuid(), 'campaign.imagined', 1, now(), now(), 'local', $1, NULL, NULL, NULL, '{}', NULL, NULL, "
        "NULL, NULL, 2",
        UUID(LAUNCH["id"]),
    )
    skipped = ProjectionSkipped(
        projection="read_models", position=2, event_type="campaign.imagined", by="somebody", error="?", reason="Why"
    )
    async with Appender(database) as appender:
        await appender.append(Request([prepare(CATALOGUE["ledger.projection_skipped"], skipped, actor="local")]))
    await fold_page(database, 1)
    await query(database, "UPDATE ledger.projection_checkpoints SET position = 2")

    await erased(database, 1)

    assert [row["name"] for row in (await all_folded(database))["campaigns"].values()] == [""]


async def test_an_erased_text_is_not_shown_over_http(service: Service) -> None:
    await service.append(LAUNCH)
    shown = await service.get(f"/v1/campaigns/{LAUNCH['id']}")

    await erased(service.database, 1)

    now = await service.get(f"/v1/campaigns/{LAUNCH['id']}")
    then = await service.get(f"/v1/campaigns/{LAUNCH['id']}", as_of="1")
    assert (shown["name"], now["name"], now["description"]) == ("A name", "", None)
    assert (then["name"], then["position"], now["position"]) == ("", 1, 2)
