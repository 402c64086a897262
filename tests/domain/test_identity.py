"""Identity: duplicates get the first receipt, and different content with the same id is a conflict."""

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.errors import EventIdConflict
from ledger.domain.event import Receipt
from tests.domain.helpers import MemoryLedger, Sent, candidate, later, stream_in, stream_of, unknown
from tests.events import campaign, content, cost, event, job, reserve

# Not random: it is part of test ids, and every worker must collect the same tests.
SOMEONE, ANOTHER = "3f2b0c9e-5a1d-4c7e-9b1a-0c5d2e7f8a90", unknown()
NOON, NOON_IN_ROME, ONE = "2025-01-01T12:00:00Z", "2025-01-01T13:00:00+01:00", "2025-01-01T13:00:00Z"


def with_data(sent: Sent, **data: Any) -> Sent:
    return {**sent, "data": {**sent["data"], **data}}


@pytest.mark.parametrize("expected_version", [None, 0, 1, 2, 99])
def test_a_duplicate_gets_the_first_receipt_whatever_version_it_expects(expected_version: int | None) -> None:
    ledger = MemoryLedger()
    charged = cost()
    first = ledger.accept(charged)
    ledger.accept(later(charged, "adjusted"))
    before = ledger.snapshot()

    again = ledger.accept({**charged, "expected_version": expected_version})

    assert again == Receipt(first.id, first.stream_id, 1, 1, duplicate=True)
    assert ledger.snapshot() == before


@pytest.mark.parametrize(
    ("noun", "status", "verb"),
    [
        ("campaign", "paused", "activated"),
        ("content", "review", "rejected"),
        ("job", "running", "failed"),
        ("cost", "held", "settled"),
    ],
)
def test_a_duplicate_gets_the_first_receipt_after_the_status_has_changed(noun: str, status: str, verb: str) -> None:
    ledger = MemoryLedger()
    sent = later(stream_in(ledger, noun, status), verb)
    first = ledger.accept(sent)

    again = ledger.accept(sent)

    assert (again.version, again.position, again.duplicate) == (first.version, first.position, True)


def test_a_duplicate_gets_the_first_receipt_after_the_stream_was_deleted() -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "campaign", "deleted")

    again = ledger.accept(opened)

    assert (again.version, again.duplicate) == (1, True)


@pytest.mark.parametrize(
    ("sent", "again"),
    [
        (cost("1.5"), {"cost": "1.50"}),
        (cost("1.5"), {"cost": 1.5}),
        (cost("1500"), {"cost": "1.5e3"}),
        (cost(), {"description": None}),
        (cost(campaign_id=SOMEONE), {"campaign_id": SOMEONE.upper()}),
        (reserve(), {"expires_in": 900}),
        (campaign(), {"currency": "USD"}),
        (campaign(), {"start_date": "2025-01-01T01:00:00+01:00"}),
        (content(metadata={"a": [1, 2], "b": "é"}), {"metadata": {"b": "é", "a": [1.0, 2e0]}}),
        (cost(), {"currency": "USD"}),
        (job(), {"currency": "USD"}),
        (job(currency="USD"), {"currency": None}),
    ],
    ids=lambda value: str(value.get("type", value)),
)
def test_content_is_the_same_in_any_spelling(sent: Sent, again: dict[str, Any]) -> None:
    ledger = MemoryLedger()
    ledger.accept({**campaign(), "id": SOMEONE}, sent)
    spelt = with_data(sent, **again)

    receipt = ledger.accept({**spelt, "data": dict(reversed(spelt["data"].items()))})

    assert receipt.duplicate


