"""Log entry of an event: exactly one valid form, byte for byte."""

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit.log_entry import Entry, EntryError, commitment, encode_entry, parse_entry
from ledger.domain.catalogue import CATALOGUE
from ledger.keys import NAME_CHARACTERS_MAX
from ledger.log.decode import DATA_BYTES_MAX
from ledger.log.prepare import prepare
from ledger.log.read import StoredEvent

KEYS = (
    "v position category stream_id version id type schema_version occurred_at recorded_at actor campaign_id "
    "agent_job_id correlation_id causation_id data text_commitment"
).split()

EVENT = StoredEvent(
    position=7,
    category="cost",
    stream_id=UUID("0197a000-0000-7000-8000-00000000000A"),
    version=1,
    id=UUID("0197a000-0000-7000-8000-00000000000B"),
    type="cost.recorded",
    schema_version=1,
    occurred_at=datetime(2025, 1, 31, 12, 0, tzinfo=timezone(timedelta(hours=2))),
    recorded_at=datetime(2025, 1, 31, 10, 0, 0, 5, tzinfo=UTC),
    actor="agent-ö/7",
    campaign_id=UUID("0197a000-0000-7000-8000-00000000000C"),
    agent_job_id=None,
    correlation_id=None,
    causation_id=None,
    data='{"amount":"0.000125","model":"caf\\u00e9"}',
    text='{"note":"free"}',
    text_commitment="ab" * 32,
)
# Never change these bytes: existing logs are sealed over entries in this form.
ENTRY = (
    '{"v":1,"position":7,"category":"cost","stream_id":"0197a000-0000-7000-8000-00000000000a","version":1,'
    '"id":"0197a000-0000-7000-8000-00000000000b","type":"cost.recorded","schema_version":1,'
    '"occurred_at":"2025-01-31T10:00:00.000000Z","recorded_at":"2025-01-31T10:00:00.000005Z","actor":"agent-ö/7",'
    '"campaign_id":"0197a000-0000-7000-8000-00000000000c","agent_job_id":null,"correlation_id":null,'
    '"causation_id":null,"data":{"amount":"0.000125","model":"caf\\u00e9"},"text_commitment":"' + "ab" * 32 + '"}'
).encode()


def changed(**values: Any) -> StoredEvent:
    return msgspec.structs.replace(EVENT, **values)


def test_the_largest_data_that_may_be_appended_fit_into_an_entry() -> None:
    some_id, number = UUID(int=2**128 - 1), 2**63 - 1
    largest = changed(
        position=number,
        version=number,
        schema_version=2**15 - 1,
        type=max(CATALOGUE, key=len),
        category="campaign",
        actor="\N{ROCKET}" * NAME_CHARACTERS_MAX,
        campaign_id=some_id,
        agent_job_id=some_id,
        correlation_id=some_id,
        causation_id=some_id,
        data=json.dumps({"a": "x" * (DATA_BYTES_MAX - len('{"a":""}'))}, separators=(",", ":")),
    )

    assert len(largest.data) == DATA_BYTES_MAX
    assert parse_entry(encode_entry(largest)).position == number


def test_an_entry_has_exactly_this_form() -> None:
    assert encode_entry(EVENT) == ENTRY


def test_every_key_is_present_in_order_even_if_its_value_is_empty() -> None:
    entry = json.loads(encode_entry(changed(campaign_id=None, text=None, text_commitment=None)))

    assert list(entry) == KEYS
    assert [key for key in KEYS if entry[key] is None] == [
        "campaign_id",
        "agent_job_id",
        "correlation_id",
        "causation_id",
        "text_commitment",
    ]


def test_an_entry_is_parsed_into_its_fields() -> None:
    entry = parse_entry(ENTRY)

    assert (entry.position, entry.category, entry.actor) == (7, "cost", "agent-ö/7")
    assert (entry.id, entry.campaign_id, entry.agent_job_id) == (EVENT.id, EVENT.campaign_id, None)
    assert entry.occurred_at == "2025-01-31T10:00:00.000000Z"
    assert bytes(entry.data) == EVENT.data.encode()
    assert Entry.__struct_fields__ == tuple(KEYS)


def test_erasing_the_free_text_does_not_change_the_entry() -> None:
    assert encode_entry(changed(text=None)) == ENTRY


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"a":null}',
        '{"a":1e5,"b":1.50,"c":-0,"d":[1,[2,{}]]}',
        '{"a":"\\u00e9\\/\\"\\\\ é","b":"a  b"}',
        '{"b":1,"a":2}',
    ],
)
def test_the_entry_contains_the_data_byte_for_byte(data: str) -> None:
    entry = encode_entry(changed(data=data))

    assert f'"data":{data},"text_commitment"'.encode() in entry
    assert bytes(parse_entry(entry).data) == data.encode()


