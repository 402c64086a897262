"""Upcasters, with invented newer versions: fields renamed, added, moved between data and free text."""

from decimal import Decimal
from typing import Annotated

import msgspec
import pytest

from ledger.domain.catalogue import UnknownEventTypeError, decode_stored, to_newest_version
from ledger.domain.codec import EventData, dump
from ledger.domain.fields import FREE_TEXT, Amount, JsonObject, Name
from tests.domain.helpers import upgrade

Fields = dict[str, msgspec.Raw]

NAME = "job.queued"


class Second(EventData, frozen=True, kw_only=True):
    """`budget` is renamed to `cap`, every job has a `queue`, and `agent_type` is free text."""

    agent_type: Annotated[str, msgspec.Meta(min_length=1, extra=FREE_TEXT)]
    input_data: JsonObject
    cap: Amount | None = None
    queue: Name


class Third(EventData, frozen=True, kw_only=True):
    """`input_data` is renamed to `task`, and `agent_type` is data again."""

    agent_type: Name
    task: JsonObject
    cap: Amount | None = None
    queue: Name


def to_second(fields: Fields) -> Fields:
    if "budget" in fields:
        fields["cap"] = fields.pop("budget")
    return fields | {"queue": msgspec.Raw(b'"default"')}


def to_third(fields: Fields) -> Fields:
    # Both were free text in version 2 and may have been erased.
    if "input_data" in fields:
        fields["task"] = fields.pop("input_data")
    return {"agent_type": msgspec.Raw(b'"unknown"'), **fields}


FIRST_DATA = '{"agent_type":"analyst","budget":"1234567890.0000000001"}'
FIRST_TEXT = '{"input_data":{"n":1.50,"big":1E+30,"nested":[{"a":null}]}}'
TASK = b'{"n":1.50,"big":1E+30,"nested":[{"a":null}]}'


def test_renamed_added_and_moved_fields_are_read_as_the_new_version_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, NAME, Second, to_second)

    payload = decode_stored(NAME, 1, FIRST_DATA, FIRST_TEXT)

    assert isinstance(payload, Second)
    assert (payload.agent_type, payload.queue) == ("analyst", "default")
    assert payload.cap == Decimal("1234567890.0000000001")
    assert bytes(payload.input_data) == TASK


def test_an_event_is_converted_through_every_version_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, NAME, Third, to_second, to_third)

    payload = decode_stored(NAME, 1, FIRST_DATA, FIRST_TEXT)

    assert isinstance(payload, Third)
    assert (payload.agent_type, payload.queue, str(payload.cap)) == ("analyst", "default", "1234567890.0000000001")
    assert bytes(payload.task) == TASK


def test_events_of_all_versions_are_readable_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, NAME, Third, to_second, to_third)
    second = '{"cap":"2","queue":"fast"}', '{"agent_type":"Somebody","input_data":{}}'
    third = '{"agent_type":"Somebody","cap":"2","queue":"fast"}', '{"task":{}}'

    old, new = decode_stored(NAME, 2, *second), decode_stored(NAME, 3, *third)

    assert old == new
    assert to_newest_version(NAME, 2, *second) == third
    assert to_newest_version(NAME, 3, *third) == third


def test_conversion_moves_fields_between_data_and_free_text_and_keeps_their_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upgrade(monkeypatch, NAME, Second, to_second)

    data, text = to_newest_version(NAME, 1, FIRST_DATA, FIRST_TEXT)

    assert data == '{"cap":"1234567890.0000000001","queue":"default"}'
    assert text == f'{{"agent_type":"analyst",{FIRST_TEXT[1:]}'


def test_the_data_of_an_old_event_whose_text_was_erased_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, NAME, Second, to_second)

    payload = decode_stored(NAME, 1, FIRST_DATA, None)

    assert isinstance(payload, Second)
    # `agent_type` was data in version 1, so it was not erased, although it is free text in version 2.
    assert (payload.agent_type, bytes(payload.input_data)) == ("analyst", b"{}")
    assert payload.cap == Decimal("1234567890.0000000001")


def test_the_upcaster_fills_data_that_was_free_text_and_was_erased(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upgrade(monkeypatch, NAME, Third, to_second, to_third)

    payload = decode_stored(NAME, 2, '{"cap":"2","queue":"fast"}', None)

    assert isinstance(payload, Third)
    assert (payload.agent_type, bytes(payload.task)) == ("unknown", b"{}")


def test_a_version_newer_than_this_release_is_still_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, NAME, Second, to_second)

    with pytest.raises(UnknownEventTypeError, match=r"job\.queued in schema version 3"):
        decode_stored(NAME, 3, "{}", None)


def test_an_event_written_in_a_new_version_decodes_to_the_same_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade(monkeypatch, NAME, Third, to_second, to_third)
    written = Third(agent_type="analyst", task=msgspec.Raw(TASK), cap=Decimal("0.1"), queue="fast")

    data, text = dump(written)

    assert text is not None
    assert decode_stored(NAME, 3, data.decode(), text.decode()) == written
