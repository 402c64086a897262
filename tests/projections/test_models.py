"""The SQLAlchemy models, as a program uses them that reads the tables."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from ledger.database import Database
from projections.models import (
    AgentJob,
    AgentType,
    BudgetEntry,
    Campaign,
    CampaignStatus,
    ContentAsset,
    ContentStatus,
    ContentType,
    EntryStatus,
    JobStatus,
    ResourceType,
)
from projections.worker import fold_page
from tests.events import campaign, content, cost, follow, job
from tests.log.helpers import query, record

LAUNCH = campaign("200", name="Launch")
WRITER = job(LAUNCH["id"])
POST = content(title="A post", agent_job_id=WRITER["id"], metadata={"keywords": ["a"], "words": 12})
SPENT = cost("50.5", agent_job_id=WRITER["id"], tokens_used=7)
STARTED, COMPLETED = (
    follow(WRITER, "job.started", occurred_at="2025-01-01T00:00:00Z"),
    follow(WRITER, "job.completed", {"output_data": {"a": 1}}, occurred_at="2025-01-01T00:01:30.5Z"),
)


@pytest.fixture(scope="module")
async def filled(shared_database_url: URL) -> AsyncIterator[Database]:
    """Tables with a campaign, its job, and the job's asset and cost."""
    database = Database(shared_database_url)
    await record(database, LAUNCH, follow(LAUNCH, "campaign.activated"), WRITER, POST, SPENT, STARTED, COMPLETED)
    await fold_page(database)
    yield database
    await database.close()


@pytest.fixture
async def session(filled: Database) -> AsyncIterator[AsyncSession]:
    """A session whose changes are rolled back."""
    async with AsyncSession(filled.engine) as session:
        yield session


async def test_the_status_of_a_selected_campaign_is_an_enum_member(session: AsyncSession) -> None:
    (found,) = await session.scalars(select(Campaign))

    assert f"{found.name} ({found.status})" == "Launch (CampaignStatus.ACTIVE)"
    assert found.status is CampaignStatus.ACTIVE


async def test_rows_are_selected_by_their_enums(session: AsyncSession) -> None:
    active = select(Campaign.name).where(Campaign.status == CampaignStatus.ACTIVE)
    drafts = select(Campaign.name).where(Campaign.status == CampaignStatus.DRAFT)

    assert (list(await session.scalars(active)), list(await session.scalars(drafts))) == (["Launch"], [])


async def test_columns_are_python_types(session: AsyncSession) -> None:
    worked = (await session.scalars(select(AgentJob))).one()
    entry = (await session.scalars(select(BudgetEntry))).one()
    asset = (await session.scalars(select(ContentAsset))).one()

    assert (worked.agent_type, worked.status, worked.id) == (AgentType.ANALYST, JobStatus.COMPLETED, UUID(WRITER["id"]))
    assert (worked.input_data, worked.output_data, worked.tokens_used) == ({}, {"a": 1}, 7)
    assert worked.started_at == datetime(2025, 1, 1, tzinfo=UTC)
    assert (entry.resource_type, entry.status, entry.cost) == (
        ResourceType.LLM_API,
        EntryStatus.SETTLED,
        Decimal("50.5"),
    )
    assert (asset.content_type, asset.status) == (ContentType.BLOG, ContentStatus.DRAFT)
    assert asset.asset_metadata == {"keywords": ["a"], "words": 12}


async def test_a_kind_is_an_enum_member_if_it_is_known_and_otherwise_a_text(session: AsyncSession) -> None:
    worked = (await session.scalars(select(AgentJob))).one()
    worked.agent_type = "night_watch"
    await session.flush()
    session.expire_all()
    unknown = (await session.scalars(select(AgentJob).where(AgentJob.agent_type == "night_watch"))).one().agent_type
    worked.agent_type = AgentType.RESEARCHER
    await session.flush()
    session.expire_all()
    known = (await session.scalars(select(AgentJob).where(AgentJob.agent_type == AgentType.RESEARCHER))).one()

    assert (type(unknown), unknown) == (str, "night_watch")
    assert known.agent_type is AgentType.RESEARCHER


async def test_relationships_lead_from_a_campaign_to_its_jobs_assets_and_costs(session: AsyncSession) -> None:
    whole = select(Campaign).options(
        selectinload(Campaign.content_assets),
        selectinload(Campaign.agent_jobs).selectinload(AgentJob.budget_entries),
        selectinload(Campaign.agent_jobs).selectinload(AgentJob.content_assets),
    )

    (found,) = await session.scalars(whole)

    (worked,) = found.agent_jobs
    assert [asset.title for asset in found.content_assets] == ["A post"]
    assert [asset.title for asset in worked.content_assets] == ["A post"]
    assert [entry.cost for entry in worked.budget_entries] == [Decimal("50.5")]


