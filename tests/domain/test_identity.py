"""What makes two sendings the same event, and what the second is answered."""

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.errors import EventIdConflict
from ledger.domain.event import Receipt
from tests.domain.helpers import Desk, Sent, candidate, later, stream_in, stream_of, unknown
from tests.events import campaign, content, cost, event, job, reserve

# Not by chance: test ids are made of it, and every worker must collect the same tests.
SOMEONE, ANOTHER = "3f2b0c9e-5a1d-4c7e-9b1a-0c5d2e7f8a90", unknown()
NOON, NOON_IN_ROME, ONE = "2025-01-01T12:00:00Z", "2025-01-01T13:00:00+01:00", "2025-01-01T13:00:00Z"


def with_data(sent: Sent, **data: Any) -> Sent:
    return {**sent, "data": {**sent["data"], **data}}


@pytest.mark.parametrize("expected_version", [None, 0, 1, 2, 99])
def test_the_same_event_again_gets_its_receipt_again_whatever_version_it_expects(expected_version: int | None) -> None:
    desk = Desk()
    charged = cost()
    first = desk.accept(charged)
    desk.accept(later(charged, "adjusted"))
    before = desk.snapshot()

    again = desk.accept({**charged, "expected_version": expected_version})

    assert again == Receipt(first.id, first.stream_id, 1, 1, duplicate=True)
    assert desk.snapshot() == before


@pytest.mark.parametrize(
    ("noun", "status", "verb"),
    [
        ("campaign", "paused", "activated"),
        ("content", "review", "rejected"),
        ("job", "running", "failed"),
        ("cost", "held", "settled"),
    ],
)
def test_a_later_event_again_gets_its_receipt_although_its_status_has_passed(noun: str, status: str, verb: str) -> None:
    desk = Desk()
    sent = later(stream_in(desk, noun, status), verb)
    first = desk.accept(sent)

    again = desk.accept(sent)

    assert (again.version, again.position, again.duplicate) == (first.version, first.position, True)


def test_an_event_of_a_stream_that_was_deleted_since_gets_its_receipt_again() -> None:
    desk = Desk()
    opened = stream_in(desk, "campaign", "deleted")

    again = desk.accept(opened)

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
        (content(metadata={"a": [1, 2]}), {}),
    ],
    ids=lambda value: str(value.get("type", value)),
)
def test_content_is_the_same_however_it_is_spelt(sent: Sent, again: dict[str, Any]) -> None:
    desk = Desk()
    desk.accept({**campaign(), "id": SOMEONE}, sent)
    spelt = with_data(sent, **again)

    receipt = desk.accept({**spelt, "data": dict(reversed(spelt["data"].items()))})

    assert receipt.duplicate


@pytest.mark.parametrize(
    ("sent", "other"),
    [
        (cost("1"), {"cost": "1.0000000001"}),
        (cost(description="a"), {"description": "b"}),
        (cost(description="a"), {"description": None}),
        (cost(), {"description": "b"}),
        (cost(), {"currency": "USD"}),
        (reserve(), {"expires_in": 901}),
        (campaign(), {"currency": "EUR"}),
        (campaign(), {"name": "Another name"}),
        (content(metadata={"a": 1}), {"metadata": {"a": 2}}),
        (content(metadata={"a": 1}), {"metadata": {"a": 1.0}}),
        (job(), {"input_data": {"a": 1}}),
    ],
    ids=lambda value: str(value.get("type", value)),
)
def test_other_content_under_the_same_id_is_a_conflict(sent: Sent, other: dict[str, Any]) -> None:
    desk = Desk()
    desk.accept(sent)
    before = desk.snapshot()

    refusal = desk.refuse(with_data(sent, **other))

    assert isinstance(refusal, EventIdConflict)
    assert "at position 1" in refusal.detail
    assert desk.snapshot() == before


def test_another_type_under_the_same_id_is_a_conflict() -> None:
    desk = Desk()
    opened = stream_in(desk, "campaign", "draft")
    activated = later(opened, "activated")
    desk.accept(activated)

    refusal = desk.refuse({**activated, "type": "campaign.paused"})

    assert isinstance(refusal, EventIdConflict)


