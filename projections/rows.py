"""The rows of the read models while a page of events is folded into them.

A row's fields are its table's columns. `None` in a column listed in a table's `kept` columns means "as it is in the
database": large texts are neither loaded nor written again when an event does not change them. An erasure sets them
all anew.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from ledger.domain.money import ZERO
from ledger.log.read import StoredEvent

COUNTER_MAX = 2**63 - 1
"""Counters stop here instead of overflowing a bigint: no input may stop the worker."""


class Row(msgspec.Struct, kw_only=True, gc=False):
    """What every read model's row begins with."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    position: int

    def touch(self, event: StoredEvent) -> None:
        """Note that this event was folded in."""
        self.updated_at = event.recorded_at
        self.position = event.position


class CampaignRow(Row, kw_only=True):
    """A row of `campaigns`."""

    name: str
    description: str | None
    status: str
    budget: Decimal
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


class AgentJobRow(Row, kw_only=True):
    """A row of `agent_jobs`; `input_data` and `output_data` are JSON text."""

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
    """A row of `budget_entries`."""

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


R = TypeVar("R", bound=Row)


class Rows(Generic[R]):
    """The rows of one table that a page touches: loaded, and then new, changed or deleted."""

    def __init__(self, loaded: Iterable[R] = ()) -> None:
        self._rows = {row.id: row for row in loaded}
        self._loaded = set(self._rows)
        self._changed: dict[UUID, None] = {}
        self._deleted: dict[UUID, None] = {}
        self._inserted: set[UUID] = set()
        self._retold: set[UUID] = set()

    def get(self, row_id: UUID | None) -> R | None:
        """The row, for reading."""
        return self._rows.get(row_id) if row_id is not None else None

    def change(self, row_id: UUID | None, event: StoredEvent) -> R | None:
        """The row, to be changed by this event; None where it was deleted."""
        row = self.get(row_id)
        if row is not None:
            row.touch(event)
            self._changed[row.id] = None
        return row

    def add(self, row: R) -> None:
        """Put a new row."""
        self._rows[row.id] = row
        self._changed[row.id] = None

    def retell(self, row: R, texts: Mapping[str, str | None]) -> None:
        """Set all texts of a changed row anew: from here on `None` means null in its kept columns too."""
        for column, value in texts.items():
            setattr(row, column, value)
        self._retold.add(row.id)

    def delete(self, row_id: UUID) -> None:
        """Take a row away."""
        self._rows.pop(row_id, None)
        self._changed.pop(row_id, None)
        self._deleted[row_id] = None

    def was_deleted(self, row_id: UUID | None) -> bool:
        """Whether this page took the row away."""
        return row_id in self._deleted

    @property
    def ids(self) -> set[UUID]:
        """Ids of the rows that were added, changed or deleted."""
        return {*self._inserted, *self._changed, *self._deleted}

    @property
    def has_deleted(self) -> bool:
        """Whether this page took any row away."""
        return bool(self._deleted)

    @property
    def touched(self) -> list[R]:
        """Rows to insert or update."""
        return [self._rows[row_id] for row_id in self._changed]

    def take_new(self) -> list[R]:
        """Rows to insert; from here on they count as loaded."""
        new = [self._rows[row_id] for row_id in self._changed if row_id not in self._loaded]
        for row in new:
            del self._changed[row.id]
            self._loaded.add(row.id)
            self._inserted.add(row.id)
        return new

    @property
    def changed(self) -> list[R]:
        """Rows to update; kept columns whose value is None stay as they are."""
        kept = self._loaded - self._retold
        return [self._rows[row_id] for row_id in self._changed if row_id in kept]

    @property
    def retold(self) -> list[R]:
        """Rows to update in every column."""
        retold = self._loaded & self._retold
        return [self._rows[row_id] for row_id in self._changed if row_id in retold]

    @property
    def deleted(self) -> list[UUID]:
        """Ids of rows to delete."""
        return [row_id for row_id in self._deleted if row_id in self._loaded]


class Movement(msgspec.Struct, frozen=True, gc=False):
    """What a cost event moves on the job and the campaign it counts for."""

    cost: Decimal
    held: Decimal
    tokens_used: int


def add_count(count: int, more: int | None) -> int:
    """Add to a counter, never past what a bigint holds nor below zero."""
    return max(0, min(COUNTER_MAX, count + (more or 0)))


def raw_text(value: msgspec.Raw) -> str | None:
    """The JSON text of a raw value; None where it is absent."""
    return bytes(value).decode() or None
