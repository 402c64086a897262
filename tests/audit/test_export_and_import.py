"""Export and import: the same log, root and state, and later appends are judged as in the original."""

import io
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from ledger.audit import import_file, tree_store
from ledger.audit.export_lines import ExportError, read_lines, write_line
from ledger.audit.import_file import EmptyExportError, LedgerNotEmptyError, MissingTextsError, import_lines
from ledger.audit.log_entry import encode_entry
from ledger.audit.merkle import leaf_hash
from ledger.audit.tree_growth import RightEdge, append_leaves
from ledger.database import Database
from ledger.domain.catalogue import CATALOGUE, type_of
from ledger.domain.cost import CostAdjusted, CostPriced
from ledger.domain.errors import Refused
from ledger.domain.event import Receipt, Recorded, Request
from ledger.domain.ledger_events import ProjectionSkipped
from ledger.domain.log_history import LogHistory
from ledger.log.append import append
from ledger.log.appender import Appender
from ledger.log.erasure import erase
from ledger.log.pending_releases import release_pending_holds
from ledger.log.prepare import prepare
from ledger.log.read import EventFilter, read_all_salted
from projections.differences import Difference
from projections.verify import verify
from projections.worker import fold_page
from tests.audit.exports import export_of, line_of, recorded
from tests.events import campaign, content, cost, event, follow, job, reserve
from tests.log.erasures import erased
from tests.log.helpers import candidate, limit_releases, query, record, request, value
from tests.projections.helpers import NOON, MemoryLog, append_requests, expiry_request, sample_history, stored, tables

EVENTS = """
SELECT position, category, stream_id, version, id, type, schema_version, occurred_at, recorded_at, actor, campaign_id,
    agent_job_id, correlation_id, causation_id, data::text, text::text, text_salt, text_commitment, over_budget,
    CASE WHEN text_commitment IS NULL OR text IS NOT NULL THEN size END
FROM ledger.events ORDER BY position
"""
STATES = (
    "SELECT stream_id, category, version, state::text FROM ledger.streams ORDER BY 1, 2",
    "SELECT account_id, scope, currency, budget, spent, held FROM ledger.accounts ORDER BY 1, 2",
    "SELECT stream_id, amount, campaign_id, agent_job_id, expires_at FROM ledger.holds ORDER BY 1",
    "SELECT stream_id, version, state::text FROM ledger.entries ORDER BY 1",
    "SELECT job_id, position FROM ledger.pending_releases ORDER BY 1",
    "SELECT position, recorded_at FROM ledger.log_head",
)


SKIP = prepare(
    CATALOGUE["ledger.projection_skipped"],
    ProjectionSkipped(projection="p", position=1, event_type="t", by="b", error="An error", reason="A reason"),
    actor="local",
)


async def exported(database: Database, until: int | None = None) -> bytes:
    pages = read_all_salted(database, EventFilter(until=until))
    return b"".join([write_line(event) async for page in pages for event in page])


async def imported(database: Database, export: bytes) -> int:
    async with database.connection() as connection:
        return await import_lines(connection, read_lines(io.BytesIO(export)))


def log_of_prices() -> list[Recorded]:
    """A log with costs by usage; prices follow that price one of them and adjust two of them."""
    log = MemoryLog()
    rates = {"output_tokens": "8", "input_tokens": "2"}
    price = {"provider": "openai", "model": "m", "rates": rates, "effective_from": "2020-01-01T00:00:00Z"}
    price["source"] = {"name": "test", "version": "1"}
    usage = {"input_tokens": 1000}
    call = {"resource_type": "llm_api", "provider": "openai", "model_used": "m", "usage": usage}
    euros = campaign(currency="EUR")
    late = event("cost.recorded", call | {"campaign_id": euros["id"]})
    priced, hold = event("cost.recorded", call), event("cost.reserved", call)
    log.append(euros, late, event("price.published", price), priced, hold)
    log.append(follow(hold, "cost.settled", {"usage": usage}))

    def change(sent: dict[str, Any], payload: CostPriced | CostAdjusted) -> None:
        log.append(Request([prepare(type_of(type(payload)), payload, actor="local", stream_id=UUID(sent["id"]))]))

    log.append(event("price.published", price | {"currency": "EUR"}))
    change(late, CostPriced(cost=Decimal("0.002"), price=len(log.events)))
    for rate, amount in (("3", "0.001"), ("5", "0.002")):
        log.append(event("price.published", price | {"rates": rates | {"input_tokens": rate}}))
        position = len(log.events)
        for sent in (priced, hold):
            change(sent, CostAdjusted(amount=Decimal(amount), reason="Another price", price=position))
    return list(log.working_state.events)


