"""The canonical bytes that are stored, hashed and exported; times, and JSON objects."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.catalogue import CATALOGUE, UnknownEventTypeError, decode_stored
from ledger.domain.codec import InvalidFieldError, merge, time_text, utc
from ledger.domain.fields import Instant
from ledger.domain.json_text import check_text
from tests.domain.helpers import DATA, read, shape_error, written

UPPER, LOWER = "0198F2A0-0000-7ABC-8000-00000000000A", "0198f2a0-0000-7abc-8000-00000000000a"

# Type, data as sent, stored data, stored free text. Never change these: auditors hash the bytes.
GOLDEN = [
    (
        "campaign.created",
        '{"end_date":"2025-02-01T00:00:00+02:00", "start_date" : "2025-01-31", "currency":"EUR","budget":2500.00,'
        '"description":"l\\u00e9ger","name":"A \\"name\\""}',
        '{"budget":"2500","currency":"EUR","start_date":"2025-01-31T00:00:00.000000Z",'
        '"end_date":"2025-01-31T22:00:00.000000Z"}',
        '{"name":"A \\"name\\"","description":"léger"}',
    ),
    ("campaign.details_changed", '{"name":"B"}', "{}", '{"name":"B"}'),
    ("campaign.budget_changed", '{"reason":"more","budget":"1e3"}', '{"budget":"1000"}', '{"reason":"more"}'),
    (
        "campaign.metrics_recorded",
        '{"revenue":0.50,"clicks":3,"impressions":1000000000000}',
        '{"impressions":1000000000000,"clicks":3,"revenue":"0.5"}',
        None,
    ),
    (
        "content.created",
        '{"metadata":{ "b" : [1.0, 1e3, {}], "a":"\\u00e9" },"content_type":"blog","content":"","title":"T",'
        f'"agent_job_id":"{UPPER}","campaign_id":"{UPPER.replace("-", "")}"}}',
        f'{{"content_type":"blog","campaign_id":"{LOWER}","agent_job_id":"{LOWER}"}}',
        '{"title":"T","content":"","metadata":{"b":[1.0,1e3,{}],"a":"\\u00e9"}}',
    ),
    ("content.revised", '{"content":"text"}', "{}", '{"content":"text"}'),
    ("content.assigned", '{"campaign_id":null}', '{"campaign_id":null}', None),
    ("content.assigned", f'{{"campaign_id":"{UPPER}"}}', f'{{"campaign_id":"{LOWER}"}}', None),
    (
        "job.queued",
        '{"max_retries":3,"currency":"EUR","budget":"0.10","input_data":{"x": 0.10},"agent_type":"analyst"}',
        '{"agent_type":"analyst","budget":"0.1","currency":"EUR","max_retries":3}',
        '{"input_data":{"x":0.10}}',
    ),
    ("job.started", "{}", "{}", None),
    ("job.progressed", '{"message":"half","progress":0.50}', '{"progress":"0.5"}', '{"message":"half"}'),
    ("job.completed", '{"output_data":{}}', "{}", '{"output_data":{}}'),
    ("job.failed", '{"error_message":"it\\nbroke"}', "{}", '{"error_message":"it\\nbroke"}'),
    (
        "cost.recorded",
        f'{{"campaign_id":"{UPPER}","agent_job_id":"{UPPER}","description":"d","provider":"p","model_used":"m",'
        '"tokens_used":7,"currency":"USD","cost":0.000125,"resource_type":"openai_api"}',
        '{"resource_type":"openai_api","cost":"0.000125","currency":"USD","tokens_used":7,"model_used":"m",'
        f'"provider":"p","agent_job_id":"{LOWER}","campaign_id":"{LOWER}"}}',
        '{"description":"d"}',
    ),
    (
        "cost.reserved",
        '{"expires_in":60,"amount":"5.0","resource_type":"media","model_used":"m"}',
        '{"resource_type":"media","amount":"5","expires_in":60,"model_used":"m"}',
        None,
    ),
    ("cost.settled", '{"tokens_used":0,"cost":"-0.0"}', '{"cost":"0","tokens_used":0}', None),
    ("cost.released", '{"reason":"gone"}', "{}", '{"reason":"gone"}'),
    (
        "cost.adjusted",
        '{"reason":"twice","tokens_used":-5,"amount":-1.50}',
        '{"amount":"-1.5","tokens_used":-5}',
        '{"reason":"twice"}',
    ),
]


@pytest.mark.parametrize(("name", "sent", "data", "text"), GOLDEN)
def test_data_and_free_text_have_one_canonical_form(name: str, sent: str, data: str, text: str | None) -> None:
    assert written(name, sent.encode()) == (data, text)


@pytest.mark.parametrize(("name", "sent", "data", "text"), GOLDEN)
def test_data_and_free_text_merge_into_what_was_sent(name: str, sent: str, data: str, text: str | None) -> None:
    merged = merge(data.encode(), text.encode() if text else None)

    assert json.loads(merged).keys() == json.loads(sent).keys()
    assert written(name, merged) == (data, text)
    assert decode_stored(name, 1, data, text) == read(name, sent.encode())


@pytest.mark.parametrize("name", sorted(name for name, kind in CATALOGUE.items() if not kind.by_service))
def test_absent_optional_fields_are_omitted(name: str) -> None:
    least = DATA[name]

    data, text = written(name, least)

    defaults = {
        "campaign.created": {"currency"},
        "cost.reserved": {"expires_in"},
        "price.published": {"service_tier", "currency", "per"},
    }.get(name, set())
    assert json.loads(data).keys() | json.loads(text or "{}").keys() == least.keys() | defaults
    assert text != "{}"


def test_an_unknown_type_or_newer_schema_version_is_refused() -> None:
    with pytest.raises(UnknownEventTypeError, match=r"cost\.recorded in schema version 2"):
        decode_stored("cost.recorded", 2, '{"resource_type":"other","cost":"1"}', None)
    with pytest.raises(UnknownEventTypeError, match=r"cost\.refunded"):
        decode_stored("cost.refunded", 1, "{}", None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=4), st.sampled_from([None, 1, 4, "\t"]), st.booleans())
def test_only_white_space_of_a_json_object_changes(
    value: dict[str, Any], indent: int | str | None, is_ascii: bool
) -> None:
    sent = json.dumps({"output_data": value}, indent=indent, ensure_ascii=is_ascii)

    _, text = written("job.completed", sent.encode())

    assert text == json.dumps({"output_data": value}, separators=(",", ":"), ensure_ascii=is_ascii)


@pytest.mark.parametrize("number", ["1.0", "1.00", "1e3", "1E+3", "-0", "-0.0", "0.1e-7", "1" * 400, "0." + "1" * 5000])
def test_numbers_in_a_json_object_keep_their_text(number: str) -> None:
    sent = b'{"output_data":{"n":%s}}' % number.encode()
    check_text(sent)

    assert written("job.completed", sent) == ("{}", sent.decode())


@pytest.mark.parametrize(
    "broken", ['{"a":NaN}', '{"a":Infinity}', '{"a":01}', '{"a":1,}', '{"a":"\n"}', '{"a":"\\x"}', "{a:1}", '{"a":1']
)
def test_an_object_that_is_not_valid_json_is_refused(broken: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        read("job.completed", b'{"output_data":%s}' % broken.encode())


TIMES = [
    ("2025-01-31", "2025-01-31T00:00:00.000000Z"),
    ("2024-02-29", "2024-02-29T00:00:00.000000Z"),
    ("0001-01-02", "0001-01-02T00:00:00.000000Z"),
    ("0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00.000001Z"),
    ("9999-12-31", "9999-12-31T00:00:00.000000Z"),
    ("2025-01-31T10:00:00Z", "2025-01-31T10:00:00.000000Z"),
    ("2025-01-31T10:00:00.5Z", "2025-01-31T10:00:00.500000Z"),
    ("2025-01-31T10:00:00.123456+00:00", "2025-01-31T10:00:00.123456Z"),
    ("2025-01-01T01:30:00+05:30", "2024-12-31T20:00:00.000000Z"),
    ("0001-01-01T00:00:00-05:00", "0001-01-01T05:00:00.000000Z"),
    ("9999-12-31T23:59:59.999998Z", "9999-12-31T23:59:59.999998Z"),
]

NO_TIMES = [
    "2025-01-31T10:00:00",
    "2025-01-31T10:00:00.5",
    "2025-02-29",
    "2025-13-01",
    "0000-01-01",
    "20250131",
    "2025-1-31",
    "2025-01-31T24:00:00Z",
    "2025-01-31T10:00Z",
    "2016-12-31T23:59:60Z",
    "2025-W05-5",
    "tomorrow",
    "",
    1738281600,
    True,
    {},
]

OUTSIDE_THE_CALENDAR = ["0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"]


@pytest.mark.parametrize(("sent", "stored"), TIMES)
def test_times_are_stored_in_utc_with_microseconds(sent: str, stored: str) -> None:
    data, _ = written("campaign.details_changed", {"start_date": sent})

    assert data == f'{{"start_date":"{stored}"}}'


@pytest.mark.parametrize("sent", NO_TIMES)
def test_a_value_that_is_neither_a_time_with_zone_nor_a_date_is_refused(sent: Any) -> None:
    assert "$.start_date" in shape_error("campaign.details_changed", {"start_date": sent})


@pytest.mark.parametrize("sent", OUTSIDE_THE_CALENDAR)
def test_a_time_outside_the_calendar_in_utc_is_refused(sent: str) -> None:
    assert "outside the calendar" in shape_error("campaign.details_changed", {"end_date": sent})
    with pytest.raises(InvalidFieldError, match="outside the calendar"):
        utc("occurred_at", datetime.fromisoformat(sent))


@pytest.mark.parametrize("sent", ["0001-01-01", "0001-01-01T01:00:00+01:00", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_last_instant_are_refused_since_postgresql_would_store_infinity(sent: str) -> None:
    assert "first or last instant of the calendar" in shape_error("campaign.details_changed", {"end_date": sent})


@pytest.mark.parametrize("sent", ["2025-01-31", "2025-01-31T10:00:00", 1738281600, "", None])
def test_occurred_at_needs_a_time_zone_and_cannot_be_a_date(sent: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(sent), type=Instant)


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)),  # noqa: DTZ001
    st.integers(-1439, 1439),
)
def test_every_time_is_stored_as_the_same_instant(local: datetime, offset_minutes: int) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))

    stored = time_text(utc("occurred_at", moment))

    assert datetime.fromisoformat(stored) == moment
    assert len(stored) == len("2025-01-31T10:00:00.123456Z")
    assert utc("occurred_at", moment).tzinfo is UTC