async def test_relationships_lead_back_to_the_campaign(session: AsyncSession) -> None:
    of_entry = selectinload(BudgetEntry.agent_job).selectinload(AgentJob.campaign)
    (entry,) = await session.scalars(select(BudgetEntry).options(of_entry))
    both = selectinload(ContentAsset.campaign), selectinload(ContentAsset.agent_job)
    (asset,) = await session.scalars(select(ContentAsset).options(*both))

    assert entry.agent_job is not None
    assert entry.agent_job.campaign is not None
    assert (asset.campaign, asset.agent_job) == (entry.agent_job.campaign, entry.agent_job)
    assert entry.agent_job.campaign.name == "Launch"


async def test_deleting_in_a_session_leaves_references_to_the_foreign_keys(session: AsyncSession) -> None:
    found = (await session.scalars(select(Campaign))).one()

    await session.delete(found)
    await session.flush()
    session.expire_all()

    asset = (await session.scalars(select(ContentAsset))).one()
    worked = (await session.scalars(select(AgentJob))).one()
    assert (asset.campaign_id, worked.campaign_id) == (None, None)
    assert asset.agent_job_id == worked.id


async def test_a_repr_names_the_kind_the_id_and_the_status(session: AsyncSession) -> None:
    found = [(await session.scalars(select(model))).one() for model in (Campaign, AgentJob, ContentAsset, BudgetEntry)]

    assert [repr(row) for row in found] == [
        f"<Campaign {LAUNCH['id']} 'Launch' active>",
        f"<AgentJob {WRITER['id']} analyst completed>",
        f"<ContentAsset {POST['id']} 'A post' draft>",
        f"<BudgetEntry {SPENT['id']} llm_api settled>",
    ]


async def test_a_campaign_computes_its_remaining_budget(session: AsyncSession) -> None:
    found = (await session.scalars(select(Campaign))).one()

    assert (found.budget_remaining, found.budget_used_percentage) == (Decimal("149.5"), Decimal("25.25"))


@pytest.mark.parametrize(
    ("budget", "spend", "remaining", "used"),
    [("0", "0", "0", "0"), ("0", "5", "-5", "0"), ("3", "1", "2", "33.3333333333"), ("2", "5", "-3", "250")],
)
def test_the_used_percentage_is_0_if_the_budget_is_0(budget: str, spend: str, remaining: str, used: str) -> None:
    found = Campaign(budget=Decimal(budget), spend=Decimal(spend))

    assert (found.budget_remaining, found.budget_used_percentage) == (Decimal(remaining), Decimal(used))


START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, 0, 1, 30, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("started", "completed", "seconds"),
    [(None, None, None), (START, None, None), (None, END, None), (START, END, 90.5), (END, END, 0), (END, START, None)],
)
def test_a_duration_is_known_once_both_times_are_and_are_in_order(
    started: datetime | None, completed: datetime | None, seconds: float | None
) -> None:
    assert AgentJob(started_at=started, completed_at=completed).duration_seconds == seconds


async def test_the_columns_have_the_defaults_of_the_contract(database: Database) -> None:
    common: dict[str, Any] = {"created_at": START, "updated_at": START, "position": 1}
    campaign_id, job_id = uuid4(), uuid4()
    async with AsyncSession(database.engine) as session:
        session.add(Campaign(id=campaign_id, name="C", budget=Decimal(1), currency="USD", start_date=START, **common))
        session.add(
            AgentJob(
                id=job_id,
                agent_type=AgentType.ANALYST,
                input_data={},
                currency="USD",
                actor="local",
                root_job_id=job_id,
                **common,
            )
        )
        session.add(ContentAsset(id=uuid4(), title="T", content="", content_type=ContentType.BLOG, **common))
        await session.commit()

    assert await query(database, "SELECT status, spend, held, impressions, revenue, roi FROM campaigns") == [
        ("draft", 0, 0, 0, 0, 0)
    ]
    jobs = "SELECT status, retry_count, tokens_used, cost, held FROM agent_jobs"
    assert await query(database, jobs) == [("pending", 0, 0, 0, 0)]
    assert await query(database, "SELECT status, metadata::text FROM content_assets") == [("draft", "{}")]
