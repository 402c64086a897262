"""Journals: tables with one row an event, which are only added to: `cost_postings` and `denied_holds`.

The worker inserts their rows in the transaction of the read models. Nothing changes a row later but the erasure of its
free text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ledger.database import Connection
from ledger.domain.codec import EventData
from ledger.domain.cost import CostDenied
from ledger.log.read import StoredEvent
from projections.rows import AmountChange, BudgetEntryRow

POSTING_TYPES = {f"cost.{name}": name for name in ("recorded", "settled", "credited", "adjusted", "priced")}
"""The types of events that move money, and of their postings."""

CHARGES = frozenset({"recorded", "settled", "credited"})
"""The types of postings that book an entry; there is one for each entry that was charged."""


class CostPosting(msgspec.Struct, kw_only=True, gc=False):
    """A row of `cost_postings`."""

    position: int
    entry_id: UUID
    type: str
    amount: Decimal
    currency: str
    tokens_used: int
    unpriced: bool
    booked_at: datetime
    occurred_at: datetime
    campaign_id: UUID | None
    agent_job_id: UUID | None
    actor: str
    reason: str | None


class DeniedHold(msgspec.Struct, kw_only=True):
    """A row of `denied_holds`."""

    position: int
    denied_at: datetime
    amount: Decimal
    currency: str
    resource_type: str
    model_used: str | None
    provider: str | None
    campaign_id: UUID | None
    agent_job_id: UUID | None
    scopes: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Journal:
    """A journal: its table, the SQL types of its columns, and its column of free text, if it has one."""

    name: str
    types: dict[str, str]
    erasable: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        return tuple(self.types)

    def insert_statement(self, schema: str) -> str:
        """Return the SQL that inserts rows, sent as one JSON text, into the table of a schema."""
        sent = ", ".join(f"{column} {kind}" for column, kind in self.types.items())
        names = ", ".join(self.types)
        return (
            f"INSERT INTO {schema}.{self.name} ({names}) SELECT {names} "  # noqa: S608 (fixed names)
            f"FROM json_to_recordset($1::json) AS new ({sent})"
        )


COST_POSTINGS = Journal(
    "cost_postings",
    {
        "position": "bigint",
        "entry_id": "uuid",
        "type": "text",
        "amount": "numeric",
        "currency": "text",
        "tokens_used": "bigint",
        "unpriced": "boolean",
        "booked_at": "timestamptz",
        "occurred_at": "timestamptz",
        "campaign_id": "uuid",
        "agent_job_id": "uuid",
        "actor": "text",
        "reason": "text",
    },
    erasable="reason",
)

DENIED_HOLDS = Journal(
    "denied_holds",
    {
        "position": "bigint",
        "denied_at": "timestamptz",
        "amount": "numeric",
        "currency": "text",
        "resource_type": "text",
        "model_used": "text",
        "provider": "text",
        "campaign_id": "uuid",
        "agent_job_id": "uuid",
        "scopes": "jsonb",
    },
)

JOURNALS = (COST_POSTINGS, DENIED_HOLDS)


@dataclass
class JournalRows:
    """What a page of events adds to the journals, and the positions of the events whose text it erases."""

    postings: list[CostPosting] = field(default_factory=list)
    denials: list[DeniedHold] = field(default_factory=list)
    erased: list[int] = field(default_factory=list)

    def post(self, event: StoredEvent, payload: EventData, change: AmountChange, entry: BudgetEntryRow | None) -> None:
        """Add the posting of a cost event, if its type moves money.

        Args:
            event: the stored event.
            payload: its decoded data.
            change: what it changed.
            entry: its budget entry after the event.
        """
        posting_type = POSTING_TYPES.get(event.type)
        if posting_type is None:
            return
        assert entry is not None, "a movement of money on an entry that was never opened"
        posting = CostPosting(
            position=event.position,
            entry_id=event.stream_id,
            type=posting_type,
            amount=change.cost,
            currency=entry.currency,
            tokens_used=change.tokens_used,
            unpriced=posting_type in CHARGES and entry.unpriced,
            booked_at=event.recorded_at,
            occurred_at=event.occurred_at,
            campaign_id=event.campaign_id,
            agent_job_id=event.agent_job_id,
            actor=event.actor,
            reason=getattr(payload, "reason", None) or None,
        )
        self.postings.append(posting)

    def deny(self, event: StoredEvent, payload: CostDenied) -> None:
        """Add a denied hold."""
        denial = DeniedHold(
            position=event.position,
            denied_at=event.recorded_at,
            amount=payload.amount,
            currency=payload.currency,
            resource_type=payload.resource_type,
            model_used=payload.model_used,
            provider=payload.provider,
            campaign_id=event.campaign_id,
            agent_job_id=event.agent_job_id,
            scopes=payload.scopes,
        )
        self.denials.append(denial)

    def take_new(self) -> list[bytes]:
        """Return the rows to insert into each journal, as JSON; they are not returned again."""
        taken = [_json(self.postings), _json(self.denials)]
        self.postings, self.denials = [], []
        return taken


def _json(rows: Sequence[msgspec.Struct]) -> bytes:
    return msgspec.json.encode(rows) if rows else b""


async def erase_texts(connection: Connection, rows: JournalRows, schema: str) -> None:
    """Erase the texts of the journals' rows whose events were erased.

    Args:
        connection: inside a transaction, after the new rows were inserted.
        rows: with the positions of the erased events.
        schema: of the tables.
    """
    if not rows.erased:
        return
    for journal in JOURNALS:
        if journal.erasable is not None:
            statement = f"UPDATE {schema}.{journal.name} SET {journal.erasable} = NULL WHERE position = ANY ($1)"  # noqa: S608
            await connection.execute(statement, rows.erased)
