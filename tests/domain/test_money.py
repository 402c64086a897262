"""Exact money: amounts are read from their text, and rounded once to 18 decimals."""

import json
import re
from decimal import Decimal, Inexact, InvalidOperation
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.domain import money
from tests.domain.helpers import read, shape_error, written

LARGEST = Decimal("9999999999.999999999999999999")
amounts = st.decimals(min_value=0, max_value=LARGEST, places=18)
signed_amounts = st.decimals(min_value=-LARGEST, max_value=LARGEST, places=18)


@st.composite
def spellings(draw: st.DrawFn, of: st.SearchStrategy[Decimal] = amounts) -> tuple[Decimal, str]:
    """Draw an amount, and one of its many spellings as a JSON number."""
    amount = draw(of)
    sign, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)
    shift = draw(st.integers(-12, 12))
    mantissa = format(Decimal((sign, digits, exponent - shift)), "f")
    zeros = "0" * draw(st.integers(0, 12)) if "." in mantissa else ""
    exponents = [f"e{shift}", f"E{shift:+}"] + ([""] if shift == 0 else [])
    return amount, mantissa + zeros + draw(st.sampled_from(exponents))


def charged(cost: str) -> bytes:
    """Make the data of a recorded cost with this JSON text as its amount."""
    return b'{"resource_type":"other","cost":%s}' % cost.encode()


@given(spellings())
@settings(max_examples=500)
def test_an_amount_is_read_exactly_in_any_spelling(spelling: tuple[Decimal, str]) -> None:
    amount, text = spelling

    as_number = written("cost.recorded", charged(text))
    as_string = written("cost.recorded", charged(f'"{text}"'))

    stored = json.loads(as_number[0])["cost"]
    assert as_number == as_string
    assert Decimal(stored) == amount
    assert re.fullmatch(r"(0|[1-9][0-9]{0,9})(\.[0-9]{0,17}[1-9])?", stored)


@given(spellings(signed_amounts))
def test_a_signed_amount_is_read_exactly_too(spelling: tuple[Decimal, str]) -> None:
    amount, text = spelling

    stored = json.loads(written("cost.adjusted", b'{"amount":%s,"reason":"r"}' % text.encode())[0])["amount"]

    assert Decimal(stored) == amount
    assert re.fullmatch(r"0|-?(0|[1-9][0-9]{0,9})(\.[0-9]{0,17}[1-9])?", stored)


@given(amounts)
def test_a_stored_amount_is_written_again_as_the_same_bytes(amount: Decimal) -> None:
    stored, _ = written("cost.recorded", charged(f'"{amount}"'))

    assert written("cost.recorded", stored.encode())[0] == stored


@given(signed_amounts)
def test_the_canonical_amount_equals_the_amount_and_is_canonical(amount: Decimal) -> None:
    canonical = money.canonical(amount)

    assert canonical == amount
    assert money.canonical(canonical).as_tuple() == canonical.as_tuple()
    assert Decimal(money.plain(canonical)) == amount


@given(st.integers(0, 10**10 - 2), st.integers(1, 10**24 - 1))
def test_more_than_18_decimals_are_rounded_half_to_even(whole: int, fraction: int) -> None:
    text = f"{whole}.{fraction:024}"

    stored = Decimal(json.loads(written("cost.recorded", charged(text))[0])["cost"])

    assert stored == Fraction(round(Fraction(text) * 10**18), 10**18)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("0.0000000000000000005", "0"),
        ("0.0000000000000000015", "0.000000000000000002"),
        ("0.0000000000000000025", "0.000000000000000002"),
        ("0.00000000000000000250000000000000000000001", "0.000000000000000003"),
        ("1e-19", "0"),
        ("1e-999999", "0"),
        ("9.9999999999999999995", "10"),
        ("0." + "9" * 300_000, "1"),
        ("1234567890." + "1" * 5_000, "1234567890." + "1" * 18),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_finer_than_18_decimals_is_rounded_once(text: str, stored: str) -> None:
    as_number = written("cost.recorded", charged(text))[0]

    assert json.loads(as_number)["cost"] == stored
    assert written("cost.recorded", charged(f'"{text}"'))[0] == as_number


@given(st.floats(min_value=0, max_value=1e10, exclude_max=True, allow_subnormal=False))
def test_a_cost_that_was_computed_in_floats_is_accepted(cost: float) -> None:
    stored = Decimal(json.loads(written("cost.recorded", charged(repr(cost)))[0])["cost"])

    assert stored == Fraction(round(Fraction(repr(cost)) * 10**18), 10**18)


@pytest.mark.parametrize("text", ["9999999999.9999999999999999995", "9999999999." + "9" * 5_000])
def test_an_amount_that_is_rounded_out_of_the_range_is_refused(text: str) -> None:
    assert "at most 10 digits before the decimal point" in shape_error("cost.recorded", charged(text))


@given(st.integers(10**10, 10**40), st.sampled_from(["", ".5", ".0000000000", "e3"]))
def test_eleven_digits_before_the_point_are_refused(whole: int, rest: str) -> None:
    assert "at most 10 digits before the decimal point" in shape_error("cost.recorded", charged(f"{whole}{rest}"))


