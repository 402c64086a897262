"""Same content: whether an event that is sent again is a duplicate or a conflict, compared by value.

Every field that was sent must equal the stored one, and every stored field that was not sent must be one that the
service fills in: a default, an inherited campaign or currency, or a cost computed from usage. The work is bounded,
since other appends wait for it: large objects are compared as they are written.
"""

from typing import Any
from uuid import UUID

import msgspec

from ledger.domain.catalogue import decode_stored
from ledger.domain.codec import EventData, FieldPlan, plans_of
from ledger.domain.event import Candidate
from ledger.domain.fields import NO_OBJECT
from ledger.domain.job import JobState
from ledger.domain.json_values import COST_MAX, canonical_cost, canonical_json
from ledger.domain.money import DEFAULT_CURRENCY
from ledger.domain.working_state import RecordedIdentity, WorkingState

_COMPUTED = ("cost", "amount", "price")
"""What the service fills in if it finds a price."""


def has_same_content(recorded: RecordedIdentity, candidate: Candidate, working_state: WorkingState) -> bool:
    """Compare a recorded event with one of the same identity.

    Args:
        recorded: The event in the log.
        candidate: The event that was sent; its times and ids count only if they were sent.
        working_state: Holds the campaign and the job, or the parent job, that the event names.

    Returns:
        Whether the event that was sent is a duplicate. If the recorded text was erased, texts do not count.
    """
    if not (
        recorded.type == candidate.event_type.name
        and candidate.occurred_at in (None, recorded.occurred_at)
        and candidate.correlation_id in (None, recorded.correlation_id)
        and candidate.causation_id in (None, recorded.causation_id)
    ):
        return False
    # Usually the bytes are equal, or the values differ.
    if recorded.data == candidate.data and (recorded.erased or recorded.text == candidate.text):
        return True
    stored = decode_stored(recorded.type, candidate.event_type.schema_version, recorded.data, recorded.text)
    return all(
        (plan.is_free_text and recorded.erased) or _is_same_field(plan, candidate, stored, working_state)
        for plan in plans_of(type(stored))
    )


def _is_same_field(plan: FieldPlan, candidate: Candidate, stored: EventData, working_state: WorkingState) -> bool:
    sent, stored_value = getattr(candidate.payload, plan.name), getattr(stored, plan.name)
    if sent == stored_value:
        return True
    if sent is None and plan.name in _COMPUTED and getattr(stored, "price", None) is not None:
        return True
    if plan.kind == "object":
        return _is_same_object(sent, stored_value, working_state)
    if not candidate.event_type.opens_stream or (sent is not None and stored_value is not None):
        return False
    named = stored_value if sent is None else sent
    return bool(named == _inherited(plan.name, candidate.payload, stored, working_state))


def _is_same_object(sent: msgspec.Raw, stored_value: msgspec.Raw, working_state: WorkingState) -> bool:
    """Compare two objects that are written differently; large ones are not the same then."""
    if NO_OBJECT in (sent, stored_value):
        return False
    one, other = bytes(sent), bytes(stored_value)
    cost = canonical_cost(one) + canonical_cost(other)
    return cost <= COST_MAX and working_state.try_to_compare(cost) and canonical_json(one) == canonical_json(other)


def _inherited(field: str, sent: EventData, stored: EventData, working_state: WorkingState) -> Any:
    """Return what the service fills in if the first event of a stream lacks a field; None if it fills in nothing."""
    if field not in ("campaign_id", "currency"):
        return None
    job_id = getattr(stored, "agent_job_id", None) or getattr(stored, "parent_job_id", None)
    job = _state(working_state, "job", job_id)
    job_campaign_id = job.campaign_id if isinstance(job, JobState) else None
    if field == "campaign_id":
        return job_campaign_id
    campaign_id = getattr(sent, "campaign_id", None) or getattr(stored, "campaign_id", None) or job_campaign_id
    currency_source = _state(working_state, "campaign", campaign_id) or job
    return currency_source.currency if currency_source is not None else DEFAULT_CURRENCY


def _state(working_state: WorkingState, category: str, stream_id: UUID | None) -> Any:
    head = working_state.heads.get((category, stream_id)) if stream_id is not None else None
    return head.state if head is not None else None