@pytest.mark.parametrize("page_events", [1, 3, 100])
async def test_costs_by_usage_are_checked_by_calls_that_are_looked_up(
    database: Database, monkeypatch: pytest.MonkeyPatch, page_events: int
) -> None:
    monkeypatch.setattr(import_file, "PAGE_EVENTS_MAX", page_events)
    kept = []

    class WatchedHistory(LogHistory):
        def add(self, *arguments: Any) -> None:
            kept.append(len(self.priced_calls))
            super().add(*arguments)

    monkeypatch.setattr(import_file, "LogHistory", WatchedHistory)
    events = log_of_prices()
    changes = [index for index, each in enumerate(events) if each.type in ("cost.priced", "cost.adjusted")]
    assert len(changes) == 5
    for index in changes:
        data = events[index].data
        wrong = data.replace('"0.001"', '"0.0011"').replace('"0.002"', '"0.0021"')
        with pytest.raises(ExportError, match=r"by the price of|not the difference between the prices") as refused:
            await imported(database, export_of([*events[:index], events[index]._replace(data=wrong)]))
        assert refused.value.position == index + 1

    kept.clear()
    assert await imported(database, export_of(events)) == len(events)
    assert max(kept) <= page_events
    assert await exported(database) == export_of(events)


async def written(database: Database) -> list[Any]:
    """Return everything that appends write."""
    return [await query(database, statement) for statement in (EVENTS, *STATES)]


async def root(database: Database) -> bytes:
    leaves = b"".join(leaf_hash(encode_entry(event)) for event in await stored(database))
    return append_leaves(RightEdge(), leaves).edge.root


async def folded(database: Database) -> Any:
    while await fold_page(database):
        pass
    return await tables(database)


async def require_same(original: Database, copy: Database) -> None:
    """Require the same logs, roots, states and tables, and that the copy passes `ledger verify`."""
    differences: list[Difference] = []

    assert await written(copy) == await written(original)
    assert await root(copy) == await root(original)
    assert await folded(copy) == await folded(original)
    report = await verify(copy, differences.append)
    assert (report.is_clean, report.faults, differences) == (True, [], [])


