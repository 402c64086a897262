"""Events that must not be appended: repeated members, money strings, blank names; all faults named."""

import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.access import LOCAL
from ledger.domain.errors import InvalidEvent, Malformed
from ledger.domain.event import Candidate
from ledger.domain.json_text import check_text
from ledger.domain.usage import COUNTERS
from ledger.log import decode, event_faults, new_event_rules
from ledger.log.decode import read_candidate
from ledger.log.new_event import EVENT_STRUCTS
from ledger.log.submit import decode_each
from tests.domain.helpers import DATA, stream_of
from tests.domain.json_spelling import OBJECTS, spelling
from tests.events import campaign, content, cost, event, follow, job, reserve

JOB = '{"type":"job.queued","data":{"agent_type":"analyst","input_data":%s}}'
STARTED = '{"stream_id":"3f2b0c9e-5a1d-4c7e-9b1a-0c5d2e7f8a90",%s}'
INVISIBLE = ("\u200b", "\ufeff", "\u180e\u202e", "\u115f", "\u3164 \u2800", "\x01\x7f", " \u2028\u00ad")
COST = '{"type":"cost.recorded","data":{"resource_type":"other","cost":%s}}'


def read(body: str | dict[str, Any]) -> Candidate:
    """Decode an event."""
    return read_candidate((body if isinstance(body, str) else json.dumps(body)).encode(), 0, "local", None)


def sizes_of(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[int]:
    """Return a list to which every call of a function adds the length of its first argument."""
    sizes: list[int] = []
    function = getattr(module, name)

    def measured(text: str | bytes, *arguments: Any) -> Any:
        sizes.append(len(text))
        return function(text, *arguments)

    monkeypatch.setattr(module, name, measured)
    return sizes


def faults(body: str | dict[str, Any]) -> list[tuple[str, str]]:
    """Return path and message of each fault of an event, which must have some."""
    with pytest.raises(InvalidEvent) as refused:
        read(body)
    return [(error["path"], error["message"]) for error in refused.value.errors]


def paths(body: str | dict[str, Any]) -> list[str]:
    """Return the paths of the faults of an event."""
    return [path for path, _ in faults(body)]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('{"type":"cost.recorded","data":{"resource_type":"other","cost":1,"cost":2}}', "$.data.cost"),
        ('{"type":"cost.recorded","data":{"resource_type":"other","cost":"1","c\\u006fst":"1"}}', "$.data.cost"),
        ('{"type":"job.started","type":"cost.recorded","data":{"resource_type":"other","cost":1}}', "$.type"),
        ('{"type":"cost.recorded","data":{},"data":{"resource_type":"other","cost":1}}', "$.data"),
        (STARTED % '"type":"job.started","type":"job.started"', "$.type"),
        (STARTED % '"type":"job.started","data":{},"data":{}', "$.data"),
        ('{"type":"cost.reserved","data":{"resource_type":"other","amount":1,"amount":1}}', "$.data.amount"),
        ('{"id":null,"id":null,"type":"cost.recorded","data":{"resource_type":"other","cost":1}}', "$.id"),
        (JOB % '{"a":1,"b":2,"a":1}', "$.data.input_data.a"),
        (JOB % '{"a":[0,{"b" : {}, "c":1,\n"b"\t:[]}]}', "$.data.input_data.a[1].b"),
        (JOB % r'{"a":"\u0022:\u0022","\u0061":1}', "$.data.input_data.a"),
        (JOB % '{"":1,"":2}', "$.data.input_data."),
    ],
)
def test_a_member_that_is_named_twice_is_refused_at_any_depth(body: str, path: str) -> None:
    assert faults(body) == [(path, "the object names this member more than once")]


@pytest.mark.parametrize("name", EVENT_STRUCTS)
@given(data=st.data())
def test_an_event_is_refused_exactly_if_it_names_a_member_twice(name: str, data: st.DataObject) -> None:
    envelope = {"occurred_at": "2025-01-01T00:00:00+01:00", "correlation_id": None, "expected_version": 0}
    members = {"type": name, "stream_id": str(stream_of(event(name, DATA[name]))), "data": DATA[name], **envelope}
    for absent in data.draw(st.sets(st.sampled_from(["occurred_at", "correlation_id", "expected_version"]))):
        del members[absent]
    if not DATA[name] and data.draw(st.booleans()):
        del members["data"]
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))

    def written(value: dict[str, Any], twice: str | None) -> str:
        parts = [json.dumps({member: value[member]}, separators=separators)[1:-1] for member in value]
        again = [json.dumps({twice: value[twice]}, separators=separators)[1:-1]] if twice else []
        return f"{{{separators[0].join([*parts, *again])}}}"

    twice = data.draw(st.sampled_from([None, *members]))
    assert read(written(members, None))
    if twice is not None:
        assert paths(written(members, twice)) == [f"$.{twice}"]
    for field in members.get("data", {}):
        inner = written(members["data"], field)
        body = written({**members, "data": "DATA"}, None).replace('"DATA"', inner)
        assert paths(body) == [f"$.data.{field}"]


