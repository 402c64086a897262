"""An export proves itself: against a signed checkpoint, and by the ledger's rules; what was changed is found."""

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
from tests.audit.exports import ORIGIN, SIGNER, Signed, checkpoint_of, erased, export_of, line_of, recorded, told_story
from tests.events import campaign, content, cost, follow, job, reserve
from tests.log.helpers import request

TOLD = told_story()
EXPORT = export_of(TOLD)
SIGNED = checkpoint_of(EXPORT)


def verified(export: bytes, signed: Signed) -> VerifiedExport:
    return verify_export(read_lines(io.BytesIO(export)), open_checkpoint(*signed))


def resealed(events: list[Recorded]) -> VerifiedExport:
    """What somebody with the key could sign: only the rules of the ledger are left to find what is wrong."""
    export = export_of(events)
    return verified(export, checkpoint_of(export))


def at(event_type: str, told: list[Recorded] = TOLD) -> int:
    return next(index for index, event in enumerate(told) if event.type == event_type)


def changed(index: int, told: list[Recorded] = TOLD, **values: Any) -> list[Recorded]:
    return [*told[:index], told[index]._replace(**values), *told[index + 1 :]]


def test_a_log_of_every_event_type_is_proved() -> None:
    proved = verified(EXPORT, SIGNED)

    assert (proved.origin, proved.sealed, proved.not_sealed, proved.erased) == (ORIGIN, len(TOLD), 0, 0)
    assert proved.root == SIGNED.note.decode().splitlines()[2]


def test_what_was_spent_and_what_is_held_is_told_by_currency_and_campaign() -> None:
    euros, dollars = campaign("100", currency="EUR"), campaign("50")
    worker = job(euros["id"])
    held, settled, free = reserve("7", campaign_id=euros["id"]), reserve("9"), reserve("4", currency="JPY")
    events = recorded(
        *(euros, dollars, worker, held, settled, free),
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
    ]


def test_erased_texts_are_counted_and_prove_as_before() -> None:
    with_text = [index for index, event in enumerate(TOLD) if event.text is not None]
    export = export_of(erased(event) for event in TOLD)

    proved = verified(export, SIGNED)

    assert len(with_text) > 10
    assert proved.erased == len(with_text)
    assert proved.currencies == verified(EXPORT, SIGNED).currencies


@pytest.mark.parametrize("size", [0, 1, 2, len(TOLD) - 1])
def test_events_past_the_checkpoint_are_said_not_to_be_sealed(size: int) -> None:
    proved = verified(EXPORT, checkpoint_of(EXPORT, size))

    assert (proved.sealed, proved.not_sealed) == (size, len(TOLD) - size)


def test_a_log_longer_than_one_step_of_the_tree_is_proved_and_a_change_at_its_end_found() -> None:
    events = recorded(*(cost("1") for _ in range(4_200)))
    export, sealed = export_of(events), 4_150
    signed = checkpoint_of(export, sealed)
    tampered = export_of(changed(sealed - 1, events, actor="somebody"))

    proved = verified(export, signed)

    assert (proved.sealed, proved.not_sealed) == (sealed, 50)
    with pytest.raises(ExportMismatchError, match="the first 4,150 entries do not give the signed root"):
        verified(tampered, signed)


def test_an_export_that_ends_too_early_is_not_proved() -> None:
    with pytest.raises(
        ExportMismatchError, match=rf"ends at position {len(TOLD) - 1}, before the checkpoint's size of {len(TOLD)}"
    ):
        verified(export_of(TOLD[:-1]), SIGNED)


def test_an_export_that_begins_later_is_not_proved() -> None:
    with pytest.raises(ExportError, match=r"^line 1 \(position 3\): the log begins at position 3, not at 1"):
        verified(export_of(TOLD[2:]), SIGNED)


