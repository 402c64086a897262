"""The model of the table content_assets: text and status of a piece of content."""

import uuid
from typing import Any

from sqlalchemy import (
    ForeignKey,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ledger.domain.content import ContentStatus, ContentType
from projections.models.agent_jobs import AgentJob
from projections.models.campaigns import Campaign
from projections.models.columns import (
    FREE_TEXT,
    LARGE_FREE_TEXT,
    Base,
    OpenKind,
    any_kind,
    lower_case,
    newest_first,
    one_of,
)


class ContentAsset(Base):
    """A piece of content. Its column `metadata` is the attribute `asset_metadata`: SQLAlchemy reserves `metadata`."""

    __tablename__ = "content_assets"
    __table_args__ = (
        any_kind("content_type"),
        one_of("status", ContentStatus),
        newest_first("content_assets"),
        {"comment": "Pieces of content with their status. Deleted assets have no row."},
    )

    title: Mapped[str] = mapped_column(String(500), index=True, info=FREE_TEXT, comment="Its title; empty if erased.")
    content: Mapped[str] = mapped_column(Text, info=LARGE_FREE_TEXT, comment="The text itself; empty if erased.")
    content_type: Mapped[ContentType | str] = mapped_column(
        OpenKind(ContentType), index=True, comment="The kind of content, such as blog."
    )
    status: Mapped[ContentStatus] = mapped_column(
        lower_case(ContentStatus),
        index=True,
        default=ContentStatus.DRAFT,
        server_default="draft",
        comment="draft, review, approved, published or archived.",
    )
    asset_metadata: Mapped[dict[str, Any]] = mapped_column(
        "metadata",
        JSON,
        default=dict,
        server_default=text("'{}'::json"),
        info=LARGE_FREE_TEXT,
        comment="Any further data, as sent; {} if erased.",
    )
    campaign_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("campaigns.id", ondelete="SET NULL"), index=True, comment="The campaign that it belongs to."
    )
    agent_job_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("agent_jobs.id", ondelete="SET NULL"), index=True, comment="The job that made it."
    )

    campaign: Mapped[Campaign | None] = relationship(back_populates="content_assets")
    agent_job: Mapped[AgentJob | None] = relationship(back_populates="content_assets")

    def __repr__(self) -> str:
        return f"<ContentAsset {self.id} {self.title!r} {self.status.value}>"
