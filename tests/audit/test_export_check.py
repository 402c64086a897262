"""Offline verification of an export by a checkpoint and the ledger's rules detects every change."""

import io
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from ledger.audit.export_check import (
    CampaignBalance,
    ExportMismatchError,
    VerifiedExport,
    open_checkpoint,
    verify_export,
)
from ledger.audit.export_lines import ExportError, read_lines
from ledger.audit.note import Signer
from ledger.domain.event import Recorded
from tests.audit.exports import (
    ORIGIN,
    SIGNER,
    Signed,
    checkpoint_of,
    erased,
    export_of,
    line_of,
    recorded,
    recorded_story,
    with_erasures,
)
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import request

STORY = recorded_story()
EXPORT = export_of(STORY)
SIGNED = checkpoint_of(EXPORT)


def verified(export: bytes, signed: Signed, *, is_partial: bool = False) -> VerifiedExport:
    return verify_export(read_lines(io.BytesIO(export)), open_checkpoint(*signed), is_partial=is_partial)


def resealed(events: list[Recorded]) -> VerifiedExport:
    """Verify events with a checkpoint signed for them, so that only the ledger's rules can detect what is wrong."""
    export = export_of(events)
    return verified(export, checkpoint_of(export))


def at(event_type: str, events: list[Recorded] = STORY) -> int:
    return next(index for index, event in enumerate(events) if event.type == event_type)


def changed(index: int, events: list[Recorded] = STORY, **values: Any) -> list[Recorded]:
    return [*events[:index], events[index]._replace(**values), *events[index + 1 :]]


def test_a_log_with_every_event_type_is_verified() -> None:
    proved = verified(EXPORT, SIGNED)

    assert (proved.origin, proved.sealed, proved.not_sealed, proved.erased) == (ORIGIN, len(STORY), 0, 0)
    assert proved.root == SIGNED.note.decode().splitlines()[2]


def test_spent_and_held_amounts_are_reported_by_currency_and_campaign() -> None:
    euros, dollars, unlimited = campaign("100", currency="EUR"), campaign("50"), campaign(None)
    worker = job(euros["id"])
    held, settled, free = reserve("7", campaign_id=euros["id"]), reserve("9"), reserve("4", currency="JPY")
    events = recorded(
        *(euros, dollars, unlimited, worker, held, settled, free),
        cost("2.50", agent_job_id=worker["id"]),
        cost("1", campaign_id=dollars["id"]),
        spent := cost("10", currency="CHF"),
        follow(spent, "cost.adjusted", {"amount": "-0.75", "reason": "Too much"}),
        follow(settled, "cost.settled", {"cost": "11"}),
        follow(free, "cost.settled", {"cost": "3"}),
    )

    proved = resealed(events)

    balances = {currency: (balance.spent, balance.held) for currency, balance in proved.currencies.items()}
    assert balances == {"CHF": ("9.25", "0"), "EUR": ("2.5", "7"), "JPY": ("3", "0"), "USD": ("12", "0")}
    assert proved.campaigns == [
        CampaignBalance(UUID(euros["id"]), "draft", "EUR", "100", "2.5", "7"),
        CampaignBalance(UUID(dollars["id"]), "draft", "USD", "50", "1", "0"),
        CampaignBalance(UUID(unlimited["id"]), "draft", "USD", None, "0", "0"),
    ]


WITH_TEXT = [index for index, event in enumerate(STORY) if event.text is not None]


def test_texts_whose_erasure_is_recorded_are_counted_and_the_export_still_verifies() -> None:
    events = with_erasures(STORY, *WITH_TEXT)
    erased_reason = with_erasures(events, len(STORY))

    proved, again = verified(export_of(events), SIGNED), resealed(erased_reason)

    assert len(WITH_TEXT) > 10
    assert (proved.erased, proved.missing_texts) == (len(WITH_TEXT), 0)
    assert (again.erased, again.missing_texts) == (len(WITH_TEXT) + 1, 0)
    assert proved.currencies == verified(EXPORT, SIGNED).currencies


