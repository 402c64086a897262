"""The CONTRACT's lifecycles by hand, and what an event's data means however it is spelt."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

Event = dict[str, Any]
"""An event as sent."""

SAME = "the same"

TRANSITIONS: dict[str, tuple[str, str]] = {
    "campaign.created": ("", "draft"),
    "campaign.details_changed": ("draft active paused completed", SAME),
    "campaign.budget_changed": ("draft active paused completed", SAME),
    "campaign.activated": ("draft paused", "active"),
    "campaign.paused": ("active", "paused"),
    "campaign.completed": ("active paused", "completed"),
    "campaign.archived": ("draft active paused completed", "archived"),
    "campaign.metrics_recorded": ("active paused completed archived", SAME),
    "campaign.deleted": ("draft archived", "deleted"),
    "content.created": ("", "draft"),
    "content.revised": ("draft review", SAME),
    "content.submitted": ("draft", "review"),
    "content.approved": ("review", "approved"),
    "content.rejected": ("review", "draft"),
    "content.published": ("approved", "published"),
    "content.archived": ("draft review approved published", "archived"),
    "content.assigned": ("draft review approved published", SAME),
    "content.deleted": ("draft review approved published archived", "deleted"),
    "job.queued": ("", "pending"),
    "job.started": ("pending", "running"),
    "job.progressed": ("running", SAME),
    "job.completed": ("running", "completed"),
    "job.failed": ("pending running", "failed"),
    "job.retried": ("failed", "pending"),
    "job.cancelled": ("pending running", "cancelled"),
    "job.deleted": ("completed failed cancelled", "deleted"),
    "cost.recorded": ("", "settled"),
    "cost.reserved": ("", "held"),
    "cost.settled": ("held expired released", "settled"),
    "cost.released": ("held", "released"),
    "cost.adjusted": ("settled", SAME),
}
"""From the CONTRACT, by hand: from → to. An event that is possible from no status opens a stream."""

MONEY = {"budget", "revenue", "cost", "amount", "progress"}
TIMES = {"start_date", "end_date", "occurred_at"}
IDS = {"campaign_id", "agent_job_id", "correlation_id", "causation_id"}


def stream_of(event: Event) -> str:
    """The stream of an event as sent."""
    return canonical_id(event.get("stream_id") or event["id"])


def canonical_id(sent: str) -> str:
    return str(UUID(sent))


def meaning(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """What data says, however it is spelt: two sendings have the same content where this is equal."""
    defaults = {"campaign.created": {"currency": "USD"}, "cost.reserved": {"expires_in": 900}}
    said = {field: value for field, value in data.items() if value is not None}
    return {field: plain(field, value) for field, value in {**defaults.get(name, {}), **said}.items()}


def plain(field: str, value: Any) -> Any:
    if field in MONEY:
        return Decimal(str(value))
    if field in IDS:
        return canonical_id(value)
    if field in TIMES:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    # An object is kept as it was sent: the text of its numbers and the order of its keys count.
    return json.dumps(value) if isinstance(value, dict) else value
