"""The data of every event type against the contract table: fields, limits, enums, currencies."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ledger.domain.catalogue import CATALOGUE
from tests.domain.contract import CONTRACT, NULLS, SET_BY_SERVICE
from tests.domain.helpers import DATA, read, shape_error, written

TEXTS: dict[str, tuple[int, int]] = {
    "name": (1, 255),
    "campaign description": (0, 1_000),
    "cost description": (0, 500),
    "reason": (0, 500),
    "cost.adjusted reason": (1, 500),
    "cost.credited reason": (1, 500),
    "title": (1, 500),
    "content": (0, 1_000_000),
    "message": (0, 1_000),
    "error_message": (1, 100_000),
    "model_used": (0, 255),
    "provider": (0, 255),
    "price.published provider": (1, 255),
    "model": (1, 255),
    "agent_name": (1, 100),
    "response_id": (1, 255),
}

COUNT = (0, 10**12)
INTEGERS = [
    ("campaign.metrics_recorded", "impressions", *COUNT),
    ("campaign.metrics_recorded", "clicks", *COUNT),
    ("campaign.metrics_recorded", "conversions", *COUNT),
    ("cost.recorded", "tokens_used", *COUNT),
    ("cost.settled", "tokens_used", *COUNT),
    ("cost.adjusted", "tokens_used", -(10**12), 10**12),
    ("cost.reserved", "expires_in", 1, 604_800),
    ("job.queued", "max_retries", 0, 1_000),
]

KINDS = [
    ("content.created", "content_type", "blog email social video_script ad_copy landing_page"),
    (
        "job.queued",
        "agent_type",
        "seo_writer email_marketer social_media analyst optimizer researcher coder reviewer planner support other",
    ),
    *(
        (
            name,
            "resource_type",
            "openai_api web_search file_search image_generation embedding llm_api tool audio compute storage media "
            "other",
        )
        for name in ("cost.recorded", "cost.reserved")
    ),
]

MONEY = [
    ("campaign.created", "budget"),
    ("campaign.budget_changed", "budget"),
    ("campaign.metrics_recorded", "revenue"),
    ("job.queued", "budget"),
    ("cost.recorded", "cost"),
    ("cost.settled", "cost"),
]

CURRENCIES = [("campaign.created", "currency"), ("job.queued", "currency"), ("cost.recorded", "currency")]


def required(name: str) -> list[str]:
    return CONTRACT[name].required.split()


def optional(name: str) -> list[str]:
    return CONTRACT[name].optional.split()


def text_limits() -> list[tuple[str, str, int, int]]:
    """List every text field of every type with its minimum and maximum length."""
    found = []
    for name in CONTRACT:
        for field in required(name) + optional(name):
            for key in (f"{name} {field}", f"{name.split('.')[0]} {field}", field):
                if key in TEXTS:
                    found.append((name, field, *TEXTS[key]))
                    break
    return found


def with_field(name: str, field: str, value: Any) -> dict[str, Any]:
    return {**DATA[name], field: value}


def is_read(name: str, data: dict[str, Any]) -> bool:
    try:
        read(name, data)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", CONTRACT)
def test_an_event_has_the_fields_of_the_contract_and_no_others(name: str) -> None:
    known = [field.name for field in msgspec.structs.fields(CATALOGUE[name].payload)]

    assert sorted(known) == sorted(required(name) + optional(name) + SET_BY_SERVICE.get(name, "").split())


@pytest.mark.parametrize("name", CONTRACT)
def test_the_required_fields_are_sufficient(name: str) -> None:
    assert sorted(DATA[name]) == sorted(required(name))
    assert is_read(name, DATA[name])


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in CONTRACT for field in required(name)])
def test_a_missing_required_field_is_named(name: str, field: str) -> None:
    data = {kept: value for kept, value in DATA[name].items() if kept != field}

    assert f"missing required field `{field}`" in shape_error(name, data)


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in CONTRACT for field in optional(name)])
def test_null_for_an_optional_field_means_that_it_is_absent_but_for_a_limit_that_is_removed(
    name: str, field: str
) -> None:
    is_same = written(name, with_field(name, field, None)) == written(name, DATA[name])

    assert is_same == ((name, field) not in NULLS)


@pytest.mark.parametrize("name", CONTRACT)
def test_an_unknown_field_is_named(name: str) -> None:
    assert "unknown field `surprise`" in shape_error(name, with_field(name, "surprise", 1))


@pytest.mark.parametrize("character", ["a", "é", "😀"])
@pytest.mark.parametrize(("name", "field", "most"), [(name, field, most) for name, field, _, most in text_limits()])
def test_texts_are_limited_in_characters_not_bytes(name: str, field: str, most: int, character: str) -> None:
    assert is_read(name, with_field(name, field, character * most))
    assert f"$.{field}" in shape_error(name, with_field(name, field, character * (most + 1)))


def test_texts_can_be_as_short_as_the_contract_allows() -> None:
    too_strict = [
        (name, field)
        for name, field, least, _ in text_limits()
        if not is_read(name, with_field(name, field, "a" * least))
    ]

    assert too_strict == []


@pytest.mark.parametrize(("name", "field"), [limit[:2] for limit in text_limits() if limit[2] == 1])
def test_texts_with_a_minimum_length_cannot_be_empty(name: str, field: str) -> None:
    assert f"$.{field}" in shape_error(name, with_field(name, field, ""))


@pytest.mark.parametrize(("name", "field", "least", "most"), INTEGERS)
def test_integers_are_limited(name: str, field: str, least: int, most: int) -> None:
    accepted = [is_read(name, with_field(name, field, value)) for value in (least - 1, least, most, most + 1)]

    assert accepted == [False, True, True, False]


@pytest.mark.parametrize("value", [1.5, "1", True, [], {}])
@pytest.mark.parametrize(("name", "field"), [limit[:2] for limit in INTEGERS])
def test_only_an_integer_is_accepted_as_an_integer(name: str, field: str, value: Any) -> None:
    assert f"$.{field}" in shape_error(name, with_field(name, field, value))


@pytest.mark.parametrize(("name", "field", "values"), KINDS)
def test_kinds_are_open_and_the_known_ones_are_documented(name: str, field: str, values: str) -> None:
    of_payload = msgspec.json.schema_components([CATALOGUE[name].payload])[1][CATALOGUE[name].payload.__name__]

    assert of_payload["properties"][field]["examples"] == values.split()
    for value in [*values.split(), "a", "x" * 63, "gpu.time-2_b", "a.b.c"]:
        assert is_read(name, with_field(name, field, value))


@pytest.mark.parametrize("value", ["", "Blog", "a b", "1a", "_a", ".a", "é", "x" * 64, "a\n", "\na", "a:b", 0, None])
@pytest.mark.parametrize(("name", "field"), [kind[:2] for kind in KINDS])
def test_a_kind_is_a_lower_case_name(name: str, field: str, value: Any) -> None:
    assert f"$.{field}" in shape_error(name, with_field(name, field, value))


@pytest.mark.parametrize(("name", "field"), MONEY)
def test_money_is_not_negative(name: str, field: str) -> None:
    assert is_read(name, with_field(name, field, "0"))
    assert "must be at least 0" in shape_error(name, with_field(name, field, "-0.000000000000000001"))


def test_the_amount_of_a_hold_is_positive() -> None:
    assert is_read("cost.reserved", with_field("cost.reserved", "amount", "0.000000000000000001"))
    assert "more than 0" in shape_error("cost.reserved", with_field("cost.reserved", "amount", "0"))


@pytest.mark.parametrize(
    ("progress", "is_valid"), [("0", True), ("1", True), ("1.000000000000000001", False), ("-0.1", False)]
)
def test_progress_is_a_fraction_from_0_to_1(progress: str, is_valid: bool) -> None:
    assert is_read("job.progressed", {"progress": progress}) == is_valid


@pytest.mark.parametrize(("name", "field"), CURRENCIES)
@pytest.mark.parametrize("code", ["USD", "EUR", "JPY", "GBP", "CHF", "XAF", "KWD"])
def test_currencies_are_those_of_iso_4217(name: str, field: str, code: str) -> None:
    assert is_read(name, with_field(name, field, code))


@pytest.mark.parametrize(("name", "field"), CURRENCIES)
@pytest.mark.parametrize("code", ["usd", "US", "USDX", "USD\n", " USD", "", "ABC", "XXX", "XTS", "DEM", "$", 840])
def test_a_currency_outside_iso_4217_is_refused(name: str, field: str, code: Any) -> None:
    assert not is_read(name, with_field(name, field, code))


@pytest.mark.parametrize("value", ["not an id", "", 7, {}, "0198f2a0-0000-7000-8000-00000000000", "{0198f2a0}"])
def test_an_invalid_uuid_is_refused(value: Any) -> None:
    assert "$.campaign_id" in shape_error("cost.recorded", with_field("cost.recorded", "campaign_id", value))


@pytest.mark.parametrize("value", [[], "{}", 1, True])
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("job.queued", "input_data"),
        ("job.completed", "output_data"),
        ("content.created", "metadata"),
        ("content.revised", "metadata"),
    ],
)
def test_only_an_object_is_accepted_as_an_object(name: str, field: str, value: Any) -> None:
    assert "must be an object" in shape_error(name, with_field(name, field, value))


def test_a_job_needs_input_data() -> None:
    assert "must be an object" in shape_error("job.queued", with_field("job.queued", "input_data", None))


def test_a_job_of_a_campaign_cannot_name_a_currency() -> None:
    data = {**DATA["job.queued"], "campaign_id": str(uuid4()), "currency": "USD"}

    assert "only for a job without a campaign" in shape_error("job.queued", data)


@pytest.mark.parametrize(("end", "is_valid"), [("2025-01-01", True), ("2025-01-02", True), ("2024-12-31", False)])
def test_a_campaign_cannot_end_before_it_starts(end: str, is_valid: bool) -> None:
    assert is_read("campaign.created", with_field("campaign.created", "end_date", end)) == is_valid