@pytest.fixture(params=[5_000, 7], ids=["one page", "pages of 7"])
def page_events_max(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set the number of events per page of the import."""
    monkeypatch.setattr(import_file, "PAGE_EVENTS_MAX", request.param)
    return int(request.param)


@pytest.mark.usefixtures("page_events_max")
async def test_every_event_type_is_imported_with_the_state_that_appends_need(
    database: Database, empty_ledger: Database
) -> None:
    await append_requests(database, [*sample_history(), Request([SKIP])])
    event_types = {name for (name,) in await query(database, "SELECT DISTINCT type FROM ledger.events")}

    position = await imported(empty_ledger, await exported(database))

    assert position == await value(database, "SELECT position FROM ledger.log_head")
    assert event_types >= {name for name in CATALOGUE if not name.startswith("ledger.")}
    await require_same(database, empty_ledger)


async def test_events_of_older_schema_versions_are_imported_as_they_are(
    database: Database, empty_ledger: Database
) -> None:
    opened = campaign()
    steps = [opened, follow(opened, "campaign.activated"), follow(opened, "campaign.paused")]
    held = reserve(campaign_id=opened["id"])
    old = [Request([candidate(held, schema_version=1)]), Request([candidate(job(), schema_version=1)])]
    await append_requests(database, [*map(request, steps), *old, request(job())])

    await imported(empty_ledger, await exported(database))

    versions = "SELECT schema_version FROM ledger.events WHERE position > 3 ORDER BY position"
    assert await query(empty_ledger, versions) == [(1,), (1,), (2,)]
    await require_same(database, empty_ledger)
    (again,) = await append_to(empty_ledger, request(held))
    assert isinstance(again, Receipt)
    assert again.duplicate


async def test_erased_texts_are_imported_as_erased(database: Database, empty_ledger: Database) -> None:
    await append_requests(database, sample_history())
    for at in await query(
        database, "SELECT position FROM ledger.events WHERE text IS NOT NULL ORDER BY position LIMIT 8"
    ):
        async with Appender(database) as appender:
            await erase(database, appender, at[0], by="somebody", reason="Asked to")
    erased_count = await value(
        database, "SELECT count(*) FROM ledger.events WHERE text IS NULL AND text_commitment IS NOT NULL"
    )

    await imported(empty_ledger, await exported(database))

    assert erased_count > 5
    await require_same(database, empty_ledger)
    assert await exported(empty_ledger) == await exported(database)


async def test_the_size_of_an_imported_erased_event_is_that_of_its_data(
    database: Database, empty_ledger: Database
) -> None:
    await record(database, cost(description="A text"))
    await erased(database, 1)

    await imported(empty_ledger, await exported(database))

    assert await value(empty_ledger, "SELECT size = length(data::text) FROM ledger.events WHERE position = 1")


async def test_an_export_without_the_record_of_an_erasure_is_refused(
    database: Database, empty_ledger: Database
) -> None:
    await record(database, cost(description="A text"), cost(description="Another"))
    await erased(database, 2)
    before = await written(empty_ledger)

    with pytest.raises(MissingTextsError, match=r"the free text of 1 event is missing \(first: position 2\), but no "):
        await imported(empty_ledger, await exported(database, until=2))

    assert await written(empty_ledger) == before
    assert await imported(empty_ledger, await exported(database)) == 3


OPENED, QUEUED = campaign("10"), job(budget="20")
WORKER = job(OPENED["id"])
HELD, OVERDUE, DENIED = (reserve(amount, campaign_id=OPENED["id"], expires_in=1) for amount in ("4", "2", "90"))
OF_JOB = reserve("1", agent_job_id=WORKER["id"], description="A text")
OVER, ASSET = cost("30", agent_job_id=QUEUED["id"]), content(campaign_id=OPENED["id"])
HISTORY = [OPENED, QUEUED, WORKER, HELD, OVERDUE, DENIED, OF_JOB, OVER, ASSET, follow(WORKER, "job.started")]


async def append_to(database: Database, request: Request) -> list[object]:
    """Append, and return the receipts, or problem types and members of the refusals."""
    async with database.connection() as connection:
        (answers,), _ = await append(connection, [request], NOON.replace(hour=20))
    return [(answer.slug, answer.members) if isinstance(answer, Refused) else answer for answer in answers]


async def test_later_appends_are_judged_as_in_the_original(database: Database, empty_ledger: Database) -> None:
    await append_requests(database, [request(event, independent=True) for event in HISTORY])
    await imported(empty_ledger, await exported(database))
    afterwards = [
        *(request(event) for event in HISTORY if event is not DENIED),
        request({**OVER, "data": {**OVER["data"], "cost": "31"}}),
        request({**ASSET, "data": {**ASSET["data"], "title": "Another"}}),
        request(follow(HELD, "cost.settled", {"cost": "5"}, expected_version=1)),
        expiry_request(OVERDUE),
        request(reserve("5", campaign_id=OPENED["id"])),
        request(reserve("4", campaign_id=OPENED["id"]), independent=True),
        request(reserve("1", agent_job_id=QUEUED["id"]), independent=True),
        request(DENIED, independent=True),
        request(follow(WORKER, "job.completed")),
        request(follow(ASSET, "content.published")),
        request(follow(ASSET, "content.submitted", expected_version=1)),
        request(follow(OPENED, "campaign.deleted")),
    ]

    here = [await append_to(database, later) for later in afterwards]
    there = [await append_to(empty_ledger, later) for later in afterwards]

    assert there == here
    repeats = [answer for answers in there[: len(HISTORY) - 1] for answer in answers]
    assert all(isinstance(answer, Receipt) and answer.duplicate for answer in repeats)
    assert [answer.over_budget for answer in repeats if isinstance(answer, Receipt) and answer.over_budget] == [["job"]]
    assert {answer[0] for answers in there for answer in answers if isinstance(answer, tuple)} == {
        "event-id-conflict",
        "budget-exceeded",
        "illegal-transition",
    }
    await require_same(database, empty_ledger)


@pytest.mark.usefixtures("page_events_max")
@pytest.mark.parametrize("swept", [0, 1, 2])
async def test_an_export_between_the_releases_of_an_ended_job_is_continued(
    database: Database, empty_ledger: Database, monkeypatch: pytest.MonkeyPatch, swept: int
) -> None:
    limit_releases(monkeypatch, 2)
    queued = job(max_retries=3)
    held = [reserve("1", agent_job_id=queued["id"], expires_in=86_400) for _ in range(9)]
    failed = follow(queued, "job.failed", {"error_message": "It broke"})
    new = reserve("1", agent_job_id=queued["id"], expires_in=86_400)
    await record(database, queued, *held, failed, follow(queued, "job.retried"), new)
    async with Appender(database) as appender:
        for _ in range(swept):
            await release_pending_holds(database, appender)

    await imported(empty_ledger, await exported(database))
    before = await written(empty_ledger), await written(database)
    async with Appender(empty_ledger) as appender:
        while await release_pending_holds(empty_ledger, appender):
            pass

    assert before[0] == before[1]
    assert await query(empty_ledger, "SELECT stream_id::text FROM ledger.holds") == [(new["id"],)]
    assert await query(empty_ledger, "SELECT held FROM ledger.accounts") == [(1,)]
    assert await value(empty_ledger, "SELECT count(*) FROM ledger.pending_releases") == 0


async def test_an_import_into_a_ledger_with_events_is_refused(database: Database, empty_ledger: Database) -> None:
    await record(database, campaign())
    await record(empty_ledger, cost())
    before = await written(empty_ledger)

    with pytest.raises(LedgerNotEmptyError, match="the ledger already has 1 events; import into an empty one"):
        await imported(empty_ledger, await exported(database))

    assert await written(empty_ledger) == before


async def test_an_export_without_events_is_refused(empty_ledger: Database) -> None:
    with pytest.raises(EmptyExportError):
        await imported(empty_ledger, b"")


GOOD = recorded(opened := campaign("5"), queued := job(opened["id"]), reserve("5", campaign_id=opened["id"]), cost())
TWICE = GOOD[1]._replace(position=5, version=2, type="job.started", schema_version=1, data="{}", text=None,
                         text_salt=None, text_commitment=None, recorded_at=GOOD[-1].recorded_at)  # fmt: skip
OLDER = GOOD[1]._replace(position=5, stream_id=UUID(int=9), id=UUID(int=9), agent_job_id=UUID(int=9), schema_version=1,
                         recorded_at=GOOD[-1].recorded_at)  # fmt: skip


@pytest.mark.parametrize(
    ("export", "message"),
    [
        (
            export_of([*GOOD[:3], GOOD[3]._replace(recorded_at=NOON.replace(year=9000))]),
            r"^line 4 .*is in the future",
        ),
        (export_of(GOOD)[:-1], "^line 4: the file ends in the middle of the line"),
        (export_of(GOOD) + b"{}\n", "^line 5: .*missing required field"),
        (export_of(GOOD[1:]), r"^line 1 \(position 2\): the log starts at position 2, not at 1"),
        (export_of([*GOOD[:2], GOOD[3]]), r"^line 3 \(position 4\): position 4 follows 2"),
        (export_of([*GOOD[:3], GOOD[3]._replace(version=2)]), r"^line 4 \(position 4\): .*version 2 follows 0"),
        (export_of([*GOOD, TWICE]), r"^line 5 \(position 5\): job stream .* has event [0-9a-f-]{36} already"),
        (export_of([*GOOD, OLDER]), r"^line 5 .*job\.queued in schema version 1 follows version 2"),
        (export_of([*GOOD[:3], GOOD[3]._replace(type="cost.unheard_of")]), r"^line 4 .*upgrade this release"),
        (export_of(GOOD[:3]) + line_of(GOOD[3]).replace(b'"cost":"1"', b'"cost":"-1"'), r"^line 4 .*at least 0"),
        (export_of(GOOD).replace(b'"A campaign"', b'"Another"'), r"^line 1 \(position 1\): the text does not match"),
        (export_of(GOOD).replace(b'"budget":"5"', b'"budget":"4"'), r"^line 3 .*requested 5 USD, but only 4 "),
    ],
)
async def test_a_failed_import_names_the_line_and_changes_nothing(
    empty_ledger: Database, monkeypatch: pytest.MonkeyPatch, export: bytes, message: str
) -> None:
    monkeypatch.setattr(import_file, "PAGE_EVENTS_MAX", 2)
    before = await written(empty_ledger)

    with pytest.raises(ExportError, match=message):
        await imported(empty_ledger, export)

    assert await written(empty_ledger) == before
    assert await imported(empty_ledger, export_of(GOOD)) == 4


async def test_both_ledgers_have_the_same_leaf_hashes(database: Database, empty_ledger: Database) -> None:
    await append_requests(database, sample_history())
    await imported(empty_ledger, await exported(database))
    head = await value(database, "SELECT position FROM ledger.log_head")

    async with database.connection() as here, empty_ledger.connection() as there:
        assert await tree_store.read_leaf_hashes(there, 0, head) == await tree_store.read_leaf_hashes(here, 0, head)