@given(data=st.data(), value=OBJECTS)
def test_an_object_is_refused_exactly_if_it_names_a_member_twice(data: st.DataObject, value: dict[str, Any]) -> None:
    text = spelling(data.draw, value)
    name = data.draw(st.sampled_from([*value, "a name of its own"]))
    more = f"{spelling(data.draw, name)}:{spelling(data.draw, data.draw(OBJECTS))}"

    assert read(JOB % text)
    for twice in (
        f'{{"x":[{text[:-1]}{"," * bool(value)}{more}}}]}}',
        f'{{"x":{{{more}{"," * bool(value)}{text[1:]}}}',
    ):
        if name in value:
            assert len(faults(JOB % twice)) == 1
        else:
            assert read(JOB % twice)


@pytest.mark.parametrize(
    "text", ['"\\u0022"', '"\\\\u0022"', '"\\\\\\u0022:"', '"a\\":\\"b"', '"é\\u00e9"', '"\\/"', "1e400"]
)
def test_texts_with_quotes_are_not_taken_for_members(text: str) -> None:
    assert read(JOB % f'{{"a":{text},{text if text[0] == chr(34) else chr(34) + chr(34)}:[{text}]}}')


@pytest.mark.parametrize(
    "text", ["1_0", "_1", "1.", ".5", " 7 ", "7\\n", "+1", "١٢", "01", "00", "1e", "0x1", "", "-", "NaN"]
)
def test_a_money_string_must_be_written_as_a_json_number(text: str) -> None:
    assert paths(COST % f'"{text}"') == ["$.data.cost"]


@pytest.mark.parametrize("text", ["0", "-0", "10", "0.000125", "1e2", "1E+2", "12.50e-1"])
def test_money_may_be_a_string_or_a_number(text: str) -> None:
    assert read(COST % f'"{text}"').data == read(COST % text).data


def test_stored_amounts_are_read_in_any_form() -> None:
    assert str(read(cost("10")).event_type.decoder.decode(b'{"resource_type":"other","cost":"1_0"}').cost) == "10"  # type: ignore[attr-defined]


@pytest.mark.parametrize("blank", [" ", "   ", "\t\n", "\N{NO-BREAK SPACE}\N{EM SPACE}", *INVISIBLE])
@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (campaign(), "name"),
        (follow(campaign(), "campaign.details_changed"), "name"),
        (content(), "title"),
        (follow(content(), "content.revised"), "title"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value["type"]),
)
def test_a_name_or_title_must_not_be_blank(sent: dict[str, Any], field: str, blank: str) -> None:
    assert faults({**sent, "data": {**sent["data"], field: blank}}) == [(f"$.data.{field}", "must not be blank")]


@pytest.mark.parametrize("name", ["x", "\u200b!", "\u05d0", "\u0301a", "\U0001f469\u200d\U0001f4bb", "\ue000"])
def test_a_name_with_a_visible_character_is_not_blank(name: str) -> None:
    assert read(campaign(name=name)).payload.name == name  # type: ignore[attr-defined]


def test_a_stored_name_may_be_blank() -> None:
    stored = b'{"name":"  ","budget":"1","start_date":"2025-01-01T00:00:00.000000Z"}'

    assert read(campaign()).event_type.decoder.decode(stored).name == "  "  # type: ignore[attr-defined]


def test_every_fault_of_an_event_is_named() -> None:
    sent = event(
        "cost.reserved", {"amount": "0", "currency": "usd", "tokens": 1, "expires_in": "1"}, stream_id="x", kost=1
    )

    assert sorted(faults(sent)) == [
        ("$.data.currency", "Expected `str` matching regex '^[A-Z]{3}$'"),
        ("$.data.expires_in", "Expected `int | null`, got `str`"),
        ("$.data.resource_type", "Object missing required field `resource_type`"),
        ("$.data.tokens", "Object contains unknown field `tokens`"),
        ("$.kost", "Object contains unknown field `kost`"),
        ("$.stream_id", "Invalid UUID"),
    ]


def test_a_rule_for_several_fields_is_checked_if_each_is_valid() -> None:
    assert paths(campaign(end_date="2024-12-31")) == ["$.data.end_date"]
    assert paths({**campaign(end_date="2024-12-31"), "id": 1}) == ["$.id", "$.data.end_date"]


def test_the_faults_of_an_unknown_type_are_those_of_its_envelope() -> None:
    assert paths({"type": "no.such", "id": 1, "data": {"a": 1}}) == ["$.type", "$.id"]
    assert paths({"id": 1}) == ["$.type", "$.id"]


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (content(title="a\0b"), "$.data.title"),
        (job(input_data={"a": [{"b": "\0"}]}), "$.data.input_data.a[0].b"),
        (job(input_data={"a\0": 1}), "$.data.input_data.a\\u0000"),
        ({**cost(), "correlation_id": "\0"}, "$.correlation_id"),
        (content(title="\ud800"), "$.data.title"),
        (content(metadata={"a": {"\udfff": 1}}), "$.data.metadata.a.\\udfff"),
    ],
)
def test_the_path_of_a_faulty_text_is_that_of_its_field(sent: dict[str, Any], path: str) -> None:
    assert paths(sent) == [path]