def test_an_export_whose_texts_were_removed_fails() -> None:
    export = export_of(erased(event) for event in STORY)
    message = rf"the free text of {len(WITH_TEXT)} events is missing \(first: position {WITH_TEXT[0] + 1}\), but no "

    with pytest.raises(ExportMismatchError, match=message):
        verified(export, SIGNED)


def test_an_export_that_ends_before_the_record_of_an_erasure_verifies_as_a_partial_one() -> None:
    export = export_of(with_erasures(STORY, *WITH_TEXT[:2])[:-1])

    with pytest.raises(ExportMismatchError, match=r"or it ends too early; .* --partial"):
        verified(export, SIGNED)
    proved = verified(export, SIGNED, is_partial=True)

    assert (proved.erased, proved.missing_texts) == (1, 1)


@pytest.mark.parametrize(
    "forge",
    [
        lambda erasure: erasure._replace(data=erasure.data.replace('"position":1,', '"position":2,')),
        lambda erasure: erasure._replace(data=erasure.data.replace("campaign.created", "campaign.paused")),
        lambda erasure: erasure._replace(stream_id=uuid4()),
    ],
    ids=["position", "type", "stream"],
)
def test_the_record_of_an_erasure_names_an_event_that_has_lost_its_text(forge: Callable[[Recorded], Recorded]) -> None:
    *before, erasure = with_erasures(STORY, 0)

    with pytest.raises(ExportError, match="but no such event has lost its text") as found:
        resealed([*before, forge(erasure)])

    assert found.value.position == erasure.position


def test_a_text_cannot_be_erased_twice() -> None:
    log = with_erasures(STORY, 0)
    again = log[-1]._replace(position=len(log) + 1, version=2, id=uuid4())

    with pytest.raises(ExportError, match="but no such event has lost its text"):
        resealed([*log, again])


@pytest.mark.parametrize("size", [0, 1, 2, len(STORY) - 1])
def test_events_after_the_checkpoint_are_reported_as_not_sealed(size: int) -> None:
    proved = verified(EXPORT, checkpoint_of(EXPORT, size))

    assert (proved.sealed, proved.not_sealed) == (size, len(STORY) - size)


def test_a_log_longer_than_a_chunk_is_verified_and_a_change_at_its_end_detected() -> None:
    events = recorded(*(cost("1") for _ in range(4_200)))
    export, sealed = export_of(events), 4_150
    signed = checkpoint_of(export, sealed)
    tampered = export_of(changed(sealed - 1, events, actor="somebody"))

    proved = verified(export, signed)

    assert (proved.sealed, proved.not_sealed) == (sealed, 50)
    with pytest.raises(ExportMismatchError, match="the first 4,150 entries do not give the signed root"):
        verified(tampered, signed)


def test_an_export_that_ends_too_early_fails() -> None:
    message = rf"ends at position {len(STORY) - 1}, before the checkpoint's size of {len(STORY)}"

    with pytest.raises(ExportMismatchError, match=message):
        verified(export_of(STORY[:-1]), SIGNED)


def test_an_export_that_starts_too_late_fails() -> None:
    with pytest.raises(ExportError, match=r"^line 1 \(position 3\): the log starts at position 3, not at 1"):
        verified(export_of(STORY[2:]), SIGNED)


def test_a_truncated_export_fails() -> None:
    with pytest.raises(ExportError, match=rf"^line {len(STORY)}: the file ends in the middle of the line"):
        verified(EXPORT[:-2], SIGNED)


@pytest.mark.parametrize(
    ("signed", "message"),
    [
        (checkpoint_of(EXPORT, signer=Signer.generate(ORIGIN)), "but the key given is"),
        (checkpoint_of(EXPORT, signer=Signer.generate("another.example/log")), "but the key given is"),
    ],
)
def test_a_checkpoint_signed_by_another_key_is_refused(signed: Signed, message: str) -> None:
    with pytest.raises(ExportMismatchError, match=message):
        verified(EXPORT, Signed(signed.note, SIGNER.verifier))