@pytest.mark.parametrize(
    ("sent", "other"),
    [
        (cost("1"), {"cost": "1.0000000001"}),
        (cost(description="a"), {"description": "b"}),
        (cost(description="a"), {"description": None}),
        (cost(), {"description": "b"}),
        (cost(), {"currency": "EUR"}),
        (cost(campaign_id=SOMEONE), {"campaign_id": None}),
        (reserve(), {"expires_in": 901}),
        (campaign(), {"currency": "EUR"}),
        (campaign(), {"name": "Another name"}),
        (content(metadata={"a": 1}), {"metadata": {"a": 2}}),
        (content(metadata={"a": 1}), {"metadata": {"a": True}}),
        (content(metadata={"a": 1}), {"metadata": {"a": "1"}}),
        (content(), {"metadata": {}}),
        (job(), {"input_data": {"a": 1}}),
    ],
    ids=lambda value: str(value.get("type", value)),
)
def test_different_content_with_the_same_id_is_a_conflict(sent: Sent, other: dict[str, Any]) -> None:
    ledger = MemoryLedger()
    ledger.accept({**campaign(), "id": SOMEONE}, sent)
    before = ledger.snapshot()

    refusal = ledger.refuse(with_data(sent, **other))

    assert isinstance(refusal, EventIdConflict)
    assert "at position 2" in refusal.detail
    assert ledger.snapshot() == before


@pytest.mark.parametrize(
    ("opened", "field"),
    [
        (cost(), "campaign_id"),
        (cost(), "currency"),
        (reserve(), "campaign_id"),
        (reserve(), "currency"),
        (content(), "campaign_id"),
    ],
    ids=lambda value: str(value["type"]) if isinstance(value, dict) else value,
)
def test_naming_what_is_inherited_from_the_job_does_not_change_the_content(opened: Sent, field: str) -> None:
    ledger = MemoryLedger()
    owner = campaign(currency="EUR")
    working = job(owner["id"])
    inheriting = with_data(opened, agent_job_id=working["id"])
    naming = with_data(inheriting, **{field: owner["id"] if field == "campaign_id" else "EUR"})
    other = with_data(inheriting, **{field: SOMEONE if field == "campaign_id" else "USD"})
    for first, second in ((inheriting, naming), (naming, inheriting)):
        new_id = {"id": unknown()}
        ledger.accept(owner, working, {**first, **new_id})

        receipt = ledger.accept({**second, **new_id})
        refusal = ledger.refuse({**other, **new_id})

        assert receipt.duplicate
        assert isinstance(refusal, EventIdConflict)


def test_a_campaign_that_would_not_be_inherited_changes_the_content() -> None:
    ledger = MemoryLedger()
    owner, working = campaign(), job()
    charged = cost(campaign_id=owner["id"], agent_job_id=working["id"])
    ledger.accept(owner, working, charged)

    refusal = ledger.refuse(with_data(charged, campaign_id=None))

    assert isinstance(refusal, EventIdConflict)


def test_a_different_type_with_the_same_id_is_a_conflict() -> None:
    ledger = MemoryLedger()
    opened = stream_in(ledger, "campaign", "draft")
    activated = later(opened, "activated")
    ledger.accept(activated)

    refusal = ledger.refuse({**activated, "type": "campaign.paused"})

    assert isinstance(refusal, EventIdConflict)


def test_the_same_id_in_another_stream_is_another_event() -> None:
    ledger = MemoryLedger()
    charged = cost()
    ledger.accept(charged)

    receipt = ledger.accept(with_data({**charged, "stream_id": unknown()}, cost="2"))

    assert (receipt.duplicate, receipt.version, receipt.position) == (False, 1, 2)


def test_the_same_id_and_stream_in_another_category_is_another_event() -> None:
    ledger = MemoryLedger()
    charged = cost()
    ledger.accept(charged)

    receipt = ledger.accept({**job(), "id": charged["id"]})

    assert (receipt.id, receipt.duplicate, receipt.version) == (stream_of(charged), False, 1)


ENVELOPES = [
    ({"occurred_at": NOON}, {}, True),
    ({"occurred_at": NOON}, {"occurred_at": NOON_IN_ROME}, True),
    ({"occurred_at": NOON}, {"occurred_at": ONE}, False),
    ({}, {"occurred_at": ONE}, False),
    ({"correlation_id": SOMEONE}, {}, True),
    ({"correlation_id": SOMEONE}, {"correlation_id": SOMEONE}, True),
    ({"correlation_id": SOMEONE}, {"correlation_id": ANOTHER}, False),
    ({}, {"correlation_id": SOMEONE}, False),
    ({"causation_id": SOMEONE}, {}, True),
    ({"causation_id": SOMEONE}, {"causation_id": SOMEONE}, True),
    ({"causation_id": SOMEONE}, {"causation_id": ANOTHER}, False),
    ({}, {"causation_id": SOMEONE}, False),
]


