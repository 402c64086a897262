"""Rows of the read models in memory, while a page of events is folded into them.

A row's fields are its table's columns. In a large column, `None` means "as stored in the database": such texts are
neither loaded nor written again if no event changes them. An erasure overwrites all of them.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from ledger.domain.money import ZERO
from ledger.domain.usage import Usage
from ledger.log.read import StoredEvent

COUNTER_MAX = 2**63 - 1
"""Counters stop here instead of overflowing a bigint: no input may stop the worker."""


NO_LABELS = "{}"
"""The JSON text of no labels."""


class Row(msgspec.Struct, kw_only=True, gc=False):
    """The columns that every read model has."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    position: int

    def mark_updated(self, event: StoredEvent) -> None:
        """Record that this event was folded in."""
        self.updated_at = event.recorded_at
        self.position = event.position


class CampaignRow(Row, kw_only=True):
    """A row of `campaigns`."""

    name: str
    description: str | None
    status: str
    budget: Decimal | None
    currency: str
    start_date: datetime
    end_date: datetime | None
    spend: Decimal = ZERO
    held: Decimal = ZERO
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    revenue: Decimal = ZERO
    roi: Decimal = ZERO
    labels: str = NO_LABELS


class AgentJobRow(Row, kw_only=True):
    """A row of `agent_jobs`; `input_data`, `output_data` and `labels` are JSON text."""

    agent_type: str
    status: str
    currency: str
    campaign_id: UUID | None
    budget: Decimal | None
    input_data: str | None = None
    output_data: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error_message: str | None = None
    retry_count: int = 0
    tokens_used: int = 0
    cost: Decimal = ZERO
    held: Decimal = ZERO
    progress: Decimal | None = None
    actor: str
    agent_name: str | None
    parent_job_id: UUID | None = None
    root_job_id: UUID
    tree_cost: Decimal = ZERO
    labels: str
    trace_id: str | None


class ContentAssetRow(Row, kw_only=True):
    """A row of `content_assets`; `metadata` is JSON text."""

    title: str
    content_type: str
    status: str
    campaign_id: UUID | None
    agent_job_id: UUID | None
    content: str | None = None
    metadata: str | None = None


class BudgetEntryRow(Row, kw_only=True):
    """A row of `budget_entries`; `usage` and `labels` are JSON text."""

    resource_type: str
    status: str
    currency: str
    occurred_at: datetime
    agent_job_id: UUID | None
    campaign_id: UUID | None
    cost: Decimal = ZERO
    tokens_used: int = 0
    held: Decimal = ZERO
    model_used: str | None = None
    provider: str | None = None
    description: str | None = None
    expires_at: datetime | None = None
    actor: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage: str | None = None
    service_tier: str | None = None
    response_id: str | None = None
    labels: str
    trace_id: str | None = None
    adjusted: Decimal = ZERO
    unpriced: bool = False
    price_position: int | None = None

    def report_cost(self, cost: Decimal | None, price_position: int | None) -> None:
        """Set the cost; without one the entry is unpriced."""
        self.cost = cost or ZERO
        self.unpriced = cost is None
        self.price_position = price_position

    def report_usage(self, usage: Usage | None) -> None:
        """Set the counters of a call; nothing changes if none were reported."""
        if usage is None:
            return
        self.input_tokens = usage.input_tokens
        self.output_tokens = usage.output_tokens
        self.cache_read_tokens = usage.cache_read_tokens
        self.cache_write_tokens = usage.cache_write_tokens
        self.reasoning_tokens = usage.reasoning_tokens
        self.usage = msgspec.json.encode(usage).decode()


R = TypeVar("R", bound=Row)


class Rows(Generic[R]):
    """The rows of one table that a page of events touches: loaded, inserted, changed or deleted."""

    def __init__(self, loaded: Iterable[R] = ()) -> None:
        self._rows = {row.id: row for row in loaded}
        self._loaded = set(self._rows)
        self._changed: dict[UUID, None] = {}
        self._deleted: dict[UUID, None] = {}
        self._inserted: set[UUID] = set()
        self._overwritten: set[UUID] = set()

    def get(self, row_id: UUID | None) -> R | None:
        """Return a row for reading; None if there is none."""
        return self._rows.get(row_id) if row_id is not None else None

    def change(self, row_id: UUID | None, event: StoredEvent) -> R | None:
        """Return a row that this event will change; None if it was deleted."""
        row = self.get(row_id)
        if row is not None:
            row.mark_updated(event)
            self._changed[row.id] = None
        return row

    def add(self, row: R) -> None:
        """Add a new row."""
        self._rows[row.id] = row
        self._changed[row.id] = None

    def overwrite_texts(self, row: R, texts: Mapping[str, str | None]) -> None:
        """Set all texts of a changed row: from here on, `None` means null in its large columns too."""
        for column, value in texts.items():
            setattr(row, column, value)
        self._overwritten.add(row.id)

    def delete(self, row_id: UUID) -> None:
        """Delete a row."""
        self._rows.pop(row_id, None)
        self._changed.pop(row_id, None)
        self._deleted[row_id] = None

    def was_deleted(self, row_id: UUID | None) -> bool:
        """Whether this page deleted the row."""
        return row_id in self._deleted

    @property
    def ids(self) -> set[UUID]:
        """The ids of all rows that this page inserted, changed or deleted."""
        return {*self._inserted, *self._changed, *self._deleted}

    @property
    def has_deleted(self) -> bool:
        """Whether this page deleted any row."""
        return bool(self._deleted)

    @property
    def unwritten(self) -> list[R]:
        """Rows to insert or update."""
        return [self._rows[row_id] for row_id in self._changed]

    def take_new(self) -> list[R]:
        """Return the rows to insert; from here on they count as loaded."""
        new = [self._rows[row_id] for row_id in self._changed if row_id not in self._loaded]
        for row in new:
            del self._changed[row.id]
            self._loaded.add(row.id)
            self._inserted.add(row.id)
        return new

    @property
    def to_update(self) -> list[R]:
        """Rows to update; large columns that are None keep their stored value."""
        ids = self._loaded - self._overwritten
        return [self._rows[row_id] for row_id in self._changed if row_id in ids]

    @property
    def to_overwrite(self) -> list[R]:
        """Rows to update in every column."""
        ids = self._loaded & self._overwritten
        return [self._rows[row_id] for row_id in self._changed if row_id in ids]

    @property
    def to_delete(self) -> list[UUID]:
        """Ids of the rows to delete."""
        return [row_id for row_id in self._deleted if row_id in self._loaded]


class AmountChange(msgspec.Struct, frozen=True, gc=False):
    """By how much a cost event changes the figures of the job and the campaign that it counts for."""

    cost: Decimal
    held: Decimal
    tokens_used: int


def add_count(count: int, increment: int | None) -> int:
    """Return the sum of a counter and an increment, never more than a bigint holds nor less than zero."""
    return max(0, min(COUNTER_MAX, count + (increment or 0)))


def json_text(value: msgspec.Raw) -> str | None:
    """Return the text of a raw JSON value; None if it is absent."""
    return bytes(value).decode() or None


def merge_labels(labels: str, own: dict[str, str] | None) -> str:
    """Return the JSON text of labels with further ones, which win."""
    if not own:
        return labels
    return msgspec.json.encode(parse_labels(labels) | own, order="sorted").decode()


def parse_labels(labels: str) -> dict[str, str]:
    """Return labels from their JSON text."""
    return _labels.decode(labels)


_labels = msgspec.json.Decoder(dict[str, str])