def test_a_checkpoint_of_another_log_is_refused() -> None:
    another = checkpoint_of(EXPORT, origin="another.example/log")

    with pytest.raises(
        ExportMismatchError, match=r"is of the log another\.example/log, but the key is of the log ledger\.example/log"
    ):
        verified(EXPORT, another)


def test_a_checkpoint_of_other_events_is_refused() -> None:
    with pytest.raises(ExportMismatchError, match="do not give the signed root"):
        verified(EXPORT, checkpoint_of(export_of(recorded_story()), len(STORY)))


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace(b"\n%d\n" % len(STORY), b"\n%d\n" % (len(STORY) - 1)),
        lambda note: note.replace(b"ledger.example/log", b"ledger.example/lag", 1),
        lambda note: note[:-10] + b"AAAAAAAA=\n",
        lambda note: b"",
        lambda note: b"\xff",
        lambda note: note.partition(b"\n\n")[0],
    ],
)
def test_a_changed_checkpoint_is_refused(change: Callable[[bytes], bytes]) -> None:
    assert change(SIGNED.note) != SIGNED.note

    with pytest.raises(ExportMismatchError, match=r"^the checkpoint: "):
        verified(EXPORT, Signed(change(SIGNED.note), SIGNED.verifier))


CREATED = at("content.created")

CHANGES: list[tuple[int, dict[str, Any]]] = [
    (CREATED, {"actor": "somebody"}),
    (CREATED, {"id": uuid4()}),
    (CREATED, {"stream_id": uuid4()}),
    (CREATED, {"occurred_at": STORY[CREATED].occurred_at + timedelta(microseconds=1)}),
    (CREATED, {"recorded_at": STORY[CREATED].recorded_at + timedelta(microseconds=1)}),
    (CREATED, {"correlation_id": uuid4()}),
    (CREATED, {"causation_id": uuid4()}),
    (CREATED, {"campaign_id": None}),
    (CREATED, {"agent_job_id": uuid4()}),
    (CREATED, {"text_commitment": "ab" * 32}),
    (CREATED, {"text": None, "text_salt": None, "text_commitment": None}),
    (CREATED, {"version": 2}),
    (CREATED, {"position": STORY[CREATED].position + 1}),
    (CREATED, {"schema_version": 2}),
    (CREATED, {"category": "job"}),
    (CREATED, {"type": "job.queued"}),
    (at("cost.settled"), {"data": '{"cost":"6","tokens_used":9}'}),
    (at("campaign.activated"), {"type": "campaign.archived"}),
]


@pytest.mark.parametrize(
    ("index", "change"), CHANGES, ids=lambda value: next(iter(value), "") if isinstance(value, dict) else ""
)
def test_any_change_in_a_line_is_detected(index: int, change: dict[str, Any]) -> None:
    assert line_of(STORY[index]) != line_of(STORY[index]._replace(**change))

    with pytest.raises((ExportError, ExportMismatchError)):
        verified(export_of(changed(index, **change)), SIGNED)


@pytest.mark.parametrize(
    "forge",
    [
        lambda lines: [*lines[:5], *lines[6:]],
        lambda lines: [*lines[:5], lines[4], *lines[5:]],
        lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
    ],
)
def test_missing_repeated_and_swapped_lines_are_reported_with_their_number(forge: Callable[[Any], list[bytes]]) -> None:
    lines = EXPORT.splitlines(keepends=True)

    with pytest.raises(ExportError, match=r"^line 6 \(position [57]\): position [57] follows [5]"):
        verified(b"".join(forge(lines)), SIGNED)


OPENED, WORKER = campaign("10"), job()
HELD, SPENT = reserve("6", campaign_id=OPENED["id"]), cost("3", agent_job_id=WORKER["id"])
TOO_MUCH = request(reserve("50", campaign_id=OPENED["id"]))
LOG = recorded(OPENED, WORKER, HELD, SPENT, TOO_MUCH, follow(WORKER, "job.started"), content(campaign_id=OPENED["id"]))
NO_TEXT = {"text": None, "text_salt": None, "text_commitment": None}
ERASED = {"text_commitment": "ab" * 32}
NEW = {"stream_id": uuid4(), "version": 1}
POSITIONS = {event.type: index for index, event in enumerate(LOG)}