@pytest.mark.parametrize(("first", "second", "is_same"), ENVELOPES)
def test_times_and_causes_are_compared_only_if_they_are_sent(first: Sent, second: Sent, is_same: bool) -> None:
    ledger = MemoryLedger()
    charged = cost()
    ledger.accept({**charged, **first})

    verdict = ledger.send({**charged, **second})

    assert isinstance(verdict, Receipt if is_same else EventIdConflict)


def test_occurred_at_defaults_to_the_time_of_recording() -> None:
    ledger = MemoryLedger()
    charged = cost()
    ledger.accept(charged)
    ledger.pass_seconds(60)

    receipt = ledger.accept({**charged, "occurred_at": NOON})

    assert receipt.duplicate


def test_an_event_sent_twice_in_one_batch_is_recorded_once() -> None:
    ledger = MemoryLedger()
    charged = {**cost(), "expected_version": 0}

    first, second = ledger.batch(charged, charged)

    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.position == second.position == len(ledger.working_state.events) == 1


def test_one_id_with_different_content_in_one_batch_refuses_the_batch() -> None:
    ledger = MemoryLedger()
    charged = cost()
    before = ledger.snapshot()

    (refusal,) = ledger.batch(cost(), charged, with_data(charged, cost="2"))

    assert isinstance(refusal, EventIdConflict)
    assert refusal.index == 2
    assert ledger.snapshot() == before


def test_a_batch_sent_again_gets_the_same_receipts() -> None:
    ledger = MemoryLedger()
    owner = campaign()
    batch = [owner, later(owner, "activated"), cost(campaign_id=owner["id"])]
    first = ledger.batch(*batch)

    again = ledger.batch(*batch)

    for was, repeated in zip(first, again, strict=True):
        assert isinstance(was, Receipt)
        assert repeated == Receipt(was.id, was.stream_id, was.version, was.position, duplicate=True)
    assert ledger.working_state.position == 3


def test_an_event_of_a_refused_batch_is_no_duplicate_later() -> None:
    ledger = MemoryLedger()
    charged = cost()
    ledger.batch(charged, cost(campaign_id=unknown()))

    receipt = ledger.accept(with_data(charged, cost="2"))

    assert (receipt.duplicate, receipt.position) == (False, 1)


def test_a_refused_event_is_judged_again_when_it_is_sent_again() -> None:
    ledger = MemoryLedger()
    owner = campaign()
    charged = cost(campaign_id=owner["id"])
    ledger.refuse(charged)
    ledger.accept(owner)

    receipt = ledger.accept(charged)

    assert (receipt.duplicate, receipt.position) == (False, 2)


def test_the_receipt_of_a_duplicate_still_has_over_budget() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active", budget="1")
    charged = cost("2", campaign_id=owner["id"])
    first = ledger.accept(charged)
    ledger.accept(later(owner, "budget_changed", budget="10"))

    again = ledger.accept(charged)

    assert first.over_budget == again.over_budget == ["campaign"]
    assert again.duplicate


def test_erased_text_is_not_compared_but_data_still_is() -> None:
    ledger = MemoryLedger()
    charged = cost(description="a name that was erased")
    ledger.accept(charged)
    identity = candidate(charged).identity
    recorded = ledger.working_state.recorded_identity(identity)
    ledger.working_state.identities[identity] = recorded._replace(text=None, erased=True)

    receipt = ledger.accept(charged)
    refusal = ledger.refuse(with_data(charged, cost="2"))

    assert receipt.duplicate
    assert isinstance(refusal, EventIdConflict)


def test_a_first_event_without_stream_id_opens_a_stream_with_its_own_id() -> None:
    ledger = MemoryLedger()
    opened = event("job.queued", job()["data"])

    receipt = ledger.accept(opened)

    assert receipt.stream_id == receipt.id == UUID(opened["id"])
