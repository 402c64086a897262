"""The JSON of read-model rows: every column and the derived figures, money and times as text."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec

from ledger.domain import money
from ledger.domain.campaign import CampaignStatus
from ledger.domain.codec import merge, time_text
from ledger.domain.content import ContentStatus
from ledger.domain.cost import EntryStatus
from ledger.domain.job import JobStatus
from projections.models.agent_jobs import duration_seconds
from projections.tables import READ_MODELS

Money = Annotated[str, msgspec.Meta(pattern=r"^-?\d+(\.\d+)?$", description="Exact decimal in plain notation.")]
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"}, description="UTC, with microseconds.")]
StringMap = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object", "additionalProperties": {"type": "string"}})
]
Counters = Annotated[
    msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object", "additionalProperties": {"type": "integer"}})
]
Texts = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {"type": "string"}})]
Tiers = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "array", "items": {"type": "object"}})]
Json = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]

JSON_COLUMNS = frozenset().union(*(model.json_columns for model in READ_MODELS))

V = TypeVar("V", bound=msgspec.Struct)


class CampaignView(msgspec.Struct, kw_only=True):
    """A campaign."""

    id: UUID
    name: str
    description: str | None
    status: CampaignStatus
    budget: Money | None
    spend: Money
    held: Money
    currency: str
    start_date: Time
    end_date: Time | None
    impressions: int
    clicks: int
    conversions: int
    revenue: Money
    roi: Money
    budget_remaining: Money | None
    budget_used_percentage: Money | None
    labels: StringMap
    created_at: Time
    updated_at: Time
    position: int


class ContentAssetView(msgspec.Struct, kw_only=True):
    """A content asset."""

    id: UUID
    title: str
    content: str
    content_type: str
    status: ContentStatus
    metadata: Json
    campaign_id: UUID | None
    agent_job_id: UUID | None
    created_at: Time
    updated_at: Time
    position: int


class AgentJobView(msgspec.Struct, kw_only=True):
    """A job of an agent."""

    id: UUID
    agent_type: str
    status: JobStatus
    input_data: Json
    output_data: Json | None
    started_at: Time | None
    completed_at: Time | None
    duration_seconds: float | None
    error_message: str | None
    retry_count: int
    progress: Money | None
    tokens_used: int
    cost: Money
    held: Money
    budget: Money | None
    currency: str
    campaign_id: UUID | None
    actor: str
    agent_name: str | None
    parent_job_id: UUID | None
    root_job_id: UUID
    tree_cost: Money
    labels: StringMap
    trace_id: str | None
    created_at: Time
    updated_at: Time
    position: int


class BudgetEntryView(msgspec.Struct, kw_only=True):
    """A budget entry."""

    id: UUID
    resource_type: str
    status: EntryStatus
    cost: Money
    held: Money
    currency: str
    tokens_used: int
    model_used: str | None
    provider: str | None
    description: str | None
    agent_job_id: UUID | None
    campaign_id: UUID | None
    occurred_at: Time
    expires_at: Time | None
    actor: str
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    usage: Counters | None
    service_tier: str | None
    response_id: str | None
    labels: StringMap
    trace_id: str | None
    adjusted: Money
    unpriced: bool
    price_position: int | None
    created_at: Time
    updated_at: Time
    position: int


class PriceView(msgspec.Struct, kw_only=True):
    """What a model costs from a time on, or that it has no price from then on."""

    id: UUID
    stream_id: UUID
    price_position: int
    provider: str
    model: str
    names: Texts
    prefixes: Texts
    service_tier: str
    currency: str
    per: int
    rates: StringMap
    tiers: Tiers
    effective_from: Time
    effective_to: Time | None
    withdrawn: bool
    source: StringMap | None
    actor: str
    created_at: Time
    updated_at: Time
    position: int


DERIVED_FROM = {
    "budget_remaining": ("budget", "spend"),
    "budget_used_percentage": ("budget", "spend"),
    "duration_seconds": ("started_at", "completed_at"),
}
"""The figures that are no columns, and the columns that they are derived from."""


@cache
def stored_columns(view: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the columns that a view shows, without the figures derived from them."""
    return tuple(name for name in view.__struct_fields__ if name not in DERIVED_FROM)


def bases_of(fields: Sequence[str]) -> set[str]:
    """Return the columns that the derived figures among some fields need."""
    return {column for name in fields for column in DERIVED_FROM.get(name, ())}


class _Balances(msgspec.Struct):
    budget: Decimal | None
    spend: Decimal


class _Times(msgspec.Struct):
    started_at: datetime | None
    completed_at: datetime | None


_balances = msgspec.json.Decoder(_Balances)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_times = msgspec.json.Decoder(_Times)


def complete(view: type[msgspec.Struct], selected: str) -> bytes:
    """Add the derived figures to the JSON of a row that has the columns of `stored_columns`."""
    if view is CampaignView:
        balances = _balances.decode(selected)
        derived = _campaign_figures(balances.budget, balances.spend)
    elif view is AgentJobView:
        times = _times.decode(selected)
        derived = _job_figures(times.started_at, times.completed_at)
    else:
        return selected.encode()
    return merge(selected.encode(), msgspec.json.encode(derived))


def complete_all(view: type[msgspec.Struct], rows: Sequence[str]) -> msgspec.Raw:
    """Return the JSON array of rows, each as `complete` returns it."""
    if view in (CampaignView, AgentJobView):
        return msgspec.Raw(b"[%b]" % b",".join(complete(view, row) for row in rows))
    return msgspec.Raw(f"[{','.join(rows)}]")


def select(view: type[msgspec.Struct], rows: Sequence[str], fields: Sequence[str]) -> list[dict[str, msgspec.Raw]]:
    """Return some fields of rows, each of which has the columns that these need."""
    has_derived = any(name in DERIVED_FROM for name in fields)
    items = (complete(view, row) if has_derived else row for row in rows)
    return [{name: item[name] for name in fields} for item in map(_members.decode, items)]


def show(view: type[V], row: Mapping[str, Any]) -> V:
    """Make the view of a row, given as the values of its columns."""
    shown = {name: _to_json_value(row[name]) for name in stored_columns(view)}
    for name in JSON_COLUMNS & shown.keys():
        if shown[name] is not None:
            shown[name] = msgspec.Raw(shown[name].encode())
    if view is CampaignView:
        shown |= _campaign_figures(row["budget"], row["spend"])
    elif view is AgentJobView:
        shown |= _job_figures(row["started_at"], row["completed_at"])
    return view(**shown)


def _to_json_value(value: Any) -> Any:
    kind = type(value)
    if kind is Decimal:
        return money.plain(value)
    return time_text(value) if kind is datetime else value


def _campaign_figures(budget: Decimal | None, spend: Decimal) -> dict[str, Any]:
    if budget is None:
        return {"budget_remaining": None, "budget_used_percentage": None}
    return {
        "budget_remaining": money.plain(money.subtract(budget, spend)),
        "budget_used_percentage": money.plain(money.percentage(spend, budget)),
    }


def _job_figures(started: datetime | None, completed: datetime | None) -> dict[str, Any]:
    return {"duration_seconds": duration_seconds(started, completed)}
