"""A recorded event is judged by the rules of its schema version; versions of a type never fall."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ledger.domain.catalogue import CATALOGUE
from ledger.domain.codec import EventData
from ledger.domain.event import Recorded, Request
from ledger.domain.event_type import OlderVersion
from ledger.domain.fields import Amount, JsonObject, Name
from ledger.domain.job import JobQueued
from ledger.domain.judge import judge
from ledger.domain.log_history import InvalidLogError, LogHistory
from ledger.domain.rejudge import rejudge, to_candidate
from ledger.domain.working_state import WorkingState
from tests.domain.helpers import NOW, MemoryLedger, Sent, candidate, later, stream_in
from tests.events import campaign, cost, job, reserve


def recorded(*steps: Sent | tuple[int, Sent]) -> list[Recorded]:
    """Record events in the newest version, or those with a number in that version, by the rules of that version."""
    ledger = MemoryLedger()
    for step in steps:
        version, sent = step if isinstance(step, tuple) else (None, step)
        prepared = candidate(sent)
        if version is not None:
            prepared = msgspec.structs.replace(prepared, schema_version=version)
        judge(ledger.working_state, Request([prepared]))
    assert len(ledger.working_state.events) == len(steps), "an event was refused"
    return ledger.working_state.events


def judged_again(events: list[Recorded]) -> list[Recorded]:
    """Judge events as an import does; return the rows that it would write."""
    working_state, history = WorkingState(0, NOW), LogHistory()
    return [rejudge(working_state, history, event, to_candidate(event)) for event in events]


OWNER = campaign()
PAUSED = [OWNER, later(OWNER, "activated"), later(OWNER, "paused")]
CASES = [
    pytest.param(PAUSED, reserve(campaign_id=OWNER["id"]), "the campaign is paused", id="hold while paused"),
    pytest.param(
        [*PAUSED[:2], later(OWNER, "completed")], job(OWNER["id"]), "the campaign is completed", id="completed"
    ),
    pytest.param([OWNER, later(OWNER, "archived")], job(OWNER["id"]), "the campaign is archived", id="archived"),
]


@pytest.mark.parametrize(("before", "sent", "refusal"), CASES)
def test_an_event_that_version_1_allowed_stays_valid_history_as_it_is(
    before: list[Sent], sent: Sent, refusal: str
) -> None:
    events = recorded(*before, (1, sent))

    assert judged_again(events) == events
    assert events[-1].schema_version == 1


@pytest.mark.parametrize(("before", "sent", "refusal"), CASES)
def test_the_same_event_in_version_2_breaks_the_rules(before: list[Sent], sent: Sent, refusal: str) -> None:
    *earlier, last = recorded(*before, (1, sent))

    with pytest.raises(InvalidLogError, match=f"was not possible: {refusal}"):
        judged_again([*earlier, last._replace(schema_version=2)])


@pytest.mark.parametrize("make", [reserve, job])
def test_the_version_of_a_type_never_falls(make: Any) -> None:
    events = recorded((1, make()), cost(), (2, make()), cost(), (1, make()))
    name = events[0].type

    with pytest.raises(InvalidLogError, match=rf"{name} in schema version 1 follows version 2"):
        judged_again(events)
    assert judged_again(events[:-1]) == events[:-1]


@pytest.mark.parametrize(("make", "change"), [(reserve, ('"amount":"1"', '"amount":"1.0"')), (job, ("{", '{"a":1,'))])
def test_bytes_of_an_older_version_are_checked_too(make: Any, change: tuple[str, str]) -> None:
    (event,) = recorded((1, make()))

    with pytest.raises(InvalidLogError, match=r"not in the canonical form|unknown field"):
        judged_again([event._replace(data=event.data.replace(*change))])


class Later(EventData, frozen=True, kw_only=True):
    """A later `job.queued`, in which `budget` is called `cap` and every job has a `queue`."""

    agent_type: Name
    input_data: JsonObject
    cap: Amount | None = None
    queue: Name


def with_cap(fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    renamed = {"cap" if name == "budget" else name: value for name, value in fields.items()}
    return {**renamed, "queue": msgspec.Raw(b'"default"')}


@pytest.mark.parametrize("field", ["cap", "queue"])
def test_bytes_are_checked_by_the_struct_of_their_own_version(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    queued = recorded(job(budget="5"))[0]
    older = (OlderVersion(JobQueued), OlderVersion(JobQueued, with_cap))
    monkeypatch.setitem(CATALOGUE, "job.queued", replace(CATALOGUE["job.queued"], payload=Later, older=older))

    payload = to_candidate(queued).payload

    assert isinstance(payload, Later)
    assert (str(payload.cap), payload.queue) == ("5", "default")
    with pytest.raises(InvalidLogError, match=f"unknown field `{field}`"):
        to_candidate(queued._replace(data=queued.data.replace('"budget"', f'"{field}"')))


def test_a_retried_event_of_version_1_is_a_duplicate_although_it_would_be_refused_now() -> None:
    ledger = MemoryLedger()
    owner = stream_in(ledger, "campaign", "active")
    held = reserve(campaign_id=owner["id"])
    judge(ledger.working_state, Request([msgspec.structs.replace(candidate(held), schema_version=1)]))

    ledger.accept(later(owner, "paused"))

    assert ledger.accept(held).duplicate
