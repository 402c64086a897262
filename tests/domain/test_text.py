"""JSON that PostgreSQL cannot store, and JSON that is meant to overload its reader."""

import json

import msgspec
import pytest

from ledger.domain.codec import InvalidFieldError
from ledger.domain.json_text import check_text
from tests.domain.helpers import written


@pytest.mark.parametrize(
    "body",
    [
        r'{"a":"\u0000"}',
        r'{"a":"before \u0000 after"}',
        r'{"a":[{"b":["\u0000"]}]}',
        r'{"\u0000":1}',
        r'{"a":{"b\u0000":1}}',
        r'{"a":"\\\u0000"}',
        r'{"a":"\u0000","a":"the last one counts"}',
    ],
)
def test_nul_is_refused_anywhere(body: str) -> None:
    with pytest.raises(InvalidFieldError, match="NUL"):
        check_text(body.encode())


@pytest.mark.parametrize("body", [r'{"a":"\\u0000"}', r'{"a":"\u00300"}', '{"a":"0"}'])
def test_text_similar_to_an_escaped_nul_is_accepted(body: str) -> None:
    check_text(body.encode())

    assert written("job.completed", b'{"output_data":%s}' % body.encode())[1] == f'{{"output_data":{body}}}'


@pytest.mark.parametrize(
    "body", [r'{"a":"\ud800"}', r'{"a":"\udc00"}', r'{"a":"\ud800\u0041"}', r'{"a":"\udc00\ud800"}', r'{"\ud800":1}']
)
def test_a_lone_surrogate_is_refused(body: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        check_text(body.encode())


def test_a_pair_of_surrogates_is_one_character() -> None:
    body = rb'{"error_message":"\ud83d\ude00"}'
    check_text(body)

    assert written("job.failed", body) == ("{}", '{"error_message":"😀"}')


@pytest.mark.parametrize("broken", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_invalid_utf_8_is_refused(broken: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        check_text(b'{"a":"%s"}' % broken)


@pytest.mark.parametrize("control", [b"\x00", b"\x01", b"\n", b"\x1f"])
def test_a_raw_control_character_is_refused(control: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        written("job.completed", b'{"output_data":{"a":"%s"}}' % control)
    with pytest.raises(msgspec.DecodeError):
        written("job.failed", b'{"error_message":"%s"}' % control)


NESTINGS = [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ('{"]}[{\\"":[', "]}")]


@pytest.mark.parametrize(("start", "end"), NESTINGS)
def test_a_hundred_levels_of_nesting_are_accepted(start: str, end: str) -> None:
    times = 100 // len(end)
    value = start * times + "1" + end * times

    check_text(value.encode())
    json.loads(value)


@pytest.mark.parametrize("depth", [101, 10_000, 1_000_000])
@pytest.mark.parametrize(("start", "end"), NESTINGS)
def test_deeper_nesting_is_refused(start: str, end: str, depth: int) -> None:
    times = -(-depth // len(end))

    with pytest.raises(RecursionError, match="deeper than 100"):
        check_text((start * times + "1" + end * times).encode())


def test_an_object_nested_ninety_nine_levels_deep_is_stored_unchanged() -> None:
    nested = '{"a":' * 98 + "{}" + "}" * 98
    sent = f'{{"output_data":{nested}}}'
    check_text(sent.encode())

    assert written("job.completed", sent.encode()) == ("{}", sent)


@pytest.mark.parametrize("body", ['"' + "[" * 500 + '"', '["\\"' + "{" * 500 + '"]', "[" + "[]," * 500 + "[]]"])
def test_brackets_in_texts_and_side_by_side_do_not_count_as_nesting(body: str) -> None:
    json.loads(body)

    check_text(body.encode())


@pytest.mark.parametrize("digits", [999, 1_000, 4_300])
def test_long_integers_are_stored_unchanged(digits: int) -> None:
    sent = f'{{"output_data":{{"n":{"9" * digits}}}}}'
    check_text(sent.encode())

    assert written("job.completed", sent.encode()) == ("{}", sent)


@pytest.mark.parametrize("digits", [4_301, 100_000, 1_000_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_that_json_readers_do_not_support_are_refused(sign: str, digits: int) -> None:
    with pytest.raises(msgspec.DecodeError):
        check_text(b'{"a":%s%s}' % (sign.encode(), b"9" * digits))


@pytest.mark.parametrize("number", ["0." + "9" * 100_000, "1e" + "9" * 100_000, "1." + "0" * 100_000 + "e-5"])
def test_other_long_numbers_are_accepted(number: str) -> None:
    sent = f'{{"output_data":{{"n":{number}}}}}'
    check_text(sent.encode())

    assert written("job.completed", sent.encode()) == ("{}", sent)