def appended(opened: str, event_type: str, data: str, **values: Any) -> list[Recorded]:
    """Return the log with one more event in a stream; `ERASED` as values gives it an erased text."""
    index = POSITIONS[opened]
    later = {"position": len(LOG) + 1, "version": 2, "schema_version": 1, "id": uuid4()}
    fields: dict[str, Any] = {
        **later,
        **NO_TEXT,
        "recorded_at": LOG[-1].recorded_at,
        "type": event_type,
        "data": data,
        **values,
    }
    return [*LOG, LOG[index]._replace(**fields)]


def edited(event_type: str, **values: Any) -> list[Recorded]:
    return changed(POSITIONS[event_type], LOG, **values)


def data_of(event_type: str, old: str, new: str) -> list[Recorded]:
    data = LOG[POSITIONS[event_type]].data
    assert old in data
    return edited(event_type, data=data.replace(old, new))


@pytest.mark.parametrize(
    ("line", "message", "events"),
    [
        (7, "position 9 follows 6: positions must have no gaps", changed(6, LOG, position=9)),
        (6, "positions must have no gaps", edited("job.started", position=7)),
        (6, "version 3 follows 1: versions must have no gaps", edited("job.started", version=3)),
        (6, "before the previous event", edited("job.started", recorded_at=LOG[0].recorded_at)),
        (6, "job.unheard_of in schema version 1: upgrade", edited("job.started", type="job.unheard_of")),
        (6, "schema version 2: upgrade this release", edited("job.started", schema_version=2)),
        (6, "is an event type of category 'job', not of 'content'", edited("job.started", category="content")),
        (6, "not possible in status pending, only in running", edited("job.started", type="job.progressed")),
        (6, "counts for campaign .*, but by the events before .* None", edited("job.started", campaign_id=uuid4())),
        (6, "cannot be read: .*unknown field", edited("job.started", data='{"a":1}')),
        (3, "requested 14 USD, but only 10 ", data_of("cost.reserved", '"amount":"6"', '"amount":"14"')),
        (3, "is not in the canonical form", data_of("cost.reserved", '"amount":"6"', '"amount":"6.0"')),
        (3, "does not exist or was deleted", data_of("cost.reserved", OPENED["id"], str(uuid4()))),
        (4, "counts for campaign None and job None", edited("cost.recorded", agent_job_id=None)),
        (4, "must be at least 0", data_of("cost.recorded", '"3"', '"-3"')),
        (5, "counts for campaign None and job None", edited("cost.denied", campaign_id=None)),
        (5, "does not exist or was deleted", data_of("cost.denied", OPENED["id"], str(uuid4()))),
        (1, "is not in the canonical form", edited("campaign.created", **NO_TEXT)),
        (8, "cost of 3 negative", appended("cost.recorded", "cost.adjusted", '{"amount":"-4"}', **ERASED)),
        (8, "needs an existing stream", appended("cost.recorded", "cost.settled", '{"cost":"1"}', **NEW)),
        (8, "not possible in status settled", appended("cost.recorded", "cost.released", "{}")),
        (8, "not possible in status denied", appended("cost.denied", "cost.settled", '{"cost":"1"}')),
        (8, "has not expired yet", appended("cost.reserved", "cost.expired", "{}")),
        (8, "6 is held", appended("campaign.created", "campaign.deleted", "{}")),
    ],
)  # fmt: skip
def test_a_signed_log_that_breaks_the_rules_fails(line: int, message: str, events: list[Recorded]) -> None:
    with pytest.raises(ExportError, match=message) as found:
        resealed(events)

    assert found.value.line == line
    assert re.match(rf"line {line} \(position \d+\): ", str(found.value))


def test_the_unchanged_log_follows_the_rules() -> None:
    proved = resealed(LOG)

    assert list(proved.currencies) == ["USD"]
    assert (Decimal(proved.currencies["USD"].spent), Decimal(proved.currencies["USD"].held)) == (3, 6)