@pytest.mark.parametrize("text", ["NaN", "-NaN", "sNaN", "NaN123", "nan", "Infinity", "-Infinity", "inf", "INF"])
def test_infinity_and_nan_are_refused(text: str) -> None:
    assert not Decimal(text).is_finite()
    assert "must be a finite number" in shape_error("cost.recorded", charged(f'"{text}"'))
    assert "must be a finite number" in shape_error("cost.adjusted", {"amount": text, "reason": "may be negative"})


@pytest.mark.parametrize("text", ["1e10", "1e400", "1e999999", "1E+999999", "123456789012345e-4", "10000000000"])
def test_numbers_outside_the_range_are_refused_without_being_expanded(text: str) -> None:
    assert "at most 10 digits before the decimal point" in shape_error("cost.recorded", charged(text))
    assert "at most 10 digits before the decimal point" in shape_error("cost.recorded", charged(f'"{text}"'))


@pytest.mark.parametrize(
    "text", ['""', '"-"', '"."', '"abc"', '"1,5"', '"0x10"', '"1e"', '"$5"', '"1e9999999999999999999"']
)
def test_texts_that_are_not_numbers_are_refused(text: str) -> None:
    assert "decimal" in shape_error("cost.recorded", charged(text))


@pytest.mark.parametrize("text", ["true", "[]", "{}"])
def test_other_json_values_are_refused_as_amounts(text: str) -> None:
    assert "Expected `decimal | null`" in shape_error("cost.recorded", charged(text))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0.0", "0"),
        ("0e999999", "0"),
        ("0e-999999", "0"),
        ("2500.00", "2500"),
        ("2.5e3", "2500"),
        ("125e-6", "0.000125"),
        ("1e-18", "0.000000000000000001"),
        ("9999999999.999999999999999999", "9999999999.999999999999999999"),
        ("0.1e-17", "0.000000000000000001"),
        ("8.75e-9", "0.00000000875"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1." + "0" * 5000, "1"),
        ("0.1", "0.1"),
        ("3.3", "3.3"),
    ],
)
def test_an_amount_has_one_canonical_form(text: str, stored: str) -> None:
    assert json.loads(written("cost.recorded", charged(text))[0])["cost"] == stored


@pytest.mark.parametrize("digits", [5_000, 300_000])
def test_very_many_digits_are_refused(digits: int) -> None:
    run = "9" * digits

    assert "at most 10 digits before the decimal point" in shape_error("cost.recorded", charged(run))
    assert "decimal" in shape_error("cost.recorded", charged(f'"1e{run}"'))


def test_an_amount_that_no_float_represents_is_stored_exactly() -> None:
    payload = read("cost.recorded", charged("1234567890.123456789012345678"))

    assert payload.cost == Decimal("1234567890.123456789012345678")


@given(st.lists(signed_amounts, max_size=50))
def test_sums_are_exact(terms: list[Decimal]) -> None:
    total = money.ZERO
    for term in terms:
        total = money.add(total, term)

    assert Fraction(total) == sum(map(Fraction, terms))
    for term in terms:
        total = money.subtract(total, term)
    assert total == 0


def test_sums_are_exact_in_the_whole_range_of_the_database() -> None:
    almost = Decimal("9" * 20 + "." + "9" * 18)

    assert money.add(almost, Decimal("-1e-18")) == Decimal("9" * 20 + "." + "9" * 17 + "8")
    assert money.subtract(almost, Decimal("0." + "9" * 18)) == Decimal("9" * 20)


def test_addition_raises_instead_of_rounding() -> None:
    with pytest.raises(Inexact):
        money.add(Decimal("1e100"), Decimal("1e-10"))


@pytest.mark.parametrize(
    ("part", "whole", "ratio"),
    [
        ("1", "0", "0"),
        ("1", "-3", "0"),
        ("0", "3", "0"),
        ("1", "3", "0.3333333333"),
        ("2", "3", "0.6666666667"),
        ("1", "20000000000", "0.0000000000"),
        ("3", "20000000000", "0.0000000002"),
        ("-1", "3", "-0.3333333333"),
    ],
)
def test_ratios_are_rounded_half_to_even_at_ten_places(part: str, whole: str, ratio: str) -> None:
    assert money.ratio(Decimal(part), Decimal(whole)) == Decimal(ratio)


@pytest.mark.parametrize("spend", ["0", "-2.5"])
def test_percentages_and_returns_are_zero_unless_something_was_spent(spend: str) -> None:
    assert money.percentage(Decimal(5), Decimal(spend)) == money.return_on_investment(Decimal(5), Decimal(spend)) == 0


def test_percentages_and_returns() -> None:
    assert money.percentage(Decimal("2500"), Decimal("10000")) == 25
    assert money.return_on_investment(Decimal("8250"), Decimal("2500")) == Decimal("2.3")


def test_signalling_nan_never_reaches_arithmetic() -> None:
    with pytest.raises(ValueError, match="finite"):
        money.canonical(Decimal("sNaN"))
    with pytest.raises(InvalidOperation):
        money.add(Decimal("sNaN"), Decimal(1))