def test_an_integer_that_json_readers_refuse_is_named() -> None:
    assert faults(JOB % f'{{"a":[{"9" * 4_301}]}}') == [
        ("$.data.input_data.a[0]", "an integer must have at most 4,300 digits")
    ]


def test_faults_of_the_text_and_of_fields_are_named_together() -> None:
    assert paths(content(title="\0", content_type="a poem", metadata=[])) == [
        "$.data.title",
        "$.data.content_type",
        "$.data.metadata",
    ]


def test_at_most_twenty_faults_are_named() -> None:
    assert len(faults(cost(**{f"x{number}": 1 for number in range(100)}))) == event_faults.FAULTS_MAX == 20


def test_an_amount_is_not_taken_for_the_member_of_an_object() -> None:
    body = JOB % '{"budget":1},"budget":"1_0"'

    assert paths(body) == ["$.data.budget"]


def test_of_a_large_event_the_first_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    explained = sizes_of(monkeypatch, decode, "faults_of")
    body = COST % '"1_0","x":1'

    assert len(faults(body.ljust(64 * 1024))) == 2
    assert faults(body.ljust(64 * 1024 + 1)) == [("$.data", "Object contains unknown field `x`")]
    assert paths((COST % '"-1"').ljust(64 * 1024 + 1)) == ["$.data.cost"]
    assert explained == [64 * 1024]


def test_of_many_refused_events_the_first_mebibyte_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    explained = sizes_of(monkeypatch, decode, "faults_of")
    text = (COST % '"1_0","x":1').ljust(50_000).encode()

    refused = list(decode_each([text] * 100, LOCAL))

    assert [len(error.errors) for error in refused if isinstance(error, InvalidEvent)] == [2] * 21 + [1] * 79
    assert sum(explained) <= 1024 * 1024 + 64 * 1024


def test_an_event_has_at_most_200000_values() -> None:
    assert read(JOB % f'{{"a":[0{",0" * 199_990}]}}')
    assert faults(JOB % f'{{"a":[0{",0" * 200_000}]}}') == [("$", "an event must have at most 200,000 values")]
    assert faults(JOB % f'{{"a":[""{",{}" * 100_000}]}}') == [("$", "an event must have at most 200,000 values")]


@pytest.mark.parametrize("text", ["," * 500_000, '[{\\"' * 100_000])
def test_commas_and_brackets_inside_a_text_are_not_values(text: str) -> None:
    assert read(JOB % f'{{"a":"{text}"}}')


def test_a_stored_event_may_have_more_values() -> None:
    check_text(b'{"a":[0%b]}' % (b",0" * 200_000))


def test_an_object_that_cannot_name_a_member_twice_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = sizes_of(monkeypatch, new_event_rules, "repeats_member")

    assert read(JOB % f'{{"a":[0{",0" * 100_000}]}}')
    assert decoded == []
    assert read(JOB % '{"a":1,"b":2}')
    assert decoded == [len('{"a":1,"b":2}')]


@pytest.mark.parametrize("body", ['{"type":5,}', '{"type":"cost.recorded","data":NaN}', "{", "[1", '{"a":"\\q"}'])
def test_what_is_not_json_is_malformed(body: str) -> None:
    with pytest.raises(Malformed):
        read(body)


LONG = "\x01" * 255
"""Six bytes a character."""

LARGEST = {
    "provider": LONG,
    "model_used": LONG,
    "response_id": LONG,
    "labels": {f"{number:a>63}": LONG for number in range(16)},
    "usage": dict.fromkeys(COUNTERS, 0) | {"input_tokens": 10**12, "output_tokens": 10**12, "seconds": 10**12},
}


@pytest.mark.parametrize("sent", [cost("9999999999.999999999999999999", **LARGEST), reserve("1", **LARGEST)])
def test_the_largest_costs_fit_into_an_entry(sent: dict[str, Any]) -> None:
    assert 20_000 < len(read(sent).data) < decode.DATA_BYTES_MAX


@pytest.mark.parametrize("character", ["x", "\N{ROCKET}"])
def test_an_event_whose_entry_would_be_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, character: str) -> None:
    sent = cost(provider=character * 100, description="Free text does not count")
    size = len(read(sent).data.encode())

    monkeypatch.setattr(decode, "DATA_BYTES_MAX", size)
    read(sent)
    monkeypatch.setattr(decode, "DATA_BYTES_MAX", size - 1)

    refusal = f"has {size} bytes without its free text; at most {size - 1} are allowed"
    assert faults(sent) == [("$.data", refusal)]