def test_a_cut_export_is_not_proved() -> None:
    with pytest.raises(ExportError, match=rf"^line {len(TOLD)}: the file ends in the middle of the line"):
        verified(EXPORT[:-2], SIGNED)


@pytest.mark.parametrize(
    ("signed", "said"),
    [
        (checkpoint_of(EXPORT, signer=Signer.generate(ORIGIN)), "but the key given is"),
        (checkpoint_of(EXPORT, signer=Signer.generate("another.example/log")), "but the key given is"),
    ],
)
def test_a_checkpoint_that_another_key_signed_is_refused(signed: Signed, said: str) -> None:
    with pytest.raises(ExportMismatchError, match=said):
        verified(EXPORT, Signed(signed.note, SIGNER.verifier))


def test_a_checkpoint_of_another_log_is_refused() -> None:
    another = checkpoint_of(EXPORT, origin="another.example/log")

    with pytest.raises(
        ExportMismatchError, match=r"is of the log another\.example/log, but the key is of the log ledger\.example/log"
    ):
        verified(EXPORT, another)


def test_a_checkpoint_of_other_events_is_refused() -> None:
    with pytest.raises(ExportMismatchError, match="do not give the signed root"):
        verified(EXPORT, checkpoint_of(export_of(told_story()), len(TOLD)))


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace(b"\n%d\n" % len(TOLD), b"\n%d\n" % (len(TOLD) - 1)),
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


CHANGES: list[tuple[int, dict[str, Any]]] = [
    (7, {"actor": "somebody"}),
    (7, {"id": uuid4()}),
    (7, {"stream_id": uuid4()}),
    (7, {"occurred_at": TOLD[7].occurred_at + timedelta(microseconds=1)}),
    (7, {"recorded_at": TOLD[7].recorded_at + timedelta(microseconds=1)}),
    (7, {"correlation_id": uuid4()}),
    (7, {"causation_id": uuid4()}),
    (7, {"campaign_id": None}),
    (7, {"agent_job_id": uuid4()}),
    (7, {"text_commitment": "ab" * 32}),
    (7, {"text": None, "text_salt": None, "text_commitment": None}),
    (7, {"version": 2}),
    (7, {"position": 9}),
    (7, {"schema_version": 2}),
    (7, {"category": "job"}),
    (7, {"type": "job.queued"}),
    (at("cost.settled"), {"data": '{"cost":"6","tokens_used":9}'}),
    (at("campaign.activated"), {"type": "campaign.archived"}),
]


@pytest.mark.parametrize(
    ("index", "change"), CHANGES, ids=lambda value: next(iter(value), "") if isinstance(value, dict) else ""
)
def test_whatever_is_changed_in_a_line_is_found(index: int, change: dict[str, Any]) -> None:
    assert line_of(TOLD[index]) != line_of(TOLD[index]._replace(**change))

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
def test_lines_left_out_doubled_or_swapped_are_found_with_their_line(forge: Callable[[Any], list[bytes]]) -> None:
    lines = EXPORT.splitlines(keepends=True)

    with pytest.raises(ExportError, match=r"^line 6 \(position [57]\): position [57] comes after [5]"):
        verified(b"".join(forge(lines)), SIGNED)


OPENED, WORKER = campaign("10"), job()
ASKED, SPENT = reserve("6", campaign_id=OPENED["id"]), cost("3", agent_job_id=WORKER["id"])
TOO_MUCH = request(reserve("50", campaign_id=OPENED["id"]))
BOOKS = recorded(
    OPENED, WORKER, ASKED, SPENT, TOO_MUCH, follow(WORKER, "job.started"), content(campaign_id=OPENED["id"])
)
NO_TEXT = {"text": None, "text_salt": None, "text_commitment": None}
ERASED = {"text_commitment": "ab" * 32}
NEW = {"stream_id": uuid4(), "version": 1}
POSITIONS = {event.type: index for index, event in enumerate(BOOKS)}


