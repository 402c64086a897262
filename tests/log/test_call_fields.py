"""Fields of calls: usage, labels, foreign bills, traces; what is wrong is refused with its path."""

import json
from typing import Any

import pytest

from ledger.domain.access import LOCAL
from ledger.domain.cost import CostRecorded
from ledger.domain.errors import InvalidEvent
from ledger.log.decode import read_candidate
from tests.events import campaign, cost, event, job, reserve

BILL = {"amount": "10.50", "currency": "EUR", "rate": 1.0823}


def stored(sent: dict[str, Any]) -> Any:
    """Return the data of an event as they are stored."""
    return json.loads(read_candidate(json.dumps(sent).encode(), 0, LOCAL.name, None).data)


def faults(sent: dict[str, Any]) -> list[tuple[str, str]]:
    """Return path and message of each fault of an event, which must have some."""
    with pytest.raises(InvalidEvent) as refused:
        stored(sent)
    return [(error["path"], error["message"]) for error in refused.value.errors]


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        (
            {"input_tokens": 9, "cache_read_tokens": 6, "cache_write_tokens": 4},
            "cache_read_tokens and cache_write_tokens must not be more than input_tokens, which includes them",
        ),
        (
            {"input_tokens": 9, "cache_write_tokens": 4, "cache_write_1h_tokens": 5},
            "cache_write_1h_tokens must not be more than cache_write_tokens, which includes it",
        ),
        ({"input_audio_tokens": 1}, "input_audio_tokens must not be more than input_tokens, which includes it"),
        (
            {"output_tokens": 1, "output_audio_tokens": 2},
            "output_audio_tokens must not be more than output_tokens, which includes it",
        ),
        (
            {"output_tokens": 1, "reasoning_tokens": 2},
            "reasoning_tokens must not be more than output_tokens, which includes it",
        ),
    ],
)
def test_a_part_of_usage_that_is_larger_than_the_whole_is_refused(usage: dict[str, int], message: str) -> None:
    ((path, problem),) = faults(cost(usage=usage))

    assert path == "$.data.usage"
    assert problem.startswith(message)


def test_all_parts_of_usage_that_are_too_large_are_named() -> None:
    ((_, problem),) = faults(cost(usage={"input_audio_tokens": 1, "reasoning_tokens": 2}))

    assert problem.startswith("input_audio_tokens must not")
    assert "; reasoning_tokens must not" in problem


def test_a_price_that_is_sent_is_named_beside_other_faults() -> None:
    sent = cost(price=1)
    assert [path for path, _ in faults(sent)] == ["$.data.price"]

    sent["data"] |= {"tokens_used": -1, "nothing": 2}
    assert {path for path, _ in faults(sent)} == {"$.data.price", "$.data.tokens_used", "$.data.nothing"}


def test_the_message_of_a_failed_job_is_missed_with_the_shape() -> None:
    recorded = event("job.recorded", {"agent_type": "coder", "input_data": {}, "status": "failed"})

    assert faults(recorded) == [("$.data.error_message", "is required if the status is failed")]
    recorded["data"]["error_message"] = "it broke"
    stored(recorded)