def test_the_same_id_in_another_stream_is_another_event() -> None:
    desk = Desk()
    charged = cost()
    desk.accept(charged)

    receipt = desk.accept(with_data({**charged, "stream_id": unknown()}, cost="2"))

    assert (receipt.duplicate, receipt.version, receipt.position) == (False, 1, 2)


def test_the_same_id_and_stream_in_another_category_is_another_event() -> None:
    desk = Desk()
    charged = cost()
    desk.accept(charged)

    receipt = desk.accept({**job(), "id": charged["id"]})

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
def test_times_and_causes_count_only_where_they_are_sent(first: Sent, second: Sent, is_same: bool) -> None:
    desk = Desk()
    charged = cost()
    desk.accept({**charged, **first})

    verdict = desk.send({**charged, **second})

    assert isinstance(verdict, Receipt if is_same else EventIdConflict)


def test_the_time_of_recording_is_when_an_event_occurred_that_does_not_say() -> None:
    desk = Desk()
    charged = cost()
    desk.accept(charged)
    desk.pass_seconds(60)

    receipt = desk.accept({**charged, "occurred_at": NOON})

    assert receipt.duplicate


def test_an_event_twice_in_one_batch_is_recorded_once() -> None:
    desk = Desk()
    charged = {**cost(), "expected_version": 0}

    first, second = desk.batch(charged, charged)

    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.position == second.position == len(desk.working_state.events) == 1


def test_one_id_with_two_contents_in_one_batch_refuses_the_batch() -> None:
    desk = Desk()
    charged = cost()
    before = desk.snapshot()

    (refusal,) = desk.batch(cost(), charged, with_data(charged, cost="2"))

    assert isinstance(refusal, EventIdConflict)
    assert refusal.index == 2
    assert desk.snapshot() == before


def test_a_batch_sent_again_is_answered_with_the_same_receipts() -> None:
    desk = Desk()
    owner = campaign()
    batch = [owner, later(owner, "activated"), cost(campaign_id=owner["id"])]
    first = desk.batch(*batch)

    again = desk.batch(*batch)

    for was, repeated in zip(first, again, strict=True):
        assert isinstance(was, Receipt)
        assert repeated == Receipt(was.id, was.stream_id, was.version, was.position, duplicate=True)
    assert desk.working_state.position == 3


def test_an_event_of_a_refused_batch_is_not_known_afterwards() -> None:
    desk = Desk()
    charged = cost()
    desk.batch(charged, cost(campaign_id=unknown()))

    receipt = desk.accept(with_data(charged, cost="2"))

    assert (receipt.duplicate, receipt.position) == (False, 1)


def test_a_refused_event_is_judged_anew_when_it_is_sent_again() -> None:
    desk = Desk()
    owner = campaign()
    charged = cost(campaign_id=owner["id"])
    desk.refuse(charged)
    desk.accept(owner)

    receipt = desk.accept(charged)

    assert (receipt.duplicate, receipt.position) == (False, 2)


def test_the_receipt_of_a_duplicate_still_says_that_the_event_went_over_budget() -> None:
    desk = Desk()
    owner = stream_in(desk, "campaign", "active", budget="1")
    charged = cost("2", campaign_id=owner["id"])
    first = desk.accept(charged)
    desk.accept(later(owner, "budget_changed", budget="10"))

    again = desk.accept(charged)

    assert first.over_budget == again.over_budget == ["campaign"]
    assert again.duplicate


def test_erased_text_no_longer_tells_a_repeat_from_a_conflict_but_data_does() -> None:
    desk = Desk()
    charged = cost(description="a name that was erased")
    desk.accept(charged)
    identity = candidate(charged).identity
    desk.working_state.identities[identity] = desk.working_state.identities[identity]._replace(text=None, erased=True)

    receipt = desk.accept(charged)
    refusal = desk.refuse(with_data(charged, cost="2"))

    assert receipt.duplicate
    assert isinstance(refusal, EventIdConflict)


def test_an_event_that_opens_a_stream_without_naming_one_opens_its_own() -> None:
    desk = Desk()
    opened = event("job.queued", job()["data"])

    receipt = desk.accept(opened)

    assert receipt.stream_id == receipt.id == UUID(opened["id"])
