"""Events sent again over HTTP: equal values are duplicates, however they are written."""

import json
from typing import Any

import pytest

from tests.api.helpers import send, slug, without
from tests.conftest import Service
from tests.events import campaign, content, cost, job, reserve


def with_data(event: dict[str, Any], **data: Any) -> dict[str, Any]:
    """Return the event with these fields of its data."""
    return {**event, "data": {**event["data"], **data}}


async def test_a_job_sent_again_in_another_spelling_is_a_duplicate(shared: Service) -> None:
    queued = json.dumps(job(input_data={"x": "INPUT"}))
    spellings = [r'{"a": 1, "b": "\u00e9"}', '{"b":"é","a":1.0}', r'{"b":"\u00E9", "\u0061": 10e-1}']

    answers = [await send(shared, queued.replace('{"x": "INPUT"}', spelled)) for spelled in spellings]
    status, problem = await send(shared, queued.replace('{"x": "INPUT"}', '{"a": true, "b": "é"}'))

    assert [status for status, _ in answers] == [201, 200, 200]
    assert (status, slug(problem)) == (409, "event-id-conflict")


@pytest.mark.parametrize("opened", [cost(), reserve(), content()], ids=lambda event: str(event["type"]))
async def test_a_retry_may_name_the_inherited_campaign_and_currency(shared: Service, opened: dict[str, Any]) -> None:
    owner = campaign(currency="EUR")
    working = job(owner["id"])
    inheriting = with_data(opened, agent_job_id=working["id"])
    currency = {} if opened["type"] == "content.created" else {"currency": "EUR"}
    await shared.append(owner, working, inheriting)

    named, _ = await shared.post(with_data(inheriting, campaign_id=owner["id"], **currency))
    status, problem = await shared.post(with_data(inheriting, campaign_id=working["id"]))

    assert named == 200
    assert (status, slug(problem)) == (409, "event-id-conflict")


async def test_a_retry_of_a_job_may_name_the_default_currency(shared: Service) -> None:
    queued = job()
    await shared.append(queued)

    assert (await shared.post(with_data(queued, currency="USD")))[0] == 200
    assert (await shared.post(with_data(queued, currency="EUR")))[0] == 409


async def test_a_retry_with_an_idempotency_key_may_be_spelt_in_another_way(shared: Service) -> None:
    queued = without(job(input_data={"a": 1, "b": 2}), "id")
    headers = {"Idempotency-Key": "spelt in another way"}

    first, _ = await send(shared, json.dumps(queued), headers=headers)
    second, _ = await send(
        shared, json.dumps(queued).replace('{"a": 1, "b": 2}', '{"b": 2.0, "a": 1}'), headers=headers
    )

    assert (first, second) == (201, 200)


async def test_the_order_of_labels_and_counters_does_not_matter(shared: Service) -> None:
    opened = cost(labels={"a": "1", "b": "2"}, usage={"input_tokens": 2, "output_tokens": 1})
    turned = with_data(opened, labels={"b": "2", "a": "1"}, usage={"output_tokens": 1, "input_tokens": 2})
    await shared.append(opened)

    assert (await shared.post(turned))[0] == 200
    assert (await shared.post(with_data(opened, labels={"a": "1", "b": "3"})))[0] == 409
    assert (await shared.post(with_data(opened, usage={"input_tokens": 2})))[0] == 409
