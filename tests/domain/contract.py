"""The contract table: statuses and fields of every event type, by hand, and the normal form of data."""

from datetime import UTC, datetime
from decimal import Decimal
from json import dumps
from typing import Any, NamedTuple
from uuid import UUID, uuid5

Event = dict[str, Any]
"""An event as sent."""

SAME = "the same"


class Row(NamedTuple):
    """One event type in the contract: its statuses and its fields, separated by spaces."""

    allowed_from: str
    """Empty if the event opens a stream."""

    to: str
    required: str = ""
    optional: str = ""


OF_CALLS = "usage service_tier response_id labels trace_id span_id original"
"""Optional fields of recorded costs and of holds."""

CONTRACT: dict[str, Row] = {
    "campaign.created": Row("", "draft", "name budget start_date", "description currency end_date labels"),
    "campaign.details_changed": Row("draft active paused completed", SAME, "", "name description start_date end_date"),
    "campaign.budget_changed": Row("draft active paused completed", SAME, "", "budget reason"),
    "campaign.activated": Row("draft paused", "active", "", "reason"),
    "campaign.paused": Row("active", "paused", "", "reason"),
    "campaign.completed": Row("active paused", "completed", "", "reason"),
    "campaign.archived": Row("draft active paused completed", "archived", "", "reason"),
    "campaign.metrics_recorded": Row(
        "active paused completed archived", SAME, "", "impressions clicks conversions revenue"
    ),
    "campaign.deleted": Row("draft archived", "deleted", "", "reason"),
    "content.created": Row("", "draft", "title content content_type", "metadata campaign_id agent_job_id"),
    "content.revised": Row("draft review", SAME, "", "title content metadata"),
    "content.submitted": Row("draft", "review", "", "reason"),
    "content.approved": Row("review", "approved", "", "reason"),
    "content.rejected": Row("review", "draft", "", "reason"),
    "content.published": Row("approved", "published", "", "reason"),
    "content.archived": Row("draft review approved published", "archived", "", "reason"),
    "content.assigned": Row("draft review approved published", SAME, "campaign_id", ""),
    "content.deleted": Row("draft review approved published archived", "deleted", "", "reason"),
    "job.queued": Row(
        "",
        "pending",
        "agent_type input_data",
        "campaign_id budget currency max_retries agent_name labels trace_id span_id parent_job_id",
    ),
    "job.recorded": Row(
        "",
        "completed",
        "agent_type input_data status",
        "campaign_id budget currency max_retries agent_name labels trace_id span_id parent_job_id started_at "
        "completed_at output_data error_message",
    ),
    "job.budget_changed": Row("pending running", SAME, "", "budget reason"),
    "job.started": Row("pending", "running", "", ""),
    "job.progressed": Row("running", SAME, "", "progress message"),
    "job.completed": Row("pending running", "completed", "", "output_data started_at"),
    "job.failed": Row("pending running", "failed", "error_message", ""),
    "job.retried": Row("failed", "pending", "", ""),
    "job.cancelled": Row("pending running", "cancelled", "", "reason"),
    "job.deleted": Row("completed failed cancelled", "deleted", "", "reason"),
    "cost.recorded": Row(
        "",
        "settled",
        "resource_type cost",
        f"currency tokens_used model_used provider description agent_job_id campaign_id {OF_CALLS}",
    ),
    "cost.reserved": Row(
        "",
        "held",
        "resource_type amount",
        f"currency expires_in model_used provider description agent_job_id campaign_id {OF_CALLS}",
    ),
    "cost.settled": Row(
        "held expired released",
        "settled",
        "cost",
        "tokens_used model_used provider usage service_tier response_id labels",
    ),
    "cost.credited": Row(
        "",
        "settled",
        "resource_type amount reason",
        "currency model_used provider description agent_job_id campaign_id service_tier response_id labels trace_id "
        "span_id original",
    ),
    "cost.extended": Row("held", SAME, "expires_in", ""),
    "cost.released": Row("held", "released", "", "reason"),
    "cost.adjusted": Row("settled", SAME, "amount reason", "tokens_used"),
    "price.published": Row(
        "published withdrawn",
        "published",
        "provider model rates effective_from source",
        "names prefixes service_tier currency per tiers",
    ),
    "price.withdrawn": Row("published", "withdrawn", "effective_from", "reason"),
}
"""Every event type that clients send, written by hand."""

SET_BY_SERVICE = {"cost.recorded": "price", "cost.reserved": "price", "cost.settled": "price", "cost.adjusted": "price"}
"""Fields that only the service sets."""

NAMES_STREAM = {"price.published"}
"""Types whose data decides the stream: they open it as well as continue it."""

TRANSITIONS = {name: (row.allowed_from, row.to) for name, row in CONTRACT.items()}

MONEY = {"budget", "revenue", "cost", "amount", "progress"}
TIMES = {"start_date", "end_date", "occurred_at", "started_at", "completed_at", "effective_from"}
IDS = {"campaign_id", "agent_job_id", "parent_job_id", "correlation_id", "causation_id"}


NULLS = {("campaign.budget_changed", "budget"), ("job.budget_changed", "budget")}
"""Optional fields that are not absent if they are null."""


def stream_of(event: Event) -> str:
    """Return the stream of an event as sent."""
    return canonical_id(event.get("stream_id") or event["id"])


PRICE_NAMESPACE = UUID("5d0a6f0e-41c7-5b8c-9c35-1f2f6c1f9d77")


def price_stream_of(data: dict[str, Any]) -> str:
    """Return the stream of a price."""
    key = [data["provider"], data["model"], data.get("service_tier", "standard"), data.get("currency", "USD")]
    return str(uuid5(PRICE_NAMESPACE, dumps(key, separators=(",", ":"))))


def canonical_id(sent: str) -> str:
    return str(UUID(sent))


def meaning(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return data in normal form: two events have the same content if it is equal."""
    defaults = {"campaign.created": {"currency": "USD"}, "cost.reserved": {"expires_in": 900}}
    present = {field: value for field, value in data.items() if value is not None or (name, field) in NULLS}
    return {field: plain(field, value) for field, value in {**defaults.get(name, {}), **present}.items()}


def plain(field: str, value: Any) -> Any:
    if value is None:
        return None
    if field in MONEY:
        return Decimal(str(value))
    if field in IDS:
        return canonical_id(value)
    if field in TIMES:
        time = datetime.fromisoformat(value)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return json_value(value) if isinstance(value, dict) else value


def json_value(value: Any) -> Any:
    """Return a JSON value in a form in which equal values are equal: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict):
        return {key: json_value(member) for key, member in value.items()}
    if isinstance(value, list):
        return [json_value(element) for element in value]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return "number", Decimal(str(value))
    return type(value), value
