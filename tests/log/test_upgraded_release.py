"""A release with a newer version of a type recognizes earlier retries and folds both versions alike."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger.database import Database
from ledger.domain.campaign import CampaignCreated
from ledger.domain.catalogue import CATALOGUE
from ledger.domain.codec import EventData
from ledger.domain.cost import CostRecorded
from ledger.domain.errors import EventIdConflict
from ledger.domain.event import Receipt, Request
from ledger.domain.event_type import Upcaster
from ledger.domain.fields import Name
from ledger.log.append import Verdict, append
from ledger.log.prepare import prepare
from projections.worker import fold_page
from tests.domain.helpers import upgrade
from tests.events import campaign, cost
from tests.log.helpers import query, record
from tests.projections.helpers import folded, stored, tables

Fields = dict[str, msgspec.Raw]


class RecordedBy(CostRecorded, frozen=True, kw_only=True):
    """A cost with the gateway through which the call went."""

    gateway: Name | None = None


class CreatedFor(CampaignCreated, frozen=True, kw_only=True):
    """A campaign with its client."""

    client: Name


def through_none(fields: Fields) -> Fields:
    return fields | {"gateway": msgspec.Raw(b'"none"')}


def for_ourselves(fields: Fields) -> Fields:
    return fields | {"client": msgspec.Raw(b'"us"')}


async def send(database: Database, sent: dict[str, Any], **more: Any) -> Verdict:
    """Append an event as a client of the newer release sends it."""
    event_type = CATALOGUE[sent["type"]]
    payload = event_type.decoder.decode(json.dumps(sent["data"] | more))
    candidate = prepare(event_type, payload, actor="local", event_id=UUID(sent["id"]))
    async with database.connection() as connection:
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
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    sent: dict[str, Any],
    payload: type[EventData],
    upcaster: Upcaster,
    same: dict[str, Any],
    other: dict[str, Any],
) -> None:
    (first,) = await record(database, sent)
    upgrade(monkeypatch, sent["type"], payload, upcaster)

    (retried,) = await send(database, sent, **same)
    (conflict,) = await send(database, sent, **other)

    assert retried == msgspec.structs.replace(first, duplicate=True)
    assert isinstance(conflict, EventIdConflict)


async def test_a_retry_after_an_upgrade_is_recognized_although_its_text_was_erased(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(database, OPENED)
    await query(database, "UPDATE ledger.events SET text = NULL, text_salt = NULL")
    upgrade(monkeypatch, OPENED["type"], CreatedFor, for_ourselves)

    (retried,) = await send(database, OPENED, client="us")

    assert isinstance(retried, Receipt)
    assert retried.duplicate


async def test_the_tables_fold_old_and_new_versions_alike(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(database, OPENED, SPENT)
    await fold_page(database)
    upgrade(monkeypatch, SPENT["type"], RecordedBy, through_none)
    later = cost("0.5", description="Another")
    await send(database, later, gateway="proxy")

    await fold_page(database)

    versions = "SELECT schema_version FROM ledger.events ORDER BY position"
    assert await query(database, versions) == [(1,), (1,), (2,)]
    assert await query(database, "SELECT cost, description FROM budget_entries ORDER BY position") == [
        (Decimal("2.5"), "A call"),
        (Decimal("0.5"), "Another"),
    ]
    assert await tables(database) == folded(await stored(database))
