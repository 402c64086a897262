"""A release that writes events in a newer version: retries from before are known, and the tables fold both alike."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.database import driver_connection
from ledger.domain.campaign import CampaignCreated
from ledger.domain.catalogue import CATALOGUE, Upcaster
from ledger.domain.codec import EventData, Label
from ledger.domain.cost import CostRecorded
from ledger.domain.errors import EventIdConflict
from ledger.domain.event import Receipt, Request
from ledger.log.append import Verdict, append
from ledger.log.prepare import prepare
from projections.worker import fold_page
from tests.domain.helpers import upgrade
from tests.events import campaign, cost
from tests.log.helpers import query, record
from tests.projections.helpers import folded, stored, tables

Fields = dict[str, msgspec.Raw]


class RecordedBy(CostRecorded, frozen=True, kw_only=True):
    """A cost that says through which gateway it went."""

    gateway: Label | None = None


class CreatedFor(CampaignCreated, frozen=True, kw_only=True):
    """A campaign that says for whom it is."""

    client: Label


def through_none(fields: Fields) -> Fields:
    return fields | {"gateway": msgspec.Raw(b'"none"')}


def for_ourselves(fields: Fields) -> Fields:
    return fields | {"client": msgspec.Raw(b'"us"')}


async def send(engine: AsyncEngine, sent: dict[str, Any], **more: Any) -> Verdict:
    """Send an event as a client of the newer release does."""
    event_type = CATALOGUE[sent["type"]]
    payload = event_type.decoder.decode(json.dumps(sent["data"] | more))
    candidate = prepare(event_type, payload, actor="local", event_id=UUID(sent["id"]))
    async with driver_connection(engine) as connection:
        (verdict,), _ = await append(connection, [Request([candidate])])
    return verdict


OPENED, SPENT = campaign("100", description="For a client"), cost("2.50", description="A call")


@pytest.mark.parametrize(
    ("sent", "payload", "upcaster", "same", "other"),
    [
        (OPENED, CreatedFor, for_ourselves, {"client": "us"}, {"client": "them"}),
        (SPENT, RecordedBy, through_none, {"gateway": "none"}, {"gateway": "proxy"}),
    ],
    ids=["campaign", "cost"],
)
async def test_a_retry_after_an_upgrade_gets_the_first_receipt_and_other_content_is_a_conflict(
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    sent: dict[str, Any],
    payload: type[EventData],
    upcaster: Upcaster,
    same: dict[str, Any],
    other: dict[str, Any],
) -> None:
    (first,) = await record(engine, sent)
    upgrade(monkeypatch, sent["type"], payload, upcaster)

    (again,) = await send(engine, sent, **same)
    (conflict,) = await send(engine, sent, **other)

    assert again == msgspec.structs.replace(first, duplicate=True)
    assert isinstance(conflict, EventIdConflict)


async def test_a_retry_after_an_upgrade_is_known_though_its_text_was_erased(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(engine, OPENED)
    await query(engine, "UPDATE ledger.events SET text = NULL, text_salt = NULL")
    upgrade(monkeypatch, OPENED["type"], CreatedFor, for_ourselves)

    (again,) = await send(engine, OPENED, client="us")

    assert isinstance(again, Receipt)
    assert again.duplicate


async def test_the_tables_fold_old_and_new_versions_alike(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(engine, OPENED, SPENT)
    await fold_page(engine)
    upgrade(monkeypatch, SPENT["type"], RecordedBy, through_none)
    later = cost("0.5", description="Another")
    await send(engine, later, gateway="proxy")

    await fold_page(engine)

    versions = "SELECT schema_version FROM ledger.events ORDER BY position"
    assert await query(engine, versions) == [(1,), (1,), (2,)]
    assert await query(engine, "SELECT cost, description FROM budget_entries ORDER BY position") == [
        (Decimal("2.5"), "A call"),
        (Decimal("0.5"), "Another"),
    ]
    assert await tables(engine) == folded(await stored(engine))