identities = st.none() | st.uuids()
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(
    st.builds(
        StoredEvent,
        position=st.integers(1, 2**63 - 1),
        category=texts,
        stream_id=st.uuids(),
        version=st.integers(1, 2**63 - 1),
        id=st.uuids(),
        type=texts,
        schema_version=st.integers(1, 2**15 - 1),
        occurred_at=times,
        recorded_at=times,
        actor=texts,
        campaign_id=identities,
        agent_job_id=identities,
        correlation_id=identities,
        causation_id=identities,
        data=st.dictionaries(texts, texts | st.integers(-(10**12), 10**12) | st.none(), max_size=3).map(
            lambda data: msgspec.json.encode(data).decode()
        ),
        text=st.none(),
        text_commitment=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    )
)
def test_every_entry_is_compact_json_and_can_be_parsed(event: StoredEvent) -> None:
    entry = encode_entry(event)

    assert msgspec.json.format(entry, indent=-1) == entry
    assert list(json.loads(entry)) == KEYS
    assert parse_entry(entry).position == event.position


def test_an_entry_has_at_most_65535_bytes() -> None:
    longest = 65_535 - len(encode_entry(changed(actor="")))

    assert len(encode_entry(changed(actor="a" * longest))) == 65_535
    with pytest.raises(EntryError, match="the entry of event 7 has 65536 bytes"):
        encode_entry(changed(actor="a" * (longest + 1)))


def replaced(old: str, new: str) -> bytes:
    assert ENTRY.decode().count(old) == 1
    return ENTRY.replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        ENTRY + b"\n",
        ENTRY + b" ",
        b" " + ENTRY,
        b"\xef\xbb\xbf" + ENTRY,
        ENTRY + ENTRY,
        ENTRY[:-1],
        replaced('"v":1,', ""),
        replaced('"v":1,', '"v":2,'),
        replaced('"v":1,', '"v":true,'),
        replaced('"v":1,', '"v":1,"v":1,'),
        replaced('"v":1,"position":7,', '"position":7,"v":1,'),
        replaced('"v":1,', '"v":1,"w":1,'),
        replaced('"v":1,', '"v": 1,'),
        replaced('"position":7', '"position":07'),
        replaced('"position":7', '"position":7.0'),
        replaced('"position":7', '"position":"7"'),
        replaced('"position":7', '"position":0'),
        replaced('"position":7', '"position":null'),
        replaced('"agent_job_id":null,', ""),
        replaced('"agent_job_id":null', '"agent_job_id":""'),
        replaced("00000000000a", "00000000000A"),
        replaced("0197a000-0000-7000-8000-00000000000a", "0197a00000007000800000000000000a"),
        replaced("agent-ö/7", "agent-\\u00f6/7"),
        replaced("agent-ö/7", "agent-ö\\/7"),
        replaced("10:00:00.000000Z", "10:00:00Z"),
        replaced("10:00:00.000000Z", "10:00:00.000000+00:00"),
        replaced("10:00:00.000000Z", "12:00:00.000000+02:00"),
        replaced("10:00:00.000000Z", "10:00:00.000000"),
        replaced("10:00:00.000000Z", "25:00:00.000000Z"),
        replaced("10:00:00.000005Z", "10:00:00.0000050Z"),
        replaced('"2025-01-31T10:00:00.000005Z"', '"yesterday"'),
        replaced('"2025-01-31T10:00:00.000005Z"', '"0001-01-01T00:00:00.000000+14:00"'),
        replaced('"data":{', '"data": {'),
        replaced('"amount":', '"amount" :'),
        replaced('{"amount":"0.000125","model":"caf\\u00e9"}', "null"),
        replaced('{"amount":"0.000125","model":"caf\\u00e9"}', '["amount"]'),
        replaced('{"amount":"0.000125","model":"caf\\u00e9"}', "[" * 30_000 + "]" * 30_000),
        ENTRY.replace(b"caf", b"caf\xff"),
        ENTRY.replace(b"agent-", b"agent-\xff"),
        ENTRY.replace(b"ab" * 32, b"AB" * 32),
        ENTRY.replace(b"ab" * 32, b"ab" * 31),
        ENTRY.replace(b"ab" * 32, b"ab" * 32 + b"\\n"),
        ENTRY.replace(b'"' + b"ab" * 32 + b'"', b'""'),
        ENTRY.replace(b"agent-", b"a" * 65_535),
    ],
    ids=lambda entry: f"{len(entry)} bytes",
)
def test_an_entry_in_any_other_form_is_refused(entry: bytes) -> None:
    with pytest.raises(EntryError):
        parse_entry(entry)


def test_a_commitment_is_the_hash_of_salt_and_text() -> None:
    assert commitment(b"salt", b"text") == hashlib.sha256(b"salttext").hexdigest()


def test_the_commitment_is_the_one_stored_with_the_event() -> None:
    event_type = CATALOGUE["cost.recorded"]
    payload = event_type.decoder.decode(
        b'{"cost":"1","resource_type":"other","description":"lunch","campaign_id":"0197a000-0000-7000-8000-00000000000c"}'
    )
    candidate = prepare(event_type, payload, actor="agent")

    assert candidate.text is not None
    assert candidate.text_salt is not None
    assert commitment(candidate.text_salt, candidate.text.encode()) == candidate.text_commitment