def appended(opened: str, event_type: str, data: str, **values: Any) -> list[Recorded]:
    """The log, and after it another event of a stream; its text was erased where it must have had one."""
    index = POSITIONS[opened]
    later = {"position": len(BOOKS) + 1, "version": 2, "id": uuid4(), "recorded_at": BOOKS[-1].recorded_at}
    told: dict[str, Any] = {**later, **NO_TEXT, "type": event_type, "data": data, **values}
    return [*BOOKS, BOOKS[index]._replace(**told)]


def edited(event_type: str, **values: Any) -> list[Recorded]:
    return changed(POSITIONS[event_type], BOOKS, **values)


def data_of(event_type: str, old: str, new: str) -> list[Recorded]:
    data = BOOKS[POSITIONS[event_type]].data
    assert old in data
    return edited(event_type, data=data.replace(old, new))


@pytest.mark.parametrize(
    ("line", "said", "events"),
    [
        (7, "position 9 comes after 6: positions have no gaps", changed(6, BOOKS, position=9)),
        (6, "positions have no gaps", edited("job.started", position=7)),
        (6, "has version 3 after 1: versions have no gaps", edited("job.started", version=3)),
        (6, "before its predecessor", edited("job.started", recorded_at=BOOKS[0].recorded_at)),
        (6, "job.unheard_of in schema version 1: upgrade", edited("job.started", type="job.unheard_of")),
        (6, "schema version 2: upgrade this release", edited("job.started", schema_version=2)),
        (6, "is a job event, not one of category 'content'", edited("job.started", category="content")),
        (6, "not possible while pending, only while running", edited("job.started", type="job.completed")),
        (6, "counts for campaign .*, by the events before it for .* None", edited("job.started", campaign_id=uuid4())),
        (6, "cannot be read: .*unknown field", edited("job.started", data='{"a":1}')),
        (3, "14 USD asked for, 10 available", data_of("cost.reserved", '"amount":"6"', '"amount":"14"')),
        (3, "is not written as the ledger writes it", data_of("cost.reserved", '"amount":"6"', '"amount":"6.0"')),
        (3, "does not exist or was deleted", data_of("cost.reserved", OPENED["id"], str(uuid4()))),
        (4, "counts for campaign None and job None", edited("cost.recorded", agent_job_id=None)),
        (4, "must be at least 0", data_of("cost.recorded", '"3"', '"-3"')),
        (5, "counts for campaign None and job None", edited("cost.denied", campaign_id=None)),
        (5, "does not exist or was deleted", data_of("cost.denied", OPENED["id"], str(uuid4()))),
        (1, "is not written as the ledger writes it", edited("campaign.created", **NO_TEXT)),
        (8, "cost of 3 below zero", appended("cost.recorded", "cost.adjusted", '{"amount":"-4"}', **ERASED)),
        (8, "follows on a stream that does not", appended("cost.recorded", "cost.settled", '{"cost":"1"}', **NEW)),
        (8, "not possible while settled", appended("cost.recorded", "cost.released", "{}")),
        (8, "not possible while denied", appended("cost.denied", "cost.settled", '{"cost":"1"}')),
        (8, "has not expired yet", appended("cost.reserved", "cost.expired", "{}")),
        (8, "6 is held on it", appended("campaign.created", "campaign.deleted", "{}")),
    ],
)  # fmt: skip
def test_a_log_that_breaks_the_rules_is_found_even_where_it_was_signed(
    line: int, said: str, events: list[Recorded]
) -> None:
    with pytest.raises(ExportError, match=said) as found:
        resealed(events)

    assert found.value.line == line
    assert re.match(rf"line {line} \(position \d+\): ", str(found.value))


def test_the_log_that_these_are_made_of_keeps_the_rules() -> None:
    proved = resealed(BOOKS)

    assert {currency: (Decimal(b.spent), Decimal(b.held)) for currency, b in proved.currencies.items()} == {
        "USD": (3, 6)
    }
