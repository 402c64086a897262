"""SQLAlchemy models of the read models and journals, for programs that read the tables: `select(Campaign)`.

The worker does not use a session: it writes the tables set-wise (`projections.writer`).
"""

from ledger.domain.campaign import CampaignStatus
from ledger.domain.content import ContentStatus, ContentType
from ledger.domain.cost import EntryStatus, ResourceType
from ledger.domain.job import AgentType, JobStatus
from projections.models.agent_jobs import AgentJob
from projections.models.budget_entries import BudgetEntry
from projections.models.campaigns import Campaign
from projections.models.columns import Base
from projections.models.content_assets import ContentAsset
from projections.models.journal_tables import CostPosting, DeniedHold
from projections.models.prices import Price

__all__ = [
    "AgentJob",
    "AgentType",
    "Base",
    "BudgetEntry",
    "Campaign",
    "CampaignStatus",
    "ContentAsset",
    "ContentStatus",
    "ContentType",
    "CostPosting",
    "DeniedHold",
    "EntryStatus",
    "JobStatus",
    "Price",
    "ResourceType",
]