def test_parts_of_usage_may_be_the_whole() -> None:
    usage = {"input_tokens": 9, "output_tokens": 3, "cache_read_tokens": 5, "cache_write_tokens": 4}
    usage |= {"cache_write_1h_tokens": 4, "reasoning_tokens": 3, "input_audio_tokens": 9, "output_audio_tokens": 3}

    assert stored(cost(usage=usage))["usage"] == usage


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ({"usage": {"input_tokens": "7"}}, "$.data.usage.input_tokens"),
        ({"usage": {"input_tokens": -1}}, "$.data.usage.input_tokens"),
        ({"usage": {"output_tokens": 10**12 + 1}}, "$.data.usage.output_tokens"),
        ({"usage": {"tokens": 1}}, "$.data.usage"),
        ({"labels": {"team": ""}}, "$.data.labels"),
        ({"labels": {"team": "x" * 256}}, "$.data.labels"),
        ({"labels": {"Team": "growth"}}, "$.data.labels"),
        ({"labels": {"a" * 64: "growth"}}, "$.data.labels"),
        ({"labels": {"team\n": "growth"}}, "$.data.labels"),
        ({"labels": {f"key_{number}": "x" for number in range(17)}}, "$.data.labels"),
        ({"original": BILL | {"currency": "XXQ"}}, "$.data.original"),
        ({"original": BILL | {"rate": 0}}, "$.data.original"),
        ({"original": BILL | {"amount": "-1"}}, "$.data.original"),
        ({"original": BILL | {"amount": "1_0"}}, "$.data.original"),
        ({"original": {"amount": "1", "currency": "EUR"}}, "$.data.original"),
        ({"service_tier": "gold"}, "$.data.service_tier"),
        ({"response_id": ""}, "$.data.response_id"),
        ({"trace_id": "0AF7651916CD43DD8448EB211C80319C"}, "$.data.trace_id"),
        ({"trace_id": "0af7651916cd43dd8448eb211c80319c\n"}, "$.data.trace_id"),
        ({"span_id": "b7ad6b716920333"}, "$.data.span_id"),
        ({"resource_type": "GPU hours"}, "$.data.resource_type"),
        ({"resource_type": "x" * 64}, "$.data.resource_type"),
    ],
)
@pytest.mark.parametrize("opened", [cost, reserve])
def test_a_fault_is_named_with_its_path(opened: Any, sent: dict[str, Any], path: str) -> None:
    assert [found for found, _ in faults(opened(**sent))] == [path]


def test_the_fields_of_a_call_are_stored_in_their_canonical_form() -> None:
    sent = cost(
        labels={"team": "growth", "ab_test": "1"},
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        original=BILL,
        service_tier="batch",
        response_id="chatcmpl-1",
        usage={"output_tokens": 1, "input_tokens": 2, "images": None},
    )

    data = stored(sent)

    assert list(data["labels"]) == ["ab_test", "team"]
    assert list(data["usage"].items()) == [("input_tokens", 2), ("output_tokens", 1)]
    assert data["original"] == {"amount": "10.5", "currency": "EUR", "rate": "1.0823"}
    assert {name: data[name] for name in ("trace_id", "span_id", "service_tier", "response_id")} == {
        name: sent["data"][name] for name in ("trace_id", "span_id", "service_tier", "response_id")
    }


@pytest.mark.parametrize(
    ("sent", "written"),
    [("0.000000000000000001", "0.000000000000000001"), ("1e3", "1000"), (0.1, "0.1"), ("0.0000000000000000005", "0")],
)
def test_the_amounts_of_a_foreign_bill_are_stored_in_plain_notation(sent: Any, written: str) -> None:
    assert stored(cost(original=BILL | {"amount": sent}))["original"]["amount"] == written


@pytest.mark.parametrize("opened", [campaign(), job(), cost()], ids=["campaign", "job", "cost"])
def test_sixteen_labels_are_accepted_and_none_are_not_stored(opened: dict[str, Any]) -> None:
    sixteen = {f"key_{number:02}": "x" for number in range(16)}

    with_labels, without = ({**opened, "data": opened["data"] | {"labels": labels}} for labels in (sixteen, {}))

    assert stored(with_labels)["labels"] == sixteen
    assert "labels" not in stored(without)


def test_a_label_with_the_name_of_an_amount_does_not_hide_a_wrong_amount() -> None:
    assert [path for path, _ in faults(cost("1_0", labels={"cost": "10"}))] == ["$.data.cost"]
    assert stored(cost("10", labels={"cost": "1_0"}))["labels"] == {"cost": "1_0"}


def test_tokens_are_those_that_were_sent_or_else_input_and_output() -> None:
    usage = {"input_tokens": 7, "cache_read_tokens": 5, "output_tokens": 3, "reasoning_tokens": 2}

    derived, sent = (
        read_candidate(json.dumps(each).encode(), 0, LOCAL.name, None)
        for each in (cost(usage=usage), cost(usage=usage, tokens_used=1))
    )

    assert isinstance(derived.payload, CostRecorded)
    assert isinstance(sent.payload, CostRecorded)
    assert (derived.payload.tokens, sent.payload.tokens) == (10, 1)
    assert "tokens_used" not in json.loads(derived.data)
